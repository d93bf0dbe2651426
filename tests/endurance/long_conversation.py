"""`python -m endurance.long_conversation`: hours with one session whose avatars last five minutes each.

Emulator and gateway run 20 times as fast, so two hours take six minutes. The room is the caller's own, and the
session rotates: no utterance is cut, each change falls into a silence, and nothing is left running.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field

import click
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from testkit import processes
from testkit.caller import Attachment, Speech
from testkit.caller import caller as connect
from testkit.clock import HastenedClock
from testkit.continuity import noise

SPEED = 20.0
LIMIT_S = 300
ROOMS = {"livekit_url": "ws://127.0.0.1:1", "livekit_key": "devkey", "livekit_secret": "s" * 40}
"""The emulator takes any room: it joins none without a LiveKit server of its own."""


@dataclass(slots=True)
class Summary:
    """Result of a conversation. Times are seconds of the accelerated clocks."""

    talked_s: float = 0.0
    utterances: int = 0
    not_completed: int = 0
    rotations: int = 0
    during_speech: int = 0
    """Rotations while an utterance was heard."""
    silences_s: list[float] = field(default_factory=list)
    """For each rotation, the silence it fell into, from the last end to the next start."""
    lost_bytes: int = 0
    repeated_bytes: int = 0
    in_order: bool = True
    """Equality of the received and the sent audio, byte for byte."""
    left: int = 0
    end_reason: str = ""

    @property
    def ok(self) -> bool:
        """Verdict: no utterance interrupted, no byte lost, no session left."""
        wrong = self.not_completed + self.during_speech + self.lost_bytes + self.repeated_bytes + self.left
        return not wrong and self.in_order and self.rotations > 0 and self.end_reason == "END_REASON_CALLER_ENDED"

    def table(self) -> str:
        """For people."""
        shortest_s = min(self.silences_s, default=0.0)
        rows = [
            ("talked", f"{self.talked_s / 60:.0f} min, {SPEED:g} times as fast, {LIMIT_S // 60} min per avatar"),
            ("utterances", f"{self.utterances}, of which {self.not_completed} were not completed"),
            ("rotations", f"{self.rotations}, of which {self.during_speech} while something was heard"),
            ("silences they fell into", f"{len(self.silences_s)}, the shortest {shortest_s:.2f} s"),
            ("bytes", f"{self.lost_bytes} lost, {self.repeated_bytes} repeated, in order: {self.in_order}"),
            ("sessions left upstream", str(self.left)),
            ("end", self.end_reason),
        ]
        return "\n".join(f"{name:25} {value}" for name, value in rows)


async def talk(minutes: float) -> Summary:
    """Hold the conversation.

    Args:
        minutes: How long, on the hastened clocks.
    """
    summary = Summary()
    with (
        tempfile.TemporaryDirectory() as folder,
        processes.emulator(clock_speed=SPEED, credits=1_000_000, keep_audio_total_mb=4096) as emulator,
        processes.gateway(
            emulator.url, clock=HastenedClock(SPEED), registry_file=f"{folder}/registry.db", **ROOMS
        ) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(
                auto_rotate=True,
                max_duration=duration_pb2.Duration(seconds=LIMIT_S),
                livekit_room=session_pb2.LiveKitRoom(name="long-talk"),
            )
            await attachment.until_ready()
            listening = asyncio.create_task(attachment.event("ended"))
            said = await _speak(await caller.speak(attachment.session_id), minutes, summary)
            session = await caller.end(attachment.session_id)
            await listening
        await asyncio.to_thread(emulator.wait_active, 0)
        summary.left = emulator.active()
        summary.end_reason = session_pb2.EndReason.Name(session.end_reason)
        _look_at_rotations(attachment, summary)
        _compare(emulator, attachment, said, summary)
    return summary


async def _speak(stream: Speech, minutes: float, summary: Summary) -> list[bytes]:
    """Utterances of 2 to 8 s with 0.5 to 3 s of thinking between them."""
    began_s = time.monotonic()
    said = []
    while (passed_s := (time.monotonic() - began_s) * SPEED) < minutes * 60:
        number = len(said)
        pcm = noise(2.0 + number * 7 % 13 / 2, seed=number)
        said.append(pcm)
        await stream.say(pcm, f"u{number}")
        ended = await stream.until("ended")
        summary.utterances += 1
        summary.not_completed += ended.outcome != audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        await asyncio.sleep((0.5 + number * 5 % 6 / 2) / SPEED)
        if number % 100 == 99:
            click.echo(f"{passed_s / 60:4.0f} min, {number + 1} utterances", err=True)
    summary.talked_s = (time.monotonic() - began_s) * SPEED
    return said


def _look_at_rotations(attachment: Attachment, summary: Summary) -> None:
    talking, ended_s, waiting = False, 0.0, 0
    for event in attachment.events:
        kind, at_s = event.WhichOneof("event"), event.time.ToNanoseconds() / 1e9
        if kind == "utterance_started":
            talking = True
            summary.silences_s += [at_s - ended_s] * waiting
            waiting = 0
        elif kind == "utterance_ended":
            talking, ended_s = False, at_s
        elif kind == "rotated":
            summary.rotations += 1
            summary.during_speech += talking
            waiting += 1


def _compare(emulator: processes.Emulator, attachment: Attachment, said: list[bytes], summary: Summary) -> None:
    rotations = [event.rotated for event in attachment.events if event.WhichOneof("event") == "rotated"]
    avatars = [attachment.upstream_id, *(rotated.upstream_session_id for rotated in rotations)]
    compare(b"".join(emulator.audio(avatar) for avatar in avatars), said, summary)


def compare(heard: bytes, said: list[bytes], summary: Summary) -> None:
    """Note what of the utterances is missing from what all avatars together got, or there twice, or elsewhere."""
    source = b"".join(said)
    summary.in_order = heard == source
    if not summary.in_order:
        present = sum(len(pcm) for pcm in said if pcm in heard)
        summary.lost_bytes = len(source) - present
        summary.repeated_bytes = max(0, len(heard) - present)


def main(words: list[str] | None = None) -> int:
    """Run it; 0 when nothing was cut, lost or left."""
    parser = argparse.ArgumentParser(
        prog="python -m endurance.long_conversation", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--minutes", type=float, default=120.0, help="of hastened time; default 120, which take 6")
    arguments = parser.parse_args(sys.argv[1:] if words is None else words)
    summary = asyncio.run(talk(arguments.minutes))
    click.echo(summary.table())
    return 0 if summary.ok else 1


if __name__ == "__main__":
    sys.exit(main())
