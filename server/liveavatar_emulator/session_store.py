"""Store of minted, running and ended sessions, with the counters of those that were forgotten."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from liveavatar_emulator import errors
from liveavatar_emulator.account import Account, SessionRecord
from liveavatar_emulator.counters import counters_of
from liveavatar_emulator.driver import Avatar, SessionDriver
from liveavatar_emulator.session_request import SessionRequest


@dataclass(slots=True)
class MintedSession:
    """A minted session, started or not."""

    session_id: str
    account: Account
    request: SessionRequest
    minted_s: float
    started: bool = False


@dataclass(slots=True, eq=False)
class StartedSession:
    """A started session with its driver, and with its avatar if it has a room."""

    record: SessionRecord
    minted: MintedSession
    secret: str
    """Secret of its `ws_url`."""
    driver: SessionDriver
    avatar: Avatar | None


class SessionStore:
    """Sessions in the order of their start. Iteration yields the started sessions, ended ones included."""

    def __init__(self) -> None:
        self._minted: OrderedDict[str, MintedSession] = OrderedDict()
        self._started: OrderedDict[str, StartedSession] = OrderedDict()
        self._by_secret: dict[str, StartedSession] = {}
        self.started_total = 0
        self.ended: Counter[str] = Counter()
        self.forgotten: Counter[str] = Counter()

    def __iter__(self) -> Iterator[StartedSession]:
        return iter(tuple(self._started.values()))

    def __len__(self) -> int:
        return len(self._started)

    @property
    def minted_waiting(self) -> int:
        """Number of minted sessions that were not started."""
        return len(self._minted)

    def get(self, session_id: str) -> StartedSession | None:
        """Return a started session."""
        return self._started.get(session_id)

    def minted(self, session_id: str) -> MintedSession | None:
        """Return a minted session, started or not."""
        started = self._started.get(session_id)
        return started.minted if started is not None else self._minted.get(session_id)

    def for_socket(self, secret: str) -> StartedSession | None:
        """Return the running session of a `ws_url`; a session with a connector has no socket."""
        started = self._by_secret.get(secret)
        if started is None or not started.record.active or started.minted.request.connector is not None:
            return None
        return started

    def active(self) -> list[StartedSession]:
        """Return the running sessions."""
        return [started for started in self._started.values() if started.record.active]

    def running(self, session_id: str, account: Account) -> StartedSession:
        """Return a running session of an account.

        Raises:
            ApiError: 404 for a session that belongs to another account, or has ended.
        """
        started = self._started.get(session_id)
        if started is None or account.records.get(session_id) is not started.record or not started.record.active:
            raise errors.not_found("Session")
        return started

    def add_minted(self, minted: MintedSession) -> None:
        """Store a minted session."""
        self._minted[minted.session_id] = minted

    def mark_started(self, minted: MintedSession) -> int:
        """Take a minted session out of the waiting ones and return its ordinal among all started sessions."""
        minted.started = True
        self._minted.pop(minted.session_id, None)
        self.started_total += 1
        return self.started_total

    def add(self, started: StartedSession, *, keep: int) -> None:
        """Store a started session, and forget the oldest ended sessions beyond `keep`."""
        self._started[started.record.id] = started
        self._by_secret[started.secret] = started
        self._forget_oldest(keep)

    def drop_minted(self, *, minted_before_s: float | None = None) -> None:
        """Forget the sessions that were not started: all of them, or those minted before a time."""
        while self._minted:
            oldest = next(iter(self._minted.values()))
            if minted_before_s is not None and oldest.minted_s >= minted_before_s:
                return
            del self._minted[oldest.session_id]

    def _forget_oldest(self, keep: int) -> None:
        surplus = len(self._started) - keep
        if surplus <= 0:
            return
        ended = [started for started in self._started.values() if not started.record.active]
        for started in ended[:surplus]:
            recording = started.driver.session.recording
            self.forgotten.update(counters_of(recording))
            started.driver.dispose()
            recording.forget_audio()
            started.minted.account.records.pop(started.record.id, None)
            del self._started[started.record.id]
            del self._by_secret[started.secret]
