"""The demo's conversation, held as any caller of the gateway would hold it, and its evidence."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from liveavatar.gateway import AsyncClient, AsyncSession, AsyncUtterance, GatewayError, Outcome
from liveavatar_demo import proof, recordings, room
from liveavatar_demo.emulator_control import EmulatorControl, EmulatorError
from liveavatar_demo.livekit_server import Room
from liveavatar_demo.proof import Check, Evidence, Spoken
from liveavatar_demo.room import NoRoom
from liveavatar_demo.servers import Servers
from liveavatar_demo.servers import servers as run_servers
from liveavatar_demo.timeline import Timeline
from liveavatar_gateway.audio.convert import convert_all
from liveavatar_gateway.audio.formats import NATIVE_BYTE_RATE

SANDBOX_AVATAR: Final = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
"""LiveAvatar's avatar for trying things out."""

_HERE: Final = Path(__file__).parent
GREETING: Final = _HERE / "greeting.wav"
STORY: Final = _HERE / "story.wav"

_INTERRUPT_AFTER_S: Final = 2.5
_QUIET_S: Final = 0.7
"""Time in which audio after the interrupt would be seen."""
_CALL_TIMEOUT_S: Final = 5.0
_LIMIT_S: Final = 35.0
"""A call that takes longer is stuck: it is 17 s of speech and waiting."""
_POLL_S: Final = 0.02
_PAUSE_S: Final = 4.0
"""Between two calls that are watched: long enough to read on the page how the first one ended."""


class DemoFailed(RuntimeError):
    """The call could not be held; the message says why, with the end of the servers' logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of a demo run."""

    checks: tuple[Check, ...]
    wav_path: Path
    wav_s: float
    seconds: float
    """From the first child to the last check."""
    viewer_url: str | None
    """The page where the face was to be seen; None without a LiveKit server."""

    @property
    def ok(self) -> bool:
        """Verdict over all checks."""
        return all(check.ok for check in self.checks)


def run(timeline: Timeline, *, out: Path, ready_delay_ms: int, watch: bool = False) -> Result:
    """Start the servers, hold the call, end the servers, and check.

    Args:
        timeline: Where it is shown.
        out: WAV file for what the avatar said; its folder is made.
        ready_delay_ms: How long the emulated avatar takes to get ready.
        watch: Hold the call again and again, until Ctrl-C.

    Raises:
        StartFailed: a server did not come up.
        DemoFailed: the call could not be held, or is to be watched where there is no room.
        OSError: the WAV file cannot be written.
        KeyboardInterrupt: Ctrl-C; the session and the servers have been ended.
    """
    began_mono_s = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    with room.find(os.environ) as found:
        if watch and isinstance(found, NoRoom):
            raise DemoFailed(found.why)
        settings = found.settings() if isinstance(found, Room) else {}
        with run_servers(ready_delay_ms=ready_delay_ms, emulator_settings=settings) as servers:
            timeline.say(f"The emulator stands in for LiveAvatar on {servers.emulator_url}, the gateway is on")
            timeline.say(
                f"{servers.gateway_address}. Both are processes of their own; this is a caller over gRPC."
            )
            viewer_url = _announce_viewer(servers, found, timeline, watch=watch)
            while True:
                evidence, heard = _hold(servers, timeline)
                recordings.write(out, heard)
                result = Result(
                    checks=tuple(proof.examine(evidence)),
                    wav_path=out,
                    wav_s=len(heard) / NATIVE_BYTE_RATE,
                    seconds=time.monotonic() - began_mono_s,
                    viewer_url=viewer_url,
                )
                if not watch:
                    return result
                timeline.verdict(result.checks)
                timeline.say("Again, until Ctrl-C.\n")
                time.sleep(_PAUSE_S)


