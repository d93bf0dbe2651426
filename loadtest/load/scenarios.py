"""Named scenarios: classes of users, rates, schedules and speech. Pure.

A new scenario is one entry in `SCENARIOS` and its objectives in `objectives.toml`.
"""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from load.arrivals import Arrival, Curve, even, poisson, schedule
from load.curves import CURVES, RANDOM
from load.figures import WINDOW_S
from load.run_config import InvalidRunConfig, RunConfig

Range = tuple[float, float]
"""Shortest and longest, seconds; a caller takes any length between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Speech of a scenario's callers."""

    turns: tuple[int, int] = (2, 4)
    """Fewest and most turns of a conversation."""
    listen_s: Range = (0.5, 2.0)
    """Time in which the avatar listens to its user."""
    think_s: Range = (0.2, 1.0)
    """From the end of listening to the first chunk of the answer."""
    speech_s: Range = (2.0, 12.0)
    """Length of an utterance."""
    interrupt_share: float = 0.2
    """Share of a conversation's utterances that the user interrupts."""
    burst_share: float = 0.5
    """Share of utterances that come as from a synthesizer; the others come in real time."""
    chunk_ms: tuple[int, ...] = (20, 100)
    """Chunk sizes of real-time sources; each caller has one of them."""
    monologue_s: Range = (30.0, 60.0)
    """Length of a broadcast."""
    word_s: Range = (0.3, 0.6)
    """Length of the one word that `Churn` says."""
    flood_s: Range = (40.0, 60.0)
    """Length of the speech of `Firehose`."""

    def with_chunks(self, chunk_ms: int) -> "Style":
        """Return the style with one chunk size for all, in real time; 0 changes nothing."""
        return replace(self, chunk_ms=(chunk_ms,), burst_share=0.0) if chunk_ms else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Named load of a gateway."""

    meaning: str
    """For lists and reports."""
    shape: str
    """Name of one of `CURVES`: the rate over time."""
    rate: float
    """Arrivals per second, all classes together, where the shape is highest."""
    seconds: float
    """Length of the arrivals."""
    mix: Mapping[str, float]
    """Share of each class of users in the arrivals, in any unit."""
    neighbour: bool = False
    """True if another tenant floods the gateway in every other window of the run, from a process of its own."""
    slots: int = 0
    """Concurrent sessions of the account, so that callers wait for permits; 0 for more than a run needs."""
    ready_ms: int = 50
    """Time in which the emulator gets an avatar ready."""
    warm: int = 0
    """Most sessions that `--warm` keeps warm, as callers come; 0 for a scenario that has no use for them."""
    users: int
    """Most sessions in flight. An arrival that finds all users busy begins late, and is counted as deferred."""
    style: Style = field(default_factory=Style)

    def curve(self) -> Curve:
        """Return the rate over time."""
        return CURVES[self.shape](self.rate, self.seconds)

    def windows(self) -> list[tuple[float, float]]:
        """Return the windows of the neighbour's flood: begin and end, seconds after the schedule's zero.

        The run has about `_WINDOWS` windows of whole steps of the histograms, the first without a neighbour.
        """
        if not self.neighbour:
            return []
        length_s = WINDOW_S * max(1, round(self.seconds / _WINDOWS / WINDOW_S))
        count = int(self.seconds // length_s)
        return [(float(number * length_s), float((number + 1) * length_s)) for number in range(1, count, 2)]

    def arrivals(self, seed: int) -> list[Arrival]:
        """Return the whole run's schedule, the same for the same seed."""
        curve = self.curve()
        moments = poisson(curve, random.Random(f"arrivals/{seed}")) if self.shape in RANDOM else even(curve)
        return schedule(moments, self.mix)


