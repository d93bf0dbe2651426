"""What the emulator saw of a session, compared with what was said to it: integrity, and times of its own clock."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from load.integrity import Findings, Heard, Said, compare
from load.recorder import LoadRecorder
from load.session import Session, Turn
from load.speech import Voice

_WITHIN_S: Final = 15.0
_SAMPLE_BYTES: Final = 2


class NotSeen(Exception):
    """The emulator has no recording of a session, or cannot be asked."""


@dataclass(frozen=True, slots=True)
class UpstreamCheck:
    """Asks the emulator. `one_clock` says that its monotonic clock is ours too, so that its times can be used."""

    http: aiohttp.ClientSession
    one_clock: bool
    voice: Voice

    async def check(self, session: Session, meter: LoadRecorder) -> None:
        """Compare a session that is over with its recording, and note what is found.

        Raises:
            NotSeen: there is nothing to compare with.
        """
        turns = [turn for turn in session.turns if turn.first_write_s is not None]
        if not session.upstream_id or not turns:
            return
        recording = await self._recording(session.upstream_id)
        said = [Said(turn.id, turn.sent_bytes, turn.fate or "failed", _digest(self.voice, turn)) for turn in turns]
        heard = [
            Heard(row["received_bytes"], row["sha256"], row["outcome"] == "interrupted")
            for row in recording["utterances"]
        ]
        # Digests of seconds of audio take longer than the loop may wait.
        findings = await asyncio.to_thread(compare, said, heard)
        meter.count(session.system, "utterances checked", len(said))
        meter.count(session.system, "underruns", recording["underruns"]["count"])
        wrong_bytes = {
            number: await self._first_wrong(session, turns[number], at) for number, at in findings.suspects
        }
        for failure in findings.failures:
            number = next((n for n, wrong in wrong_bytes.items() if turns[n].id in failure and wrong), None)
            where = f"; first wrong byte: {wrong_bytes[number]}" if number is not None else ""
            meter.broke(session.system, f"session {session.upstream_id}, {failure}{where}")
        if self.one_clock:
            _note_times(session, turns, findings, recording, meter)

    async def _recording(self, upstream_id: str) -> Any:
        return orjson.loads(await self._get(f"/_emulator/sessions/{upstream_id}"))

    async def _first_wrong(self, session: Session, turn: Turn, at: int) -> int | None:
        """Where what arrived departs from what was said; None when the emulator did not keep the audio."""
        try:
            pcm = await self._get(f"/_emulator/sessions/{session.upstream_id}/utterances/{at}/audio")
        except NotSeen:
            return None
        truth = self.voice.pcm(turn.text)
        return next(
            (index for index, (got, true) in enumerate(zip(pcm, truth, strict=False)) if got != true), None
        )

    async def _get(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(_WITHIN_S), self.http.get(path) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotSeen(f"{path}: {type(error).__name__}") from error
        if response.status != 200:
            raise NotSeen(f"{path}: HTTP {response.status}")
        return body


def _digest(voice: Voice, turn: Turn) -> Any:
    return lambda size_bytes: voice.sha256(turn.text, size_bytes)


def _note_times(
    session: Session, turns: Sequence[Turn], findings: Findings, recording: dict[str, Any], meter: LoadRecorder
) -> None:
    first_packets: dict[int, tuple[int, float]] = {}
    for packet in recording["packets"]:
        first_packets.setdefault(packet["utterance"], (packet["size_bytes"], packet["arrived_mono_s"]))
    cuts = {
        cut["utterance"]: recording["started_mono_s"] + cut["effective_at_s"] for cut in recording["interrupts"]
    }
    for number, at in findings.arrived_as.items():
        turn = turns[number]
        size_bytes, arrived_s = first_packets.get(at, (0, math.nan))
        if turn.paced and not turn.queued and 0 < size_bytes <= turn.sent_bytes:
            due_s = turn.due_s(turn.delivery.covered(size_bytes))
            meter.took(session.system, "first packet upstream", max(0.0, arrived_s - due_s), at_mono_s=arrived_s)
        if turn.interrupt_s is not None and turn.fate == "interrupted" and at in cuts:
            silence_s = cuts[at] - turn.interrupt_s
            meter.took(session.system, "interrupt to silence", max(0.0, silence_s), at_mono_s=cuts[at])
