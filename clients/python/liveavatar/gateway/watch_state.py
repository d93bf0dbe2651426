"""What a watch tells, as plain values, and how far each watched session was told: pure, streams are elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf

from liveavatar.gateway.backoff import Backoff
from liveavatar.gateway.errors import GatewayError, InvalidField
from liveavatar.gateway.events import Event, event_from_proto
from liveavatar.gateway.model import SessionRecord, error_from_proto
from liveavatar.gateway.targets import Retries, Route
from liveavatar.gateway.v1 import session_service_pb2 as pb

OPEN_ATTEMPTS = 4
"""Rounds of all targets in which a watch, or a session that nobody has told of yet, must be found."""
MAIN = ""
"""The stream that is always there. Others are named after the process they go to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSnapshot:
    """A session as it is now; its events go on from here."""

    record: SessionRecord
    """The session."""
    sequence: int
    """Its last event."""
    message: pb.WatchSessionsResponse = field(repr=False, compare=False)
    """As the gateway sent it."""

    @property
    def session_id(self) -> str:
        """Which session."""
        return self.record.id


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedEvent:
    """Something happened in a watched session. `SessionEndedEvent` is its last one."""

    session_id: str
    """Where."""
    event: Event
    """What, with its sequence. The room of a `SessionRotatedEvent` is empty: it is for who holds the session."""
    message: pb.WatchSessionsResponse = field(repr=False, compare=False)
    """As the gateway sent it."""

    @property
    def sequence(self) -> int:
        """Number of the event."""
        return self.event.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchGap:
    """Events that this watch will never tell: it was read too slowly, or was away for too long.

    A `WatchSnapshot` of what they led to is next.
    """

    session_id: str
    """Where."""
    first_sequence: int
    """The first event that is missing."""
    last_sequence: int
    """The last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchProgress:
    """Nothing newer has happened: the watch is alive. Comes every 15 s unless the gateway is set otherwise.

    The first one comes when all that was there at the start has been told. Each process that has sessions of the
    watch sends its own.
    """

    sequences: Mapping[str, int]
    """The last event of each session that one process watches for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRemoved:
    """A session is no longer watched."""

    session_id: str
    """Which."""
    error: GatewayError | None
    """Why, as `SessionNotFound`; None after its last event, and when it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResumed:
    """This process had lost the gateway and has it again. What was missed follows, or a `WatchGap` says what."""

    gap: timedelta
    """From the loss to now."""
    attempt_count: int
    """Tries it took."""
    target: str
    """The address that took it."""


WatchChange = WatchSnapshot | WatchedEvent | WatchGap | WatchProgress | WatchRemoved | WatchResumed
"""All there are: a `match` over it is checked for completeness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A process does not tell of a session; `WatchState.roam` says who might."""

    session_id: str
    """Which session."""
    error: GatewayError
    """In the process's words."""


@dataclass(slots=True)
class _WatchedSession:
    """One session: how far it was told, and by whom."""

    line: str
    after: int
    sequence: int
    seen: bool = False
    silent_mono_s: float | None = None
    retries: Retries | None = None

    def told(self, sequence: int) -> None:
        """Somebody told of it."""
        self.sequence = self.after = sequence
        self.seen = True
        self.silent_mono_s = self.retries = None


