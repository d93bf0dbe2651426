"""Recording of one session: every byte received, with times, for tests to assert.

Times are seconds since the session's start unless the name says `mono` (CLOCK_MONOTONIC, comparable with
`time.monotonic()` of any process on the same machine). Bounded: audio by a budget, lists by `MAX_ROWS`; digests
and counters are always complete.
"""

import hashlib
import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from liveavatar_emulator.playback import BYTES_PER_SECOND, Utterance

MAX_ROWS = 100_000
"""Rows kept per list and session; further rows are only counted."""


class AudioBudget:
    """Budget of kept audio for all sessions together."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve `size_bytes`; False if the budget is used up."""
        if self.used_bytes + size_bytes > self.total_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """Return the bytes of a forgotten session."""
        self.used_bytes -= size_bytes


# Rows of packets and commands are plain tuples of plain values because they are many: the garbage collector does
# not traverse such tuples, so its pauses do not delay timers.
Packet = tuple[int, str | None, int, float]
"""Accepted `agent.speak`: utterance number, event id, size in bytes, arrival in monotonic seconds."""

CommandRecord = tuple[float, str, str | None]
"""Received command, accepted or dropped: seconds since the session's start, type, event id."""


@dataclass(frozen=True, slots=True)
class InterruptRecord:
    """An executed interrupt. `utterance` is the first utterance cut; None if none was queued."""

    event_id: str | None
    received_at_s: float
    effective_at_s: float
    utterance: int | None
    played_bytes: int
    dropped_utterances: int


@dataclass(slots=True)
class SocketRecord:
    """An attached socket. `closed_by` is client, server or lost (no close frame)."""

    opened_at_s: float
    closed_at_s: float | None = None
    close_code: int | None = None
    close_reason: str = ""
    closed_by: str | None = None


@dataclass(slots=True, eq=False)
class UtteranceRecord:
    """Audio and ids of one utterance, with its state in the playback clock."""

    playback: Utterance
    event_ids: dict[str, None] = field(default_factory=dict)
    packets: int = 0
    kept: list[bytes] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)


class AudioNotKept(LookupError):
    """Some of the requested audio was beyond the budget; sizes and digests are still right."""

    def __init__(self, kept_bytes: int, received_bytes: int) -> None:
        super().__init__(
            f"only {kept_bytes} of {received_bytes} bytes were kept; "
            "raise keep_audio_mb or keep_audio_total_mb and run again"
        )


