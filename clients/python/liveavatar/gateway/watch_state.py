"""Changes that a watch reports, as plain values, and the position of each watched session. Pure."""

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
"""Rounds of all targets in which a watch must open, or an unknown session must be found."""
MAIN = ""
"""Name of the main stream, which is always open. Side streams are named after the address of their process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSnapshot:
    """Present state of a session, from which its events continue."""

    record: SessionRecord
    """Record of the session."""
    sequence: int
    """Sequence of the session's last event."""
    message: pb.WatchSessionsResponse = field(repr=False, compare=False)
    """Message of the gateway."""

    @property
    def session_id(self) -> str:
        """Id of the session."""
        return self.record.id


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedEvent:
    """Event of a watched session; the last is a `SessionEndedEvent`."""

    session_id: str
    """Id of the session."""
    event: Event
    """Event, with its sequence. The room of a `SessionRotatedEvent` is empty: only the attached caller gets it."""
    message: pb.WatchSessionsResponse = field(repr=False, compare=False)
    """Message of the gateway."""

    @property
    def sequence(self) -> int:
        """Sequence of the event."""
        return self.event.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchGap:
    """Events that this watch lost, since it was read too slowly or was disconnected for too long.

    A `WatchSnapshot` of the resulting state follows.
    """

    session_id: str
    """Id of the session."""
    first_sequence: int
    """Sequence of the first missing event."""
    last_sequence: int
    """Sequence of the last missing event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchProgress:
    """Sign of life without newer events, every 15 s unless the gateway is configured otherwise.

    The first WatchProgress follows the snapshots of all present sessions. Each process that owns watched sessions
    sends its own.
    """

    sequences: Mapping[str, int]
    """Sequence of the last event of each session that the sending process watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRemoved:
    """End of watching a session."""

    session_id: str
    """Id of the session."""
    error: GatewayError | None
    """Reason, such as `SessionNotFound`; None after the last event and after `remove`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchResumed:
    """Recovery of a lost stream. Missed events follow, or a `WatchGap`."""

    gap: timedelta
    """Time since the loss."""
    attempt_count: int
    """Number of attempts."""
    target: str
    """Address that opened the stream again."""


WatchChange = WatchSnapshot | WatchedEvent | WatchGap | WatchProgress | WatchRemoved | WatchResumed
"""Union of all changes; type checkers check that a `match` over it is exhaustive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Refusal of a process to watch a session; `WatchState.relocate` finds the next process."""

    session_id: str
    """Id of the session."""
    error: GatewayError
    """Error of the process."""


@dataclass(slots=True)
class _WatchedSession:
    """Position of one session, and the stream that reports it."""

    stream: str
    after: int
    sequence: int
    found: bool = False
    unwatched_mono_s: float | None = None
    retries: Retries | None = None

    def advance(self, sequence: int) -> None:
        """Note a message of the session."""
        self.sequence = self.after = sequence
        self.found = True
        self.unwatched_mono_s = self.retries = None


class WatchState:
    """Stream and position of each watched session.

    Invariant: each event of a session is reported once and in order, or a gap names the missing events, over any
    number of streams, also while two streams report the same session.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        """Begin without sessions.

        Args:
            targets: Targets of the client.
        """
        self._targets = tuple(targets)
        self._watched: dict[str, _WatchedSession] = {}
        self._streams: dict[str, dict[str, None]] = {MAIN: {}}
        self._removed: set[str] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def sessions_on(self, stream: str) -> list[str]:
        """Return the ids of the sessions on a stream."""
        return list(self._streams.get(stream, ()))

    def wants(self, stream: str) -> bool:
        """Return True while a stream is needed."""
        return stream == MAIN or stream in self._streams

    def stream(self, session_id: str) -> str | None:
        """Return the stream of a session; None when the session is not watched."""
        watched = self._watched.get(session_id)
        return None if watched is None else watched.stream

    def add(self, session_id: str, after_sequence: int = 0) -> None:
        """Watch a session on the main stream."""
        self._removed.discard(session_id)
        self._drop(session_id)
        self._enter(session_id, _WatchedSession(MAIN, after_sequence, after_sequence))

    def remove(self, session_id: str) -> None:
        """Stop watching a session, even if labels select it again."""
        self._removed.add(session_id)
        self._drop(session_id)

    def request(self, session_id: str) -> pb.WatchSessionsRequest:
        """Return the request for a watched session."""
        after_sequence = self._watched[session_id].after
        return pb.WatchSessionsRequest(add=pb.AddWatch(session_id=session_id, after_sequence=after_sequence))

    def take(self, stream: str, response: pb.WatchSessionsResponse) -> Iterator[WatchChange | Refusal]:
        """Take over a message of a stream, and yield the changes for the reader."""
        match response.WhichOneof("message"):
            case "snapshot":
                yield from self._take_snapshot(stream, response)
            case "event":
                yield from self._take_event(response)
            case "progress":
                sequences = dict(response.progress.sequences)
                for session_id in sequences:
                    if (watched := self._watched.get(session_id)) is not None:
                        watched.unwatched_mono_s = watched.retries = None
                yield WatchProgress(sequences=sequences)
            case "removed":
                yield from self._take_removed(stream, response.removed)
            case "lagged" | None:
                # The snapshot that follows `lagged` has the sequence with which the gap ends.
                return

    def lost(self, stream: str, now_mono_s: float) -> None:
        """Note the loss of a stream: no process reports its sessions."""
        for session_id in self.sessions_on(stream):
            watched = self._watched[session_id]
            if watched.unwatched_mono_s is None:
                watched.unwatched_mono_s = now_mono_s

    def relocate(
        self,
        session_id: str,
        target: str,
        error: GatewayError,
        *,
        main_target: str,
        now_mono_s: float,
        resume_timeout_s: float,
        backoff: Backoff | None = None,
    ) -> float | None:
        """Choose another process for a session; `stream` then returns `MAIN` or the address of that process.

        Args:
            session_id: Id of the session.
            target: Address of the process that refused.
            error: Reason of the refusal.
            main_target: Address of the main stream.
            now_mono_s: Current time.
            resume_timeout_s: Time without a report after which the session is given up.
            backoff: Delays between rounds. Default: those of all streams.

        Returns:
            Seconds to wait before the request; None when the session is no longer watched.
        """
        watched = self._watched.get(session_id)
        if watched is None:
            return None
        if watched.found and watched.after and isinstance(error, InvalidField):
            # A process that took over from a killed process has fewer events than that process had reported.
            watched.after = 0
            return 0.0
        if watched.unwatched_mono_s is None:
            watched.unwatched_mono_s = now_mono_s
        unwatched_s = now_mono_s - watched.unwatched_mono_s
        if watched.retries is None:
            watched.retries = Retries(Route(self._targets, target), backoff)
        delay_s = watched.retries.next_delay_s(target, error, lost_s=unwatched_s if watched.found else inf)
        never_found = not watched.found and watched.retries.round_count >= OPEN_ATTEMPTS
        if delay_s is None or never_found or unwatched_s > resume_timeout_s:
            self._drop(session_id)
            return None
        then = watched.retries.route.current
        self._leave(session_id, watched.stream)
        watched.stream = MAIN if then == main_target else then
        self._enter(session_id, watched)
        return delay_s

    def _take_snapshot(self, stream: str, response: pb.WatchSessionsResponse) -> Iterator[WatchChange]:
        record, sequence = SessionRecord.from_proto(response.snapshot.session), response.snapshot.sequence
        if record.id in self._removed:
            return
        if record.id not in self._watched:
            self._enter(record.id, _WatchedSession(stream, 0, 0))
        yield from self._gap(record.id, sequence)
        self._watched[record.id].advance(sequence)
        yield WatchSnapshot(record=record, sequence=sequence, message=response)

    def _take_event(self, response: pb.WatchSessionsResponse) -> Iterator[WatchChange]:
        session_id, event = response.event.session_id, response.event.event
        watched = self._watched.get(session_id)
        if watched is None or event.sequence <= watched.sequence:
            return
        yield from self._gap(session_id, event.sequence - 1)
        watched.advance(event.sequence)
        yield WatchedEvent(session_id=session_id, event=event_from_proto(event), message=response)

    def _take_removed(self, stream: str, removed: pb.WatchRemoved) -> Iterator[WatchChange | Refusal]:
        watched = self._watched.get(removed.session_id)
        if watched is None or watched.stream != stream:
            return
        error = error_from_proto(removed.status)
        if error is not None:
            yield Refusal(session_id=removed.session_id, error=error)
            return
        self._drop(removed.session_id)
        yield WatchRemoved(session_id=removed.session_id, error=None)

    def _gap(self, session_id: str, through: int) -> Iterator[WatchGap]:
        """Yield the gap between the reported events and the event `through`, if any."""
        watched = self._watched.get(session_id)
        if watched is not None and watched.sequence and watched.sequence < through:
            first, watched.sequence = watched.sequence + 1, through
            yield WatchGap(session_id=session_id, first_sequence=first, last_sequence=through)

    def _enter(self, session_id: str, watched: _WatchedSession) -> None:
        self._watched[session_id] = watched
        self._streams.setdefault(watched.stream, {})[session_id] = None

    def _drop(self, session_id: str) -> None:
        watched = self._watched.pop(session_id, None)
        if watched is not None:
            self._leave(session_id, watched.stream)

    def _leave(self, session_id: str, stream: str) -> None:
        self._streams[stream].pop(session_id, None)
        if stream != MAIN and not self._streams[stream]:
            del self._streams[stream]