_WINDOWS: Final = 12
"""Windows of a run with a neighbour, as near as steps of the histograms allow."""
_TALKERS: Final = {"Conversation": 6, "Direct": 1}
EVERYBODY: Final = {"Conversation": 8, "BargeIn": 2, "Churn": 3, "Broadcast": 1, "Firehose": 1, "Direct": 3}
_SHORT: Final = Style(turns=(2, 3), speech_s=(2.0, 8.0), monologue_s=(15.0, 25.0), flood_s=(34.0, 40.0))

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "ci": Scenario(
        meaning="everybody, for two minutes, at a rate that a shared build machine bears",
        shape="poisson",
        rate=0.9,
        seconds=120.0,
        mix=EVERYBODY,
        users=60,
        style=_SHORT,
    ),
    "smoke": Scenario(
        meaning="a few seconds of short talks: a first look, and what the suite's own tests run",
        shape="constant",
        rate=4.0,
        seconds=10.0,
        mix={"Conversation": 4, "BargeIn": 4, "Churn": 4, "Direct": 4},
        users=60,
        style=Style(
            turns=(1, 1),
            listen_s=(0.1, 0.2),
            think_s=(0.1, 0.2),
            speech_s=(1.0, 2.0),
            interrupt_share=0.3,
            chunk_ms=(100,),
        ),
    ),
    "conversation": Scenario(
        meaning="conversations and their direct baseline, at a constant rate",
        shape="constant",
        rate=1.5,
        seconds=120.0,
        mix=_TALKERS,
        users=100,
    ),
    "poisson": Scenario(
        meaning="conversations of people who do not know of each other",
        shape="poisson",
        rate=1.5,
        seconds=120.0,
        mix=_TALKERS,
        users=100,
    ),
    "ramp": Scenario(
        meaning="conversations that become ever more",
        shape="ramp",
        rate=3.0,
        seconds=180.0,
        mix=_TALKERS,
        users=150,
    ),
    "step": Scenario(
        meaning="conversations in four steps",
        shape="step",
        rate=3.0,
        seconds=240.0,
        mix=_TALKERS,
        users=150,
    ),
    "spike": Scenario(
        meaning="a calm day and a rush in the middle of it",
        shape="spike",
        rate=4.0,
        seconds=180.0,
        mix=_TALKERS,
        users=200,
    ),
    "soak": Scenario(
        meaning="everybody, for ten minutes: what leaks shows as a slope",
        shape="soak",
        rate=1.5,
        seconds=600.0,
        mix=EVERYBODY,
        users=240,
    ),
    "broadcast": Scenario(
        meaning="long monologues",
        shape="constant",
        rate=0.5,
        seconds=180.0,
        mix={"Broadcast": 4, "Direct": 1},
        users=60,
    ),
    "barge-in": Scenario(
        meaning="users who interrupt all the time, in every way there is",
        shape="constant",
        rate=1.0,
        seconds=120.0,
        mix={"BargeIn": 4, "Direct": 1},
        users=80,
        style=Style(interrupt_share=0.8),
    ),
    "churn": Scenario(
        meaning="sessions that open, say one word and end",
        shape="poisson",
        rate=5.0,
        seconds=60.0,
        mix={"Churn": 9, "Direct": 1},
        users=100,
        style=Style(
            turns=(1, 1), speech_s=(0.5, 1.0), listen_s=(0.1, 0.2), think_s=(0.1, 0.2), interrupt_share=0.0
        ),
    ),
    "firehose": Scenario(
        meaning="speech as fast as the credit allows",
        shape="constant",
        rate=0.5,
        seconds=120.0,
        mix={"Firehose": 4, "Direct": 1},
        users=60,
    ),
    "two-tenants": Scenario(
        meaning="two tenants on one gateway, one of them at ten times its quotas in every other window of the run",
        shape="constant",
        rate=4.0,
        seconds=120.0,
        mix={"Quiet": 1},
        neighbour=True,
        users=60,
        style=Style(turns=(4, 4), think_s=(0.0, 0.2), speech_s=(0.5, 0.8), burst_share=0.0, chunk_ms=(100,)),
    ),
    "arrivals": Scenario(
        meaning="the callers of a morning, on an account that is full at its height; `--warm` keeps sessions warm",
        shape="morning",
        rate=1.0,
        seconds=300.0,
        mix={"Conversation": 1},
        slots=12,
        ready_ms=2500,
        warm=5,
        users=120,
        style=Style(turns=(1, 2), listen_s=(0.3, 1.0), speech_s=(2.0, 5.0), interrupt_share=0.1),
    ),
    "talk": Scenario(
        meaning="real-time talkers only, for measuring capacity: rate and chunk size are turned from outside",
        shape="constant",
        rate=1.0,
        seconds=60.0,
        mix={"Talker": 19, "Direct": 1},
        users=400,
        style=Style(
            turns=(3, 3),
            listen_s=(0.0, 0.0),
            think_s=(0.0, 0.0),
            speech_s=(10.0, 10.0),
            interrupt_share=0.0,
            burst_share=0.0,
            chunk_ms=(20,),
        ),
    ),
}
"""By name."""


def scenario_of(config: RunConfig, expected_s: Callable[[Style], Mapping[str, float]]) -> Scenario:
    """Return the scenario of a configuration, with the changes that it asks for.

    Args:
        config: Configuration of the run.
        expected_s: Returns the mean time that one arrival keeps a user of each class busy, for a style.

    Raises:
        InvalidRunConfig: the scenario does not exist, a number is negative, or no class of users is left.
    """
    scenario = SCENARIOS.get(config.scenario)
    if scenario is None:
        raise InvalidRunConfig(
            f"LOAD_SCENARIO is {config.scenario!r}; it must be one of {', '.join(sorted(SCENARIOS))}"
        )
    if scenario.neighbour and len(list(filter(None, config.key_files.split(os.pathsep)))) < 2:
        raise InvalidRunConfig(f"LOAD_KEY_FILES must name the keys of two tenants for {config.scenario!r}")
    for name in ("users", "seconds", "rate", "chunk_ms"):
        if getattr(config, name) < 0:
            raise InvalidRunConfig(f"LOAD_{name.upper()} is {getattr(config, name)}; it must not be negative")
    style = scenario.style.with_chunks(config.chunk_ms)
    mix = {user: share for user, share in scenario.mix.items() if config.emulator or user != "Direct"}
    if not mix:
        raise InvalidRunConfig(f"LOAD_EMULATOR is empty, but scenario {config.scenario!r} only speaks to it")
    users = config.users or scenario.users
    rate = config.rate or (_rate_for(users, mix, expected_s(style)) if config.users else scenario.rate)
    return replace(
        scenario, mix=mix, users=users, rate=rate, seconds=config.seconds or scenario.seconds, style=style
    )


_BUSY: Final = 0.8
"""Share of busy users when their number is given and no rate: enough slack that a random rush defers few."""


def _rate_for(users: int, mix: Mapping[str, float], expected_s: Mapping[str, float]) -> float:
    """Return the rate of arrivals that keeps a number of users busy, by Little's law."""
    mean_s = sum(share * expected_s[user] for user, share in mix.items()) / sum(mix.values())
    return _BUSY * users / mean_s