def _announce_viewer(servers: Servers, found: Room | NoRoom, timeline: Timeline, *, watch: bool) -> str | None:
    """Say where the face is to be seen, or what is missing for that."""
    if isinstance(found, NoRoom):
        timeline.say(f"{found.why}\n")
        return None
    url = f"{servers.emulator_url}/viewer"
    with _failing(servers):
        built = httpx.get(url, trust_env=False, timeout=_CALL_TIMEOUT_S).is_success
    timeline.say(f"Watch the face: {url}{'' if built else ' (once `make viewer` has built that page)'}")
    timeline.say(
        "" if watch else 'It is there as long as this runs; `make demo ARGS="--watch"` goes on until Ctrl-C.\n'
    )
    return url


def _hold(servers: Servers, timeline: Timeline) -> tuple[Evidence, bytes]:
    with _failing(servers):
        return asyncio.run(_bounded(servers, timeline))


@contextlib.contextmanager
def _failing(servers: Servers) -> Iterator[None]:
    """Say why the call failed, with the end of the servers' logs."""
    try:
        yield
    except (GatewayError, EmulatorError, TimeoutError) as error:
        why = str(error) or f"it did not end within {_LIMIT_S:.0f} s"
        raise DemoFailed(f"the call failed: {why}\n{servers.log_tail()}") from error


async def _bounded(servers: Servers, timeline: Timeline) -> tuple[Evidence, bytes]:
    async with (
        asyncio.timeout(_LIMIT_S),
        AsyncClient(
            servers.gateway_address, timeout=_CALL_TIMEOUT_S, options=[("grpc.enable_http_proxy", 0)]
        ) as client,
    ):
        with EmulatorControl(servers.emulator_url) as emulator:
            return await _Call(client, emulator, timeline).hold()


class _File:
    """A recording to speak, and what should arrive of it."""

    def __init__(self, path: Path) -> None:
        audio_format, samples = recordings.read(path)
        self.path = path
        self.rate_hz = audio_format.rate_hz
        self.seconds = len(samples) / audio_format.byte_rate
        self.expected = convert_all(audio_format, samples)


