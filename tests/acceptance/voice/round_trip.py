"""Round trip of a voice: a user speaks in a room, a parrot answers through gRPC alone, and the user hears it."""

import asyncio
import random
import statistics
from dataclasses import dataclass
from typing import Final

import numpy as np
import soxr

from acceptance.line import Line, Outcome, Setting
from acceptance.voice.parrot import END_S, Answer, Parrot, parrot_of
from acceptance.voice.stage import stage
from liveavatar.gateway import AsyncClient
from testkit.caller import AVATAR
from testkit.likeness import Likeness, likeness
from testkit.rooms import recorded_speech
from testkit.voices import RATE_HZ as MOUTH_HZ
from testkit.voices import Spoken, speaking
from testkit.watcher import RATE_HZ, Watcher, watching

MIN_CORRELATION: Final = 0.8
MIN_ENVELOPE: Final = 0.9
_SENTENCE_S: Final = (2.0, 3.5)
_RECORDING_S: Final = 9.0
"""Length of the demo's recordings, from which the sentences are cut."""
_TAIL_S: Final = 0.6
"""Time after an answer in which its last samples come through the room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Figures of one sentence and its answer; times in seconds."""

    likeness: Likeness
    to_grpc_s: float
    """From the mouth to the caller's `ListenAudio`."""
    to_packet_s: float
    """From the caller's `say` to the first packet at LiveAvatar."""
    to_track_s: float
    """From that packet to the first sample in the avatar's track, at the user's ear."""
    total_s: float
    """From the user's last sample to the first sample of the answer at the user's ear."""


def _sentence(rng: random.Random) -> np.ndarray:
    seconds = rng.uniform(*_SENTENCE_S)
    first_s = rng.uniform(0.0, _RECORDING_S - seconds)
    pcm = recorded_speech(rng.choice(("greeting", "story")), seconds, first_s)
    return np.frombuffer(pcm, "<i2").astype(float)


def _ear_s(watcher: Watcher, sample: int) -> float:
    """Return the time at which a sample of `watcher.heard` came."""
    for came_s, piece in watcher.pieces:
        sample -= len(piece)
        if sample < 0:
            return came_s
    return watcher.pieces[-1][0]


def _turn(
    said: np.ndarray, spoken: Spoken, parrot: Parrot, answer: Answer, watcher: Watcher, packet_s: float
) -> Turn:
    at_parrot = likeness(parrot.heard, said, RATE_HZ)
    in_track = likeness(watcher.heard, said, RATE_HZ)
    heard_answer = likeness(watcher.heard, np.frombuffer(answer.pcm, "<i2").astype(float), RATE_HZ)
    to_grpc = [parrot.arrived_s(there) - spoken.at(here / RATE_HZ) for here, there in at_parrot.starts]
    first, there = heard_answer.starts[0]
    # The answer begins with the silence before the user's first word, which is a part of it.
    begins_s = _ear_s(watcher, there) - first / RATE_HZ
    return Turn(
        likeness=in_track,
        to_grpc_s=statistics.median(to_grpc),
        to_packet_s=packet_s - answer.said_s,
        to_track_s=begins_s - packet_s,
        total_s=begins_s - spoken.at(len(said) / RATE_HZ),
    )


async def _run(setting: Setting) -> Outcome:
    rng = random.Random(setting.seed)
    turns: list[Turn] = []
    with stage() as at:
        async with (
            AsyncClient(at.gateway.address) as client,
            client.open_session(AVATAR, quality="low") as session,
        ):
            upstream_id = session.record.upstream_session_id
            room = session.room
            async with (
                watching(room.url, room.viewer_token, video=False) as watcher,
                speaking(watcher.room) as voice,
                parrot_of(session) as parrot,
            ):
                await watcher.until(lambda seen: len(seen.pieces) > 10)
                await parrot.heard_room()
                for _ in range(6 if setting.long else 2):
                    watcher.pieces.clear()
                    said, count = _sentence(rng), len(parrot.answers)
                    spoken = await voice.say(soxr.resample(said, RATE_HZ, MOUTH_HZ))
                    await parrot.answered(count + 1)
                    await asyncio.sleep(_TAIL_S)
                    recording = await asyncio.to_thread(at.emulator.session, upstream_id)
                    answer = parrot.answers[count]
                    packets = (row["arrived_mono_s"] for row in recording["packets"])
                    packet_s = next(at_s for at_s in packets if at_s > answer.said_s)
                    turns.append(_turn(said, spoken, parrot, answer, watcher, packet_s))
                dropped_s = parrot.dropped_s
            await session.end()
    windows = [one for turn in turns for one in turn.likeness.windows]
    correlation = statistics.median(windows) if windows else 0.0
    envelope = statistics.median(turn.likeness.envelope for turn in turns) if turns else 0.0
    return Outcome(
        figure=f"correlation {correlation:.3f} over {len(windows)} windows, envelope {envelope:.3f}, "
        f"{len(turns)} sentences, {dropped_s:.1f} s dropped",
        passed=bool(turns) and (correlation > MIN_CORRELATION or envelope > MIN_ENVELOPE),
        details=_table(turns),
    )


def _table(turns: list[Turn]) -> tuple[str, ...]:
    parts = {
        "mouth -> gRPC": [turn.to_grpc_s for turn in turns],
        "gRPC -> packet upstream": [turn.to_packet_s for turn in turns],
        "packet -> avatar's track": [turn.to_track_s for turn in turns],
        f"last word -> answer ({END_S:g} s of silence included)": [turn.total_s for turn in turns],
    }
    if not turns:
        return ()
    width = max(map(len, parts))
    return tuple(
        f"{name.ljust(width)}  median {statistics.median(values) * 1000:5.0f} ms  "
        f"worst {max(values) * 1000:5.0f} ms"
        for name, values in parts.items()
    )


ROUND_TRIP: Final = Line(
    name="round trip",
    goal=f"the user hears itself: correlation > {MIN_CORRELATION:g}, or envelope > {MIN_ENVELOPE:g}",
    run=_run,
    measures_time=True,
)