class Recording:
    """Recording of one session."""

    def __init__(self, *, started_mono_s: float, keep_bytes: int, budget: AudioBudget) -> None:
        self.started_mono_s = started_mono_s
        self._keep_bytes = keep_bytes
        self._budget = budget
        self.kept_bytes = 0
        self.received_bytes = 0
        self.packet_count = 0
        self.packets: list[Packet] = []
        self.utterances: list[UtteranceRecord] = []
        self._kept_whole = True
        self._digest = hashlib.sha256()
        self.commands: list[CommandRecord] = []
        self.command_count = 0
        self.interrupts: list[InterruptRecord] = []
        self.interrupt_count = 0
        self.sockets: list[SocketRecord] = []
        self.keepalives: list[tuple[float, str]] = []
        self.keepalive_count = 0
        self.underruns = 0
        self.dry_s = 0.0
        self.commands_before_ready = 0
        self.commands_after_end = 0
        self.packets_after_interrupt = 0
        self.bytes_after_interrupt = 0
        self.unknown_messages = 0
        self.invalid_messages = 0
        self.oversize_packets = 0
        self.odd_size_packets = 0
        self.refused_packets = 0

    def since_start_s(self, now_s: float) -> float:
        """Return a monotonic time as seconds of this session, to the microsecond."""
        return round(now_s - self.started_mono_s, 6)

    def record_command(self, kind: str, event_id: str | None, now_s: float) -> None:
        """Record a command, also a dropped command."""
        self.command_count += 1
        if len(self.commands) < MAX_ROWS:
            self.commands.append((self.since_start_s(now_s), kind, event_id))

    def record_interrupt(self, interrupt: InterruptRecord) -> None:
        """Record an executed interrupt."""
        self.interrupt_count += 1
        if len(self.interrupts) < MAX_ROWS:
            self.interrupts.append(interrupt)

    def record_keepalive(self, via: str, now_s: float) -> None:
        """Record a keep-alive that arrived by `socket` or by `rest`."""
        self.keepalive_count += 1
        if len(self.keepalives) < MAX_ROWS:
            self.keepalives.append((self.since_start_s(now_s), via))

    def record_audio(self, utterance: Utterance, event_id: str | None, pcm: bytes, now_s: float) -> None:
        """Record an accepted packet. Utterances arrive in the order of their numbers."""
        if utterance.number == len(self.utterances):
            self.utterances.append(UtteranceRecord(utterance))
        record = self.utterances[utterance.number]
        size_bytes = len(pcm)
        if event_id is not None and len(record.event_ids) < MAX_ROWS:
            record.event_ids[event_id] = None
        record.packets += 1
        record.digest.update(pcm)
        self._digest.update(pcm)
        self.received_bytes += size_bytes
        self.packet_count += 1
        if size_bytes & 1:
            self.odd_size_packets += 1
        if len(self.packets) < MAX_ROWS:
            self.packets.append((utterance.number, event_id, size_bytes, now_s))
        # The kept audio is always a prefix, so a download is either complete or refused, never with gaps.
        if self._kept_whole and self.kept_bytes + size_bytes <= self._keep_bytes and self._budget.take(size_bytes):
            record.kept.append(pcm)
            self.kept_bytes += size_bytes
        else:
            self._kept_whole = False

    def forget_audio(self) -> None:
        """Release the kept audio and its budget."""
        self._budget.give_back(self.kept_bytes)
        self.kept_bytes = 0
        self._kept_whole = self.received_bytes == 0
        for record in self.utterances:
            record.kept.clear()

    def audio(self) -> bytes:
        """Return all received PCM in order.

        Raises:
            AudioNotKept: the budget was too small.
        """
        if self.kept_bytes != self.received_bytes:
            raise AudioNotKept(self.kept_bytes, self.received_bytes)
        return b"".join(piece for record in self.utterances for piece in record.kept)

    def utterance_audio(self, number: int, *, played_bytes: int | None = None) -> bytes:
        """Return one utterance's PCM, or only its first `played_bytes`.

        Raises:
            IndexError: the session has no such utterance.
            AudioNotKept: the budget was too small.
        """
        record = self.utterances[number]
        pcm = b"".join(record.kept)
        if len(pcm) != record.playback.received_bytes:
            raise AudioNotKept(len(pcm), record.playback.received_bytes)
        return pcm if played_bytes is None else pcm[:played_bytes]

    @property
    def sha256(self) -> str:
        """Digest of all received PCM."""
        return self._digest.hexdigest()

    def packet_rows(self) -> Iterator[dict[str, Any]]:
        """Yield packets as JSON rows.

        `gap_s` is the time since the packet before; None for the first packet of the session.
        """
        previous_mono_s: float | None = None
        for number, event_id, size_bytes, arrived_mono_s in self.packets:
            gap_s = None if previous_mono_s is None else round(arrived_mono_s - previous_mono_s, 6)
            previous_mono_s = arrived_mono_s
            yield {
                "utterance": number,
                "event_id": event_id,
                "size_bytes": size_bytes,
                "arrived_at_s": self.since_start_s(arrived_mono_s),
                "arrived_mono_s": arrived_mono_s,
                "gap_s": gap_s,
            }

    def utterance_row(self, record: UtteranceRecord, played_bytes: int) -> dict[str, Any]:
        """Return one utterance as JSON. `played_bytes` is its present playhead."""
        life = record.playback

        def at(moment_s: float | None) -> float | None:
            return None if moment_s is None else self.since_start_s(moment_s)

        return {
            "number": life.number,
            "event_ids": list(record.event_ids),
            "source_event_id": life.source_event_id,
            "task_id": life.task_id,
            "outcome": life.outcome.value,
            "opened_at_s": at(life.opened_at_s),
            "started_at_s": at(life.started_at_s),
            "speak_end_at_s": at(life.speak_end_at_s),
            "ended_at_s": at(life.ended_at_s),
            "packets": record.packets,
            "received_bytes": life.received_bytes,
            "played_bytes": played_bytes,
            "sha256": record.digest.hexdigest(),
            "underruns": {
                "count": len(life.underruns),
                "dry_s": round(sum(gap.resumed_at_s - gap.dry_at_s for gap in life.underruns), 6),
                "gaps": [
                    {"dry_at_s": at(gap.dry_at_s), "resumed_at_s": at(gap.resumed_at_s)} for gap in life.underruns
                ],
            },
        }


def wav(pcm: bytes) -> bytes:
    """Return PCM as a WAV file: 16 bit, mono, 24 000 Hz. A trailing half sample is dropped."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(BYTES_PER_SECOND // 2)
        file.writeframes(pcm[: len(pcm) & ~1])
    return out.getvalue()