class _Call:
    """Demo call: a greeting that must wait, a story that is interrupted."""

    def __init__(self, client: AsyncClient, emulator: EmulatorControl, timeline: Timeline) -> None:
        self._client = client
        self._emulator = emulator
        self._timeline = timeline
        self._greeting = _File(GREETING)
        self._story = _File(STORY)

    async def hold(self) -> tuple[Evidence, bytes]:
        """Hold the call.

        Returns:
            The evidence, and what was heard of both recordings, 24 kHz mono s16le.
        """
        mark = self._timeline.mark
        self._timeline.begin()
        asked_mono_s = time.monotonic()
        mark("asked", "ask for a session in LiveAvatar's sandbox")
        opening = self._client.open_session(SANDBOX_AVATAR, sandbox=True, labels={"caller": "demo"})
        async with opening as session:
            greeting = session.say(GREETING)
            mark("room", f"the room can be joined: {session.room.url}")
            mark(
                "handed_over",
                f"{GREETING.name} handed over at once: {self._greeting.seconds:.2f} s at "
                f"{self._greeting.rate_hz} Hz; the avatar is not ready, so the gateway holds it",
            )
            await session.ready()
            mark("ready", f"session ready in {(time.monotonic() - asked_mono_s) * 1000:.0f} ms")
            greeted = await self._speak_greeting(session, greeting)
            told = await self._cut_story(session)
            await asyncio.sleep(_QUIET_S)
            final = await session.end()
        spoken_s = final.usage.played_duration.total_seconds()
        mark("ended", f"session ended: {final.end_reason.value}; {spoken_s:.2f} s of speech were heard")
        return await self._evidence(final.upstream_session_id, greeted, told)

    async def _speak_greeting(self, session: AsyncSession, greeting: AsyncUtterance) -> Outcome:
        mark = self._timeline.mark
        packet = await self._first_packet(session.record.upstream_session_id)
        mark(
            "first_packet",
            f"first packet upstream: {packet['size_bytes'] / NATIVE_BYTE_RATE:.2f} s of speech",
            at_mono_s=packet["arrived_mono_s"],
        )
        await greeting.started()
        mark("speaking", f"the avatar speaks {GREETING.name}")
        with self._timeline.speaking(self._greeting.seconds) as show:
            async for progress in greeting.progress_updates():
                show(progress.played.total_seconds())
        outcome = await greeting
        mark(
            "greeting_ended",
            f"{GREETING.name} ended: {outcome.kind.value}, "
            f"heard {outcome.played.total_seconds():.2f} of {self._greeting.seconds:.2f} s",
        )
        return outcome

    async def _cut_story(self, session: AsyncSession) -> Outcome:
        """Speak the story, and interrupt it once enough was heard."""
        mark = self._timeline.mark
        story = session.say(STORY)
        await story.started()
        mark("speaking", f"the avatar speaks {STORY.name}")
        with self._timeline.speaking(self._story.seconds) as show:
            async for progress in story.progress_updates():
                show(progress.played.total_seconds())
                if progress.played.total_seconds() >= _INTERRUPT_AFTER_S:
                    break
        asked_mono_s = time.monotonic()
        mark("interrupt", "interrupt: the user speaks, so the avatar must not", at_mono_s=asked_mono_s)
        await session.interrupt(story.id)
        ack_s = time.monotonic() - asked_mono_s
        outcome = await story
        theirs_s = await self._upstream_ack_s(session.record.upstream_session_id)
        mark(
            "silent",
            f"silent, acknowledged after {ack_s * 1000:.0f} ms, {theirs_s * 1000:.0f} of them LiveAvatar's own",
            at_mono_s=asked_mono_s + ack_s,
        )
        mark(
            "story_ended",
            f"{STORY.name} ended: {outcome.kind.value}, "
            f"heard {outcome.played.total_seconds():.2f} of {self._story.seconds:.2f} s",
        )
        return outcome

    async def _upstream_ack_s(self, upstream_id: str) -> float:
        """Return LiveAvatar's own share of the interrupt's latency."""
        interrupts = (await asyncio.to_thread(self._emulator.session, upstream_id))["interrupts"]
        return float(interrupts[0]["effective_at_s"] - interrupts[0]["received_at_s"]) if interrupts else 0.0

    async def _first_packet(self, upstream_id: str) -> Mapping[str, Any]:
        """Wait for the emulator's record of the first packet; the call's limit bounds the wait."""
        while not (packets := (await asyncio.to_thread(self._emulator.session, upstream_id))["packets"]):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(_POLL_S)
        first: Mapping[str, Any] = packets[0]
        return first

    async def _evidence(self, upstream_id: str, greeted: Outcome, told: Outcome) -> tuple[Evidence, bytes]:
        recording = await asyncio.to_thread(self._emulator.session, upstream_id)
        greeting, greeting_heard = await self._spoken(recording, 0, self._greeting, greeted)
        story, story_heard = await self._spoken(recording, 1, self._story, told)
        evidence = Evidence(
            greeting=greeting,
            story=story,
            ready_to_first_packet_s=proof.ready_to_first_packet_s(recording),
            commands_before_ready=proof.commands_before_ready(recording),
            underruns=recording["underruns"]["count"],
            interrupts=len(recording["interrupts"]),
            packets_after_interrupt=proof.packets_after_interrupt(recording),
            active_sessions=await asyncio.to_thread(self._emulator.active),
        )
        return evidence, greeting_heard + story_heard

    async def _spoken(
        self, recording: Mapping[str, Any], number: int, file: _File, told: Outcome
    ) -> tuple[Spoken, bytes]:
        """Put together what both sides know of an utterance, and what was heard of it."""
        recorded, heard, heard_bytes = b"", b"", 0
        # An utterance that never arrived is evidence too.
        if number < len(recording["utterances"]):
            audio = self._emulator.utterance_audio
            recorded = await asyncio.to_thread(audio, recording["id"], number)
            heard = await asyncio.to_thread(audio, recording["id"], number, played=True)
            heard_bytes = recording["utterances"][number]["played_bytes"]
        spoken = Spoken(
            name=file.path.name,
            expected=file.expected,
            recorded=recorded,
            heard_bytes=heard_bytes,
            told_outcome=told.kind.value,
            told_s=told.played.total_seconds(),
        )
        return spoken, heard
