"""Record of a conversation: the newest entries, in numbers and in words, for pages that read along."""

import asyncio
import enum
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from liveavatar.gateway import (
    Event,
    PoseChangedEvent,
    SessionEndedEvent,
    SpeechContinuedEvent,
    SpeechPausedEvent,
    StateChangedEvent,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
    UtteranceUnderrunEvent,
)

KEPT_ENTRIES: Final = 500
"""Entries kept for pages that come later: some ten minutes of lively talk."""


class Kind(enum.StrEnum):
    """Kind of an entry."""

    SESSION = "session"
    """The session has another state."""
    POSE = "pose"
    """The avatar has another pose."""
    USER_BEGAN = "user_began"
    """The user speaks."""
    USER_ENDED = "user_ended"
    """The user has spoken."""
    AVATAR_BEGAN = "avatar_began"
    """The avatar speaks."""
    AVATAR_ENDED = "avatar_ended"
    """The avatar has spoken, or was interrupted."""
    INTERRUPTED = "interrupted"
    """The avatar is to be silent: the user speaks, or has pressed the button."""
    PAUSED = "paused"
    """The avatar pauses."""
    CONTINUED = "continued"
    """The pause is over."""
    UNDERRUN = "underrun"
    """The avatar is silent inside its speech, for lack of audio."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of the record."""

    number: int
    """Number of the entry, from 1, without gaps."""
    at_s: float
    """Time of the event, Unix time."""
    kind: Kind
    """Kind of the event."""
    values: Mapping[str, str | int | None]
    """Values of the event: words, and durations in milliseconds."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry as pages read it."""
        return {"number": self.number, "at_ms": round(self.at_s * 1000), "kind": self.kind.value, **self.values}


class Conversation:
    """Record of one conversation, for one event loop. Bounded: `kept` entries, the newest.

    Answers are noted before they are spoken (`expect_answer`), so that the entry of their first sound has their
    latency.
    """

    def __init__(self, on_entry: Callable[[Entry], None] = lambda _: None, *, kept: int = KEPT_ENTRIES) -> None:
        """Begin without entries.

        Args:
            on_entry: Called with each entry.
            kept: Number of entries to keep.
        """
        self._on_entry = on_entry
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._count = 0
        self._expected: dict[str, float] = {}
        self._session_state = ""
        self._changed = asyncio.Event()

    @property
    def session_state(self) -> str:
        """State of the session by the newest entry; empty before the first."""
        return self._session_state

    def add(self, kind: Kind, at_s: float, **values: str | int | None) -> None:
        """Add an entry and wake its readers."""
        if kind is Kind.SESSION:
            self._session_state = str(values["state"])
        self._count += 1
        entry = Entry(self._count, at_s, kind, values)
        self._entries.append(entry)
        self._on_entry(entry)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def now_ms(self) -> int:
        """Return the present time as pages read it, so that they learn how far their clock is off."""
        return round(time.time() * 1000)

    def expect_answer(self, utterance_id: str, user_ended_s: float) -> None:
        """Note that an utterance answers a user who stopped speaking at `user_ended_s`, Unix time."""
        self._expected[utterance_id] = user_ended_s

    def on_event(self, event: Event) -> None:
        """Add the entry of a session's event; most kinds of events have none."""
        at_s = event.time.timestamp()
        match event:
            case StateChangedEvent():
                self.add(Kind.SESSION, at_s, state=event.state.value)
            case SessionEndedEvent():
                self.add(Kind.SESSION, at_s, state="ended", reason=event.record.end_reason.value)
            case PoseChangedEvent():
                self.add(Kind.POSE, at_s, pose=event.pose.value)
            case UtteranceStartedEvent():
                heard_s = self._expected.pop(event.utterance_id, None)
                latency_ms = None if heard_s is None else max(0, round((at_s - heard_s) * 1000))
                self.add(Kind.AVATAR_BEGAN, at_s, utterance=event.utterance_id, latency_ms=latency_ms)
            case UtteranceEndedEvent():
                outcome = event.outcome
                self._expected.pop(outcome.utterance_id, None)
                self.add(
                    Kind.AVATAR_ENDED,
                    at_s,
                    utterance=outcome.utterance_id,
                    outcome=outcome.kind.value,
                    played_ms=_ms(outcome.played),
                )
            case SpeechPausedEvent():
                self.add(Kind.PAUSED, at_s, utterance=event.utterance_id, played_ms=_ms(event.played))
            case SpeechContinuedEvent():
                self.add(
                    Kind.CONTINUED,
                    at_s,
                    utterance=event.utterance_id,
                    cause=event.cause.value,
                    repeated_ms=_ms(event.repeated),
                )
            case UtteranceUnderrunEvent():
                self.add(Kind.UNDERRUN, at_s, utterance=event.utterance_id)
            case _:
                pass

    async def read(self, after: int = 0) -> AsyncGenerator[Entry, None]:
        """Iterate over the entries after a number, past and future.

        A reader that falls behind misses the oldest entries, as their numbers show.
        """
        while True:
            # Taken before the entries are looked at: an entry that comes meanwhile sets this one.
            changed = self._changed
            new = [entry for entry in self._entries if entry.number > after]
            for entry in new:
                after = entry.number
                yield entry
            if not new:
                await changed.wait()


def describe(entry: Entry) -> str:  # noqa: C901, PLR0911  one per kind
    """Return an entry as a line for people."""
    values = entry.values
    match entry.kind:
        case Kind.SESSION:
            reason = values.get("reason")
            return f"session {values['state']}" + (f": {reason}" if reason else "")
        case Kind.POSE:
            return f"pose {values['pose']}"
        case Kind.USER_BEGAN:
            return "you speak"
        case Kind.USER_ENDED:
            return f"you spoke for {_seconds(values['duration_ms'])}"
        case Kind.AVATAR_BEGAN:
            latency_ms = values["latency_ms"]
            return "the avatar speaks" + ("" if latency_ms is None else f", {_seconds(latency_ms)} after you")
        case Kind.AVATAR_ENDED:
            return f"the avatar's speech ended: {values['outcome']}, heard {_seconds(values['played_ms'])}"
        case Kind.INTERRUPTED:
            return "you interrupt by voice" if values["by"] == "voice" else "you interrupt"
        case Kind.PAUSED:
            return f"paused after {_seconds(values['played_ms'])}"
        case Kind.CONTINUED:
            again_ms = values["repeated_ms"]
            again = f", {_seconds(again_ms)} are heard again" if again_ms else ""
            return f"continued ({values['cause']}){again}"
        case Kind.UNDERRUN:
            return "the avatar waits for audio"


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)


def _seconds(ms: str | int | None) -> str:
    return f"{int(ms or 0) / 1000:.2f} s"
