"""Schedule of faults: the same seed gives the same faults, and five seeds in a row have every kind."""

import random
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 5
"""So many consecutive seeds have every kind at least once."""

KINDS: Final = (
    "socket closed",
    "socket reset",
    "gateway killed and restarted",
    "LiveAvatar reads nothing",
    "caller's connections reset",
    "acks swallowed",
    "acks delayed",
    "gateway killed, another takes over",
    "sockets refused",
    "caller's connections slow and sliced",
    "start fails",
    "gateway frozen",
    "LiveAvatar's answers malformed",
    "LiveAvatar slow to read",
    "gateway drained and restarted",
    "LiveAvatar restarted, keeping its sessions",
    "LiveAvatar's connections reset",
    "stop fails",
    "events shuffled and late",
    "caller's network down",
    "start's answer lost",
    "LiveAvatar's connections slow",
    "LiveAvatar's network down",
    "LiveAvatar hangs",
    "session ended by LiveAvatar",
    "gateway's wall clock jumps",
    "acks stop for good",
    "gateway suspended for long",
    "place comes free late",
    "gateway's log cannot be written",
    "HTML from a proxy",
    "registry locked by another program",
    "gateway drained during a start",
)
"""Neighbours go to different seeds, so heavy ones are spread out."""

PROFILES: Final = ("modern", "classic", "acks_only")

NEED_A_START: Final = frozenset(
    {
        "start fails",
        "start's answer lost",
        "LiveAvatar's answers malformed",
        "LiveAvatar hangs",
        "place comes free late",
        "HTML from a proxy",
        "gateway drained during a start",
    }
)
"""These hit nobody when no session is opened after them, so they come first."""

NEW_PROCESS: Final = frozenset(
    {
        "gateway killed and restarted",
        "gateway killed, another takes over",
        "gateway drained and restarted",
        "gateway drained during a start",
    }
)
"""Only after these may events be missing: who is asked for the sessions then has none of those before."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault at a time."""

    at_s: float
    """Seconds after the first conversation began."""
    kind: str
    chance: int
    """Seed of the fault's own choices."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Faults of the run of one seed."""

    seed: int
    profile: str
    faults: tuple[Fault, ...]

    @property
    def misses_allowed(self) -> bool:
        """Permission to lose events, as after the death of a gateway."""
        return any(fault.kind in NEW_PROCESS for fault in self.faults)


def plan(seed: int, seconds: float) -> Plan:
    """Spread the seed's share of `KINDS`, and as many light ones more, over the first three quarters of a run.

    Args:
        seed: From 0.
        seconds: How long conversations are begun.
    """
    rng = random.Random(f"chaos {seed}")
    kinds = [kind for number, kind in enumerate(KINDS) if number % WINDOW == seed % WINDOW]
    kinds += rng.sample(["socket closed", "socket reset", "caller's connections reset"], 2)
    rng.shuffle(kinds)
    kinds.sort(key=lambda kind: kind not in NEED_A_START)
    step_s = seconds * 0.75 / len(kinds)
    return Plan(
        seed,
        PROFILES[seed % len(PROFILES)],
        tuple(
            Fault(round(1.5 + number * step_s + rng.uniform(0, step_s / 2), 2), kind, rng.getrandbits(32))
            for number, kind in enumerate(kinds)
        ),
    )
