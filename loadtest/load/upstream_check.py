"""Check of a session against the emulator's recording: integrity, and times of the emulator's clock."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from load.integrity import Findings, ReceivedUtterance, SpokenUtterance, compare
from load.recorder import LoadRecorder
from load.session import Session, Utterance
from load.speech import Voice

_WITHIN_S: Final = 15.0


class NotRecorded(Exception):
    """Missing recording of a session, or an emulator that does not answer."""


@dataclass(frozen=True, slots=True)
class UpstreamCheck:
    """Check against the emulator. With `one_clock` its monotonic clock is this machine's: its times count."""

    http: aiohttp.ClientSession
    one_clock: bool
    voice: Voice
    headers: Mapping[str, str] = field(default_factory=dict)
    """Credential of the control API, which must not reach `/v1`, where it would replace a session's token."""

    async def check(self, session: Session, recorder: LoadRecorder) -> None:
        """Compare an ended session with its recording, and record the result.

        Raises:
            NotRecorded: the recording is missing.
        """
        utterances = [utterance for utterance in session.utterances if utterance.first_write_s is not None]
        if not session.upstream_id or not utterances:
            return
        recording = await self._recording(session.upstream_id)
        spoken = [
            SpokenUtterance(
                utterance.id, utterance.sent_bytes, utterance.outcome or "failed", _digest(self.voice, utterance)
            )
            for utterance in utterances
        ]
        received = [
            ReceivedUtterance(row["received_bytes"], row["sha256"], row["outcome"] == "interrupted")
            for row in recording["utterances"]
        ]
        # Digests of seconds of audio take longer than the loop may wait.
        findings = await asyncio.to_thread(compare, spoken, received)
        recorder.count(session.system, "utterances checked", len(spoken))
        recorder.count(session.system, "underruns", recording["underruns"]["count"])
        wrong_bytes = {
            number: await self._first_wrong(session, utterances[number], at) for number, at in findings.suspects
        }
        for failure in findings.failures:
            number = next((n for n, wrong in wrong_bytes.items() if utterances[n].id in failure and wrong), None)
            where = f"; first wrong byte: {wrong_bytes[number]}" if number is not None else ""
            recorder.note_integrity_failure(session.system, f"session {session.upstream_id}, {failure}{where}")
        if self.one_clock:
            _note_times(session, utterances, findings, recording, recorder)

    async def _recording(self, upstream_id: str) -> Any:
        return orjson.loads(await self._get(f"/_emulator/sessions/{upstream_id}"))

    async def _first_wrong(self, session: Session, utterance: Utterance, at: int) -> int | None:
        """Return the first byte that differs upstream; None when the emulator did not keep the audio."""
        try:
            pcm = await self._get(f"/_emulator/sessions/{session.upstream_id}/utterances/{at}/audio")
        except NotRecorded:
            return None
        truth = self.voice.pcm(utterance.text)
        return next(
            (index for index, (got, true) in enumerate(zip(pcm, truth, strict=False)) if got != true), None
        )

    async def _get(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(_WITHIN_S), self.http.get(path, headers=self.headers) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotRecorded(f"{path}: {type(error).__name__}") from error
        if response.status != 200:
            raise NotRecorded(f"{path}: HTTP {response.status}")
        return body


def _digest(voice: Voice, utterance: Utterance) -> Any:
    return lambda size_bytes: voice.sha256(utterance.text, size_bytes)


def _note_times(
    session: Session,
    utterances: Sequence[Utterance],
    findings: Findings,
    recording: dict[str, Any],
    recorder: LoadRecorder,
) -> None:
    first_packets: dict[int, tuple[int, float]] = {}
    for packet in recording["packets"]:
        first_packets.setdefault(packet["utterance"], (packet["size_bytes"], packet["arrived_mono_s"]))
    cuts = {
        cut["utterance"]: recording["started_mono_s"] + cut["effective_at_s"] for cut in recording["interrupts"]
    }
    for number, at in findings.arrived_as.items():
        utterance = utterances[number]
        size_bytes, arrived_s = first_packets.get(at, (0, math.nan))
        if utterance.paced and not utterance.queued and 0 < size_bytes <= utterance.sent_bytes:
            due_s = utterance.due_s(utterance.delivery.covered(size_bytes))
            recorder.record(
                session.system, "first packet upstream", max(0.0, arrived_s - due_s), at_mono_s=arrived_s
            )
        if utterance.interrupt_s is not None and utterance.outcome == "interrupted" and at in cuts:
            silence_s = cuts[at] - utterance.interrupt_s
            recorder.record(session.system, "interrupt to silence", max(0.0, silence_s), at_mono_s=cuts[at])