class WatchState:
    """Which sessions are watched on which stream, and how far each was told.

    Invariant: of each session every event is told once and in order, or a gap says which are missing, over any
    number of streams, and also where two of them tell of the same session.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        """Begin with no session.

        Args:
            targets: The client's own.
        """
        self._targets = tuple(targets)
        self._watched: dict[str, _WatchedSession] = {}
        self._lines: dict[str, dict[str, None]] = {MAIN: {}}
        self._unwanted: set[str] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def on(self, line: str) -> list[str]:
        """Sessions that are watched on a stream."""
        return list(self._lines.get(line, ()))

    def wants(self, line: str) -> bool:
        """Whether a stream is needed."""
        return line == MAIN or line in self._lines

    def line(self, session_id: str) -> str | None:
        """The stream that a session is watched on; None when it is not watched."""
        watched = self._watched.get(session_id)
        return None if watched is None else watched.line

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch a session from now on."""
        self._unwanted.discard(session_id)
        self._drop(session_id)
        self._enter(session_id, _WatchedSession(MAIN, after_sequence, after_sequence))

    def remove(self, session_id: str) -> None:
        """Do not watch a session any more, whatever labels find it again."""
        self._unwanted.add(session_id)
        self._drop(session_id)

    def request(self, session_id: str) -> pb.WatchSessionsRequest:
        """What asks for a watched session."""
        after_sequence = self._watched[session_id].after
        return pb.WatchSessionsRequest(add=pb.AddWatch(session_id=session_id, after_sequence=after_sequence))

    def take(self, line: str, response: pb.WatchSessionsResponse) -> Iterator[WatchChange | Refusal]:
        """What a message of a stream means for who watches."""
        match response.WhichOneof("message"):
            case "snapshot":
                yield from self._take_snapshot(line, response)
            case "event":
                yield from self._take_event(response)
            case "progress":
                sequences = dict(response.progress.sequences)
                for session_id in sequences:
                    if (watched := self._watched.get(session_id)) is not None:
                        watched.silent_mono_s = watched.retries = None
                yield WatchProgress(sequences=sequences)
            case "removed":
                yield from self._take_removed(line, response.removed)
            case "lagged" | None:
                # The snapshot behind `lagged` says it better: it has the number that the gap ends with.
                return

    def lost(self, line: str, now_mono_s: float) -> None:
        """A stream broke: nobody tells of its sessions for now."""
        for session_id in self.on(line):
            watched = self._watched[session_id]
            if watched.silent_mono_s is None:
                watched.silent_mono_s = now_mono_s

    def roam(
        self,
        session_id: str,
        target: str,
        error: GatewayError,
        *,
        main_target: str,
        now_mono_s: float,
        patience_s: float,
        backoff: Backoff | None = None,
    ) -> float | None:
        """Find another process that may tell of a session; `line` says which, `MAIN` or its address.

        Args:
            session_id: The session.
            target: Who does not tell of it.
            error: Why.
            main_target: Where the main stream goes.
            now_mono_s: The time.
            patience_s: How long nobody may tell of it before it is given up.
            backoff: Delays between rounds. Default: those of all streams.

        Returns:
            Seconds to wait before it is asked; None when it is watched no more.
        """
        watched = self._watched.get(session_id)
        if watched is None:
            return None
        if watched.seen and watched.after and isinstance(error, InvalidField):
            # Who took over from a process that was killed has fewer events than that one had told.
            watched.after = 0
            return 0.0
        if watched.silent_mono_s is None:
            watched.silent_mono_s = now_mono_s
        silent_s = now_mono_s - watched.silent_mono_s
        if watched.retries is None:
            watched.retries = Retries(Route(self._targets, target), backoff)
        delay_s = watched.retries.next_delay_s(target, error, lost_s=silent_s if watched.seen else inf)
        never_found = not watched.seen and watched.retries.round_count >= OPEN_ATTEMPTS
        if delay_s is None or never_found or silent_s > patience_s:
            self._drop(session_id)
            return None
        then = watched.retries.route.current
        self._leave(session_id, watched.line)
        watched.line = MAIN if then == main_target else then
        self._enter(session_id, watched)
        return delay_s

    def _take_snapshot(self, line: str, response: pb.WatchSessionsResponse) -> Iterator[WatchChange]:
        record, sequence = SessionRecord.from_proto(response.snapshot.session), response.snapshot.sequence
        if record.id in self._unwanted:
            return
        if record.id not in self._watched:
            self._enter(record.id, _WatchedSession(line, 0, 0))
        yield from self._gap(record.id, sequence)
        self._watched[record.id].told(sequence)
        yield WatchSnapshot(record=record, sequence=sequence, message=response)

    def _take_event(self, response: pb.WatchSessionsResponse) -> Iterator[WatchChange]:
        session_id, event = response.event.session_id, response.event.event
        watched = self._watched.get(session_id)
        if watched is None or event.sequence <= watched.sequence:
            return
        yield from self._gap(session_id, event.sequence - 1)
        watched.told(event.sequence)
        yield WatchedEvent(session_id=session_id, event=event_from_proto(event), message=response)

    def _take_removed(self, line: str, removed: pb.WatchRemoved) -> Iterator[WatchChange | Refusal]:
        watched = self._watched.get(removed.session_id)
        if watched is None or watched.line != line:
            return
        error = error_from_proto(removed.status)
        if error is not None:
            yield Refusal(session_id=removed.session_id, error=error)
            return
        self._drop(removed.session_id)
        yield WatchRemoved(session_id=removed.session_id, error=None)

    def _gap(self, session_id: str, through: int) -> Iterator[WatchGap]:
        """What is missing between what was told and an event that is told next or was told by others."""
        watched = self._watched.get(session_id)
        if watched is not None and watched.sequence and watched.sequence < through:
            first, watched.sequence = watched.sequence + 1, through
            yield WatchGap(session_id=session_id, first_sequence=first, last_sequence=through)

    def _enter(self, session_id: str, watched: _WatchedSession) -> None:
        self._watched[session_id] = watched
        self._lines.setdefault(watched.line, {})[session_id] = None

    def _drop(self, session_id: str) -> None:
        watched = self._watched.pop(session_id, None)
        if watched is not None:
            self._leave(session_id, watched.line)

    def _leave(self, session_id: str, line: str) -> None:
        self._lines[line].pop(session_id, None)
        if line != MAIN and not self._lines[line]:
            del self._lines[line]
