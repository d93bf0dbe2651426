"""Behaviours of users in an open session: one coroutine function each.

A new kind of user is one function here, one entry in `USER_KINDS`, and one class in `locustfile.py`.
"""

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from load.figures import System
from load.gateway import GatewaySession
from load.scenarios import Range, Style
from load.session import Session, Turn
from load.speech import Voice, at_once, burst, real_time

_SOONEST_CUT_S: Final = 0.6
# A user needs to have heard something to interrupt it.
_REACTION_S: Final = (0.2, 0.6)
# From what was said last to a word that a user is quick to answer with.
_FLOOD_CHUNK_MS: Final = 200


@dataclass(slots=True)
class Call:
    """One arrival: its session, and the dice that decide what it does, the same in every run of a seed."""

    session: Session
    rng: random.Random
    voice: Voice
    style: Style
    name: str
    closing: Callable[[], bool]
    """Whether to come to an end: the run is over."""
    chunk_ms: int = 0
    turns: int = 0

    def __post_init__(self) -> None:
        """Choose what stays the same for the whole call."""
        self.chunk_ms = self.rng.choice(self.style.chunk_ms)

    def between(self, bounds: Range) -> float:
        """Any length within bounds."""
        return self.rng.uniform(*bounds)

    def turn(
        self, seconds: float, *, start_s: float, source: Literal["any", "real time", "burst"] = "any"
    ) -> Turn:
        """Prepare to say something from a moment on."""
        text = self.voice.pick(self.rng, seconds)
        bursts = source == "burst" or (source == "any" and self.rng.random() < self.style.burst_share)
        size_bytes = text.size_bytes
        delivery = burst(size_bytes, self.rng) if bursts else real_time(size_bytes, chunk_ms=self.chunk_ms)
        self.turns += 1
        return Turn(f"{self.name}-{self.turns}", text, delivery, start_s)


async def conversation(call: Call) -> None:
    """Listen, think, speak; sometimes the user interrupts; several turns."""
    session, rng = call.session, call.rng
    for _ in range(rng.randint(*call.style.turns)):
        if call.closing():
            return
        heard_s = time.monotonic()
        told_s = heard_s + call.between(call.style.listen_s)
        turn = call.turn(call.between(call.style.speech_s), start_s=told_s + call.between(call.style.think_s))
        if rng.random() < call.style.interrupt_share and turn.text.seconds > _SOONEST_CUT_S:
            turn.interrupt_s = turn.start_s + rng.uniform(_SOONEST_CUT_S, turn.text.seconds)
        await session.listen(heard_s, told_s)
        await session.speak(turn)
        if turn.interrupt_s is not None:
            await session.interrupt(turn)
        await session.finish(turn)


async def broadcast(call: Call) -> None:
    """One long monologue."""
    turn = call.turn(call.between(call.style.monologue_s), start_s=time.monotonic(), source="real time")
    await call.session.speak(turn)
    await call.session.finish(turn)


async def churn(call: Call) -> None:
    """One word."""
    turn = call.turn(call.between(call.style.word_s), start_s=time.monotonic())
    await call.session.speak(turn)
    await call.session.finish(turn)


async def barge_in(call: Call) -> None:
    """Interrupt nearly everything, in every way, also with more speech waiting behind what is cut."""
    session, rng = call.session, call.rng
    for _ in range(rng.randint(*call.style.turns)):
        if call.closing():
            return
        how = rng.choice(("command", "unnamed", "unary", "cancel"))
        start_s = time.monotonic() + call.between(_REACTION_S)
        source: Literal["real time", "burst"] = "real time" if how == "cancel" else "burst"
        first = call.turn(call.between(call.style.speech_s), start_s=start_s, source=source)
        first.interrupt_s = start_s + rng.uniform(_SOONEST_CUT_S, max(_SOONEST_CUT_S, first.text.seconds))
        await session.speak(first)
        behind = None
        if first.sealed and rng.random() < 0.5:
            behind = call.turn(call.between(call.style.word_s), start_s=time.monotonic(), source="burst")
            behind.queued = True
            await session.speak(behind)
        await _cut(session, first, how)
        await session.finish(first)
        if behind is not None:
            await session.finish(behind)


async def _cut(session: Session, turn: Turn, how: str) -> None:
    if isinstance(session, GatewaySession):
        await session.interrupt(turn, how=how)
    else:
        await session.interrupt(turn)


async def firehose(call: Call) -> None:
    """Speech as fast as the credit allows; what is not heard by the time all of it is written is cut."""
    turn = call.turn(call.between(call.style.flood_s), start_s=time.monotonic(), source="real time")
    turn.delivery = at_once(turn.text.size_bytes, chunk_ms=_FLOOD_CHUNK_MS)
    turn.paced = False
    await call.session.speak(turn)
    turn.interrupt_s = time.monotonic()
    await call.session.interrupt(turn)
    await call.session.finish(turn)


async def talker(call: Call) -> None:
    """Talk without a pause: utterance after utterance on one schedule."""
    start_s = time.monotonic()
    turns = []
    for _ in range(call.rng.randint(*call.style.turns)):
        turn = call.turn(call.between(call.style.speech_s), start_s=start_s, source="real time")
        start_s += turn.text.seconds
        turns.append(turn)
        await call.session.speak(turn)
        if call.closing():
            break
    for turn in turns:
        await call.session.finish(turn)


Behaviour: TypeAlias = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class UserKind:
    """Properties of a class of users."""

    busy_s: Callable[[Style], float]
    """Mean time that one arrival keeps a user busy."""
    direct: bool = False
    """Speak to LiveAvatar itself."""
    attached: bool = True
    """Open the session by `Attach`; else by unary calls."""
    lean: bool = False
    """Send audio over a connection that costs this process little."""

    @property
    def system(self) -> System:
        """System under load."""
        return "direct" if self.direct else "gateway"


def _mean(bounds: Range) -> float:
    return sum(bounds) / 2


def _conversation_s(style: Style) -> float:
    turn_s = _mean(style.listen_s) + _mean(style.think_s) + _mean(style.speech_s) * (1 - style.interrupt_share / 2)
    return 1.0 + _mean(style.turns) * (turn_s + 0.3)


USER_KINDS: Final[Mapping[str, UserKind]] = {
    "Conversation": UserKind(_conversation_s),
    "Direct": UserKind(_conversation_s, direct=True),
    "Broadcast": UserKind(lambda style: 1.0 + _mean(style.monologue_s), attached=False),
    "Churn": UserKind(lambda style: 1.3 + _mean(style.word_s), attached=False),
    "BargeIn": UserKind(lambda style: 1.0 + _mean(style.turns) * (1.0 + _mean(style.speech_s) / 2)),
    "Firehose": UserKind(lambda style: 1.0 + max(1.0, _mean(style.flood_s) - 30.0), attached=False),
    "Talker": UserKind(lambda style: 1.0 + _mean(style.turns) * _mean(style.speech_s), attached=False, lean=True),
}
"""Kinds by the name of their class in `locustfile.py`."""


def expected_s(style: Style) -> dict[str, float]:
    """Return the mean time that one arrival keeps a user of each class busy."""
    return {name: kind.busy_s(style) for name, kind in USER_KINDS.items()}


def weights(mix: Mapping[str, float], style: Style) -> dict[str, float]:
    """Return the share of each class in the sessions under way at once, from its share in the arrivals."""
    busy_s = expected_s(style)
    return {name: share * busy_s[name] for name, share in mix.items()}
