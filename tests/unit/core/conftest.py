"""Rig of a session on a simulated clock, driven as the session driver does."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.events import LogEntry, SessionEvent, UtteranceEnded, UtteranceStarted
from liveavatar_gateway.core.outputs import (
    Answer,
    ContinueAnswer,
    Deadline,
    HandOver,
    Output,
    PauseAnswer,
    PrepareStandby,
    Send,
)
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.pauses import PauseTimeout
from liveavatar_gateway.core.speech.utterance import AudioInput, Utterance
from liveavatar_gateway.core.states import TimeoutAction

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_CLOCK_STEP_S = 1e-6
_MOST_WAKES = 20_000


PATIENT = SpeechConfig(silence_timeout_s=1e9)
"""Settings without the check for silence: the rig sends no pongs, and many tests acknowledge no packets."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark all tests of the core but its state machines, whose random paths must not count for coverage."""
    if not item.path.stem.endswith("_machine"):
        item.add_marker(pytest.mark.core)


class Untouched:
    """Converter for audio that is in LiveAvatar's format already."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        return b"".join(chunks)


class Lagging:
    """Converter that holds back the newest bytes until the end, as a resampler does."""

    def __init__(self, held_bytes: int) -> None:
        self._held_bytes = held_bytes
        self._held = b""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:
        pcm = self._held + b"".join(chunks)
        keep = 0 if last else min(len(pcm), self._held_bytes)
        self._held = pcm[len(pcm) - keep :]
        return pcm[: len(pcm) - keep]


NATIVE = AudioInput(
    byte_rate=m.BYTE_RATE,
    frame_bytes=2,
    max_chunk_bytes=4 << 20,
    new_converter=Untouched,
    detect_container=lambda head: "WAV" if head.startswith(b"RIFF") else None,
    may_be_container=lambda head: len(head) < 4 and b"RIFF".startswith(head),
)


def pcm(seconds: float, *, fill: int = 1) -> bytes:
    """Return audio in LiveAvatar's format."""
    return bytes([fill]) * (round(seconds * m.BYTE_RATE / 2) * 2)


