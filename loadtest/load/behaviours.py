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
from load.session import Session, Utterance
from load.speech import Voice, at_once, burst, real_time
from stage.tenants import QUIET, QUOTAS

_SOONEST_CUT_S: Final = 0.6
# Users interrupt only speech that they have heard.
_REACTION_S: Final = (0.2, 0.6)
# Pause between two utterances of a user who interrupts.
_FLOOD_CHUNK_MS: Final = 200


@dataclass(slots=True)
class Call:
    """Arrival with its session and the random numbers of its behaviour, the same in every run of a seed."""

    session: Session
    rng: random.Random
    voice: Voice
    style: Style
    name: str
    closing: Callable[[], bool]
    """Return whether the run is over, so that the arrival should end."""
    chunk_ms: int = 0
    utterances: int = 0

    def __post_init__(self) -> None:
        """Choose the chunk size of the whole session."""
        self.chunk_ms = self.rng.choice(self.style.chunk_ms)

    def between(self, bounds: Range) -> float:
        """Return a random length within bounds."""
        return self.rng.uniform(*bounds)

    def utterance(
        self, seconds: float, *, start_s: float, source: Literal["any", "real time", "burst"] = "any"
    ) -> Utterance:
        """Prepare an utterance that starts at a time."""
        text = self.voice.pick(self.rng, seconds)
        bursts = source == "burst" or (source == "any" and self.rng.random() < self.style.burst_share)
        size_bytes = text.size_bytes
        delivery = burst(size_bytes, self.rng) if bursts else real_time(size_bytes, chunk_ms=self.chunk_ms)
        self.utterances += 1
        return Utterance(f"{self.name}-{self.utterances}", text, delivery, start_s)


async def conversation(call: Call) -> None:
    """Listen, think and speak for several turns; sometimes the user interrupts."""
    session, rng = call.session, call.rng
    for _ in range(rng.randint(*call.style.turns)):
        if call.closing():
            return
        listen_from_s = time.monotonic()
        listen_until_s = listen_from_s + call.between(call.style.listen_s)
        utterance = call.utterance(
            call.between(call.style.speech_s), start_s=listen_until_s + call.between(call.style.think_s)
        )
        if rng.random() < call.style.interrupt_share and utterance.text.seconds > _SOONEST_CUT_S:
            utterance.interrupt_s = utterance.start_s + rng.uniform(_SOONEST_CUT_S, utterance.text.seconds)
        await session.listen(listen_from_s, listen_until_s)
        await session.speak(utterance)
        if utterance.interrupt_s is not None:
            await session.interrupt(utterance)
        await session.finish(utterance)


async def broadcast(call: Call) -> None:
    """Speak one long utterance."""
    utterance = call.utterance(call.between(call.style.monologue_s), start_s=time.monotonic(), source="real time")
    await call.session.speak(utterance)
    await call.session.finish(utterance)


async def churn(call: Call) -> None:
    """Speak one short utterance."""
    utterance = call.utterance(call.between(call.style.word_s), start_s=time.monotonic())
    await call.session.speak(utterance)
    await call.session.finish(utterance)


async def barge_in(call: Call) -> None:
    """Interrupt nearly every utterance, in each way that the contract has, also with another one queued behind."""
    session, rng = call.session, call.rng
    for _ in range(rng.randint(*call.style.turns)):
        if call.closing():
            return
        how = rng.choice(("command", "unnamed", "unary", "cancel"))
        start_s = time.monotonic() + call.between(_REACTION_S)
        source: Literal["real time", "burst"] = "real time" if how == "cancel" else "burst"
        first = call.utterance(call.between(call.style.speech_s), start_s=start_s, source=source)
        first.interrupt_s = start_s + rng.uniform(_SOONEST_CUT_S, max(_SOONEST_CUT_S, first.text.seconds))
        await session.speak(first)
        behind = None
        if first.sealed and rng.random() < 0.5:
            behind = call.utterance(call.between(call.style.word_s), start_s=time.monotonic(), source="burst")
            behind.queued = True
            await session.speak(behind)
        await _cut(session, first, how)
        await session.finish(first)
        if behind is not None:
            await session.finish(behind)


async def _cut(session: Session, utterance: Utterance, how: str) -> None:
    if isinstance(session, GatewaySession):
        await session.interrupt(utterance, how=how)
    else:
        await session.interrupt(utterance)


async def firehose(call: Call) -> None:
    """Send speech as fast as the credit allows, and interrupt the rest once all of it is written."""
    utterance = call.utterance(call.between(call.style.flood_s), start_s=time.monotonic(), source="real time")
    utterance.delivery = at_once(utterance.text.size_bytes, chunk_ms=_FLOOD_CHUNK_MS)
    utterance.paced = False
    await call.session.speak(utterance)
    utterance.interrupt_s = time.monotonic()
    await call.session.interrupt(utterance)
    await call.session.finish(utterance)


async def talker(call: Call) -> None:
    """Talk without a pause: utterance after utterance on one schedule."""
    start_s = time.monotonic()
    utterances = []
    for _ in range(call.rng.randint(*call.style.turns)):
        utterance = call.utterance(call.between(call.style.speech_s), start_s=start_s, source="real time")
        start_s += utterance.text.seconds
        utterances.append(utterance)
        await call.session.speak(utterance)
        if call.closing():
            break
    for utterance in utterances:
        await call.session.finish(utterance)


async def quiet(call: Call) -> None:
    """Speak utterance after utterance, and look the session up during each: a tenant far below its quotas.

    An utterance is written at once, so that its time to the first sound has nothing but the path in it.
    """
    session = call.session
    assert isinstance(session, GatewaySession)
    for _ in range(call.rng.randint(*call.style.turns)):
        if call.closing():
            return
        start_s = time.monotonic() + call.between(call.style.think_s)
        utterance = call.utterance(call.between(call.style.speech_s), start_s=start_s, source="real time")
        utterance.delivery = at_once(utterance.text.size_bytes, chunk_ms=call.chunk_ms)
        await session.speak(utterance)
        await session.look_up()
        await session.finish(utterance)


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
    key: int | None = None
    """Index of the credential that every user of the class shows; None to spread users over all of them."""

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
    "Quiet": UserKind(
        lambda style: 0.5 + _mean(style.turns) * (0.3 + _mean(style.think_s) + _mean(style.speech_s)),
        key=list(QUOTAS).index(QUIET),
    ),
}
"""Kinds by the name of their class in `locustfile.py`."""


def expected_s(style: Style) -> dict[str, float]:
    """Return the mean time that one arrival keeps a user of each class busy."""
    return {name: kind.busy_s(style) for name, kind in USER_KINDS.items()}


def weights(mix: Mapping[str, float], style: Style) -> dict[str, float]:
    """Return the share of each class in the sessions under way at once, from its share in the arrivals."""
    busy_s = expected_s(style)
    return {name: share * busy_s[name] for name, share in mix.items()}
