"""Turns of a session's users for programs without an event loop."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.model import Interruption
from liveavatar.gateway.portal import Portal
from liveavatar.gateway.turn_detector import TurnEnd
from liveavatar.gateway.turn_interrupts import TurnVerdict
from liveavatar.gateway.user_turn import AsyncUserTurn
from liveavatar.gateway.user_turns import AsyncUserTurns


class UserTurn:
    """Turn of a user: `for chunk in turn`, or `turn.complete()`; the blocking counterpart of `AsyncUserTurn`."""

    def __init__(self, turn: AsyncUserTurn, portal: Portal) -> None:
        self._turn = turn
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._turn!r}>"

    @property
    def participant(self) -> str:
        """Identity of the user in the room."""
        return self._turn.participant

    @property
    def started_at(self) -> datetime:
        """Time of the first voice, by the gateway's clock; the audio begins earlier by the pre-roll."""
        return self._turn.started_at

    @property
    def format(self) -> AudioFormat:
        """Format of the audio: 16 kHz mono 16-bit PCM."""
        return self._turn.format

    @property
    def audio(self) -> bytes:
        """Audio so far; after the end, all of the turn."""
        return self._turn.audio

    @property
    def duration(self) -> timedelta:
        """Duration of the audio so far, with pre-roll and silence."""
        return self._turn.duration

    @property
    def end(self) -> TurnEnd | None:
        """Reason for the end; None while the user speaks."""
        return self._turn.end

    @property
    def verdict(self) -> TurnVerdict:
        """Verdict by the rules; see `AsyncUserTurn.verdict`."""
        return self._turn.verdict

    @property
    def interrupted(self) -> Interruption | None:
        """Speech of the avatar that the turn interrupted; see `AsyncUserTurn.interrupted`."""
        return self._turn.interrupted

    def __iter__(self) -> Iterator[bytes]:
        return self._portal.iterate(aiter(self._turn), None)

    def complete(self, timeout: float | None = None) -> bytes:
        """Wait for the end of the turn and return its audio.

        Raises:
            DeadlineExceeded: the turn did not end within `timeout` seconds; it continues.
        """
        return self._portal.call(self._turn.complete(), timeout)

    def report_words(self, count: int) -> None:
        """Report the number of words recognized so far, for `InterruptRules.min_words`."""
        self._portal.run(lambda: self._turn.report_words(count))


class UserTurns:
    """Turns of a session's users: `for turn in session.user_turns()`; blocking counterpart of `AsyncUserTurns`.

    One thread reads. Close it with `with` or `close`.
    """

    def __init__(self, turns: AsyncUserTurns, portal: Portal) -> None:
        self._turns = turns
        self._portal = portal

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._turns!r}>"

    def __enter__(self) -> Self:
        self._portal.call(self._turns.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._portal.forked:
            self._portal.call(self._turns.__aexit__(kind, error, traceback))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> UserTurn:
        turn = self.next()
        if turn is None:
            raise StopIteration
        return turn

    @property
    def connected(self) -> bool:
        """True while the gateway is in the room; otherwise the stream is being opened, or is over."""
        return self._turns.connected

    @property
    def closed(self) -> bool:
        """True once nobody is heard any longer; turns that were heard before may still follow."""
        return self._turns.closed

    @property
    def dropped_count(self) -> int:
        """Number of turns that were dropped because 16 newer turns waited for the program."""
        return self._turns.dropped_count

    def next(self, timeout: float | None = None) -> UserTurn | None:
        """Wait for the next turn; None after the end of the session, or after `close`.

        Raises:
            DeadlineExceeded: no turn came within `timeout` seconds; users are still heard.
            GatewayError: no gateway was reachable any more, or the gateway refused.
        """
        turn = self._portal.call(self._turns.next(), timeout)
        return None if turn is None else UserTurn(turn, self._portal)

    def close(self) -> None:
        """Stop listening. Idempotent; has no effect in a fork."""
        if not self._portal.forked:
            self._portal.run(self._turns.close)