class Rig:
    """Driver of a session that wakes it after an input and at its deadlines alone, and records its commands."""

    native = NATIVE
    lagging = Lagging
    pcm = staticmethod(pcm)

    def __init__(self, config: SessionConfig | None = None) -> None:
        ids = itertools.count(1)
        self.now_s = 1_000.0
        self.commands: list[m.Command] = []
        self.times_s: list[float] = []
        self.answers: list[Answer] = []
        self.pause_answers: list[PauseAnswer | ContinueAnswer] = []
        self._latest: list[Output] = []
        self._wants_standby = False
        self._acknowledged = 0
        self.session = Session(
            "session-1",
            config or SessionConfig(speech=PATIENT),
            new_id=lambda: f"id-{next(ids)}",
            utc_now=lambda: EPOCH + timedelta(seconds=self.now_s),
        )
        self.speech = self.session.speech

    # --- socket

    def connect(self, *, max_duration_s: float | None = None) -> "Rig":
        """Start the session and open its socket."""
        self.session.started(max_duration_s=max_duration_s, now_s=self.now_s)
        self.session.socket_opened(self.now_s)
        self.wake()
        return self

    def ready(self, *, max_duration_s: float | None = None) -> "Rig":
        """Connect, and let LiveAvatar send `connected`."""
        self.connect(max_duration_s=max_duration_s)
        self.tell(m.StateUpdated("connected"))
        return self

    def lose(self) -> None:
        """Lose the socket."""
        self.session.socket_lost(self.now_s)
        self.wake()

    def reopen(self, *, attempt_count: int = 1) -> None:
        """Open a new socket, over which LiveAvatar sends `connected`."""
        self.session.socket_opened(self.now_s, attempt_count=attempt_count)
        self.tell(m.StateUpdated("connected"))

    def acknowledge(self, count: int | None = None) -> None:
        """Acknowledge the next `count` packets, or all of them."""
        packets = self.packets[self._acknowledged :][:count]
        self._acknowledged += len(packets)
        self.tell(*(m.Appended(m.Refs((packet.event_id,))) for packet in packets))

    # --- driver

    def wake(self) -> None:
        """Run the driver's loop once."""
        self.session.tick(self.now_s)
        self._latest = []
        while True:
            outputs = self.session.drain(self.now_s)
            self._latest += outputs
            self.answers += [one for one in outputs if isinstance(one, Answer)]
            self.pause_answers += [one for one in outputs if isinstance(one, PauseAnswer | ContinueAnswer)]
            self._wants_standby |= any(isinstance(output, PrepareStandby) for output in outputs)
            for output in outputs:
                if isinstance(output, Send):
                    self.commands.append(output.command)
                    self.times_s.append(self.now_s)
            if self.session.over or isinstance(outputs[-1], Deadline):
                return

    @property
    def hands_over(self) -> bool:
        """True when the standby avatar is to take over now."""
        self.wake()
        return any(isinstance(output, HandOver) for output in self._latest)

    @property
    def wants_standby(self) -> bool:
        """True when a standby avatar was requested since the last call."""
        self.wake()
        wants, self._wants_standby = self._wants_standby, False
        return wants

    def is_silent_at(self, at_s: float) -> bool:
        """Return True when the socket would count as dead at a time without a confirmation before."""
        silent_at_s = self.speech.silent_at_s
        return silent_at_s is not None and at_s >= silent_at_s

    def run(self, seconds: float) -> None:
        """Advance the clock."""
        until_s = self.now_s + seconds
        for _ in range(_MOST_WAKES):
            deadline_s = self.session._deadline_s
            if self.session.over or deadline_s is None or deadline_s > until_s:
                self.now_s = until_s
                return
            # A real clock moves between two rounds, so a deadline without effect must not stop the simulated one.
            self.now_s = max(self.now_s + _CLOCK_STEP_S, deadline_s)
            self.wake()
        raise AssertionError("the session asks for wakes without end")

    # --- the caller

    def begin(self, utterance_id: str = "", audio_input: AudioInput = NATIVE) -> Utterance:
        return self.session.begin(utterance_id, audio_input)

    def receive(self, utterance: Utterance, audio: bytes, offset: int | None = None) -> None:
        if self.speech.receive(utterance, offset, audio, self.now_s):
            self.wake()

    def seal(self, utterance: Utterance, failure: Any = None) -> None:
        self.session.seal(utterance, failure)
        self.wake()

    def say(
        self, utterance_id: str, seconds: float, audio_input: AudioInput = NATIVE, *, fill: int = 1
    ) -> Utterance:
        """Send a whole utterance in one burst."""
        utterance = self.begin(utterance_id, audio_input)
        self.receive(utterance, pcm(seconds, fill=fill))
        self.seal(utterance)
        return utterance

    def interrupt(self, utterance_id: str = "") -> int:
        interrupt_id = self.session.interrupt(utterance_id)
        self.wake()
        return interrupt_id

    def pause(
        self,
        utterance_id: str = "",
        timeout_s: float | None = None,
        action: TimeoutAction = TimeoutAction.CONTINUE,
    ) -> int:
        timeout = PauseTimeout(seconds=timeout_s, action=action)
        call_id = self.session.pause(utterance_id, timeout, self.now_s)
        self.wake()
        return call_id

    def continue_speech(self) -> int:
        call_id = self.session.continue_speech()
        self.wake()
        return call_id

    # --- LiveAvatar

    def tell(self, *events: m.Event) -> None:
        for event in events:
            if self.session.on_event(event, self.now_s):
                self.wake()

    def cleared(self) -> None:
        """Confirm the latest interrupt."""
        self.tell(m.Cleared(m.Refs((self.cuts[-1].event_id,))))

    # --- results

    @property
    def cuts(self) -> list[m.Interrupt]:
        return [command for command in self.commands if isinstance(command, m.Interrupt)]

    @property
    def packets(self) -> list[m.Speak]:
        return [command for command in self.commands if isinstance(command, m.Speak)]

    def packet_s(self, upstream_id: str | None = None) -> list[float]:
        """Return the lengths of the packets so far, seconds."""
        return [
            len(packet.pcm) / m.BYTE_RATE
            for packet in self.packets
            if upstream_id is None or packet.event_id == upstream_id
        ]

    def sent(self, upstream_id: str) -> bytes:
        """Return all audio that was sent under an id."""
        return b"".join(packet.pcm for packet in self.packets if packet.event_id == upstream_id)

    def sealed(self, upstream_id: str) -> bool:
        return m.SpeakEnd(upstream_id) in self.commands

    @property
    def events(self) -> list[SessionEvent]:
        return [entry.event for entry in self.session.log.after(0)]

    @staticmethod
    def at_s(entry: LogEntry) -> float:
        """Return the time of a log entry on the simulated clock."""
        return (entry.at - EPOCH).total_seconds()

    def of(self, kind: type) -> list[Any]:
        """Return the events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    def story(self, utterance_id: str) -> list[str]:
        """Return the reports about an utterance, in order: `started`, and its outcome."""
        reported = []
        for event in self.events:
            if isinstance(event, UtteranceStarted) and event.utterance_id == utterance_id:
                reported.append("started")
            if isinstance(event, UtteranceEnded) and event.utterance_id == utterance_id:
                reported.append(event.outcome.value)
        return reported

    def end_of(self, utterance_id: str) -> UtteranceEnded:
        """Return the end of an utterance; fail when it has none or two."""
        (ended,) = [one for one in self.of(UtteranceEnded) if one.utterance_id == utterance_id]
        return ended

    def pause_answer(self, call_id: int) -> PauseAnswer | ContinueAnswer | None:
        """Return the answer to a pause or to a request to continue; None while there is none."""
        return next((one for one in self.pause_answers if one.call_id == call_id), None)

    def answer(self, interrupt_id: int) -> list[UtteranceEnded] | None:
        """Return the answer to an interrupt; None while there is none."""
        self.answers += [one for one in self.session.reports() if isinstance(one, Answer)]
        return next((list(one.ended) for one in self.answers if one.interrupt_id == interrupt_id), None)


@pytest.fixture
def make_rig() -> Callable[..., Rig]:
    """Factory of rigs with other settings of speech, scheduler and session; not connected yet."""

    def make(speech: dict[str, Any] | None = None, scheduler: dict[str, Any] | None = None, **changes: Any) -> Rig:
        config = SessionConfig(**{"speech": PATIENT, **changes})
        packets = replace(config.speech.scheduler, **(scheduler or {}))
        return Rig(replace(config, speech=replace(config.speech, scheduler=packets, **(speech or {}))))

    return make


@pytest.fixture
def rig() -> Rig:
    """Rig of a ready session with default settings."""
    return Rig().ready()


@pytest.fixture(params=["ids", "echo", "task", "none"])
def refs_of(request: pytest.FixtureRequest) -> Callable[[str], m.Refs]:
    """Shape of the references in LiveAvatar's events, for each build that was seen."""
    counter = itertools.count(1)
    shapes: dict[str, Callable[[str], m.Refs]] = {
        "ids": lambda upstream_id: m.Refs((upstream_id, f"minted-{next(counter)}"), "task-" + upstream_id),
        "echo": lambda upstream_id: m.Refs((upstream_id,)),
        "task": lambda upstream_id: m.Refs((f"minted-{next(counter)}",), "task-" + upstream_id),
        "none": lambda upstream_id: m.Refs(),
    }
    return shapes[request.param]


@pytest.fixture
def pongless(rig):
    """Rig whose avatar plays audio and sends neither acks nor pongs, against the WebSocket standard."""
    first = rig.say("first", 0.4)
    refs = m.Refs((first.upstream_id,))
    rig.tell(m.SpeakStarted(refs))
    rig.run(0.6)
    rig.tell(m.SpeakEnded(refs))
    rig.commands.clear()
    return rig
