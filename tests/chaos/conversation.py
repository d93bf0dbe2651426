"""Callers: they talk through the Python client while everything breaks, and write down what they are told."""

import asyncio
import contextlib
import random
from collections.abc import Callable

from chaos.history import Said, Talk

from liveavatar.gateway import (
    AsyncClient,
    AsyncSession,
    AsyncUtterance,
    GatewayError,
    GoAwayCancelledEvent,
    GoAwayEvent,
    ResumedEvent,
    SessionEndedEvent,
    SessionEvent,
)
from testkit.caller import AVATAR
from testkit.continuity import noise

PATIENCE_S = 60.0
"""Longer than every deadline of client and gateway: who waits for longer waits in vain."""
LONGEST_PAUSE_S = 3.0


class Caller:
    """Caller that holds session after session until the time is over."""

    def __init__(self, number: int, seed: int, client: AsyncClient, talks: list[Talk]) -> None:
        self._number = number
        self._rng = random.Random(f"caller {seed} {number}")
        self._client = client
        self._talks = talks
        self._count = 0

    async def talk_until(self, is_over: Callable[[], bool]) -> None:
        """Hold sessions until `is_over` says so; the last one is finished."""
        await asyncio.sleep(self._rng.uniform(0, 1))
        while not is_over():
            talk = Talk(self._number)
            self._talks.append(talk)
            await self._session(talk, is_over)
            await asyncio.sleep(self._rng.uniform(0.1, 0.5))

    async def _session(self, talk: Talk, is_over: Callable[[], bool]) -> None:
        session = self._client.open_session(AVATAR, timeout=30)
        watching: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                await session.open()
            talk.session_id, talk.upstream_id = session.id, session.record.upstream_session_id
            watching = asyncio.create_task(_watch(session, talk))
            for _ in range(self._rng.randint(2, 5)):
                if is_over() or talk.error:
                    break
                await self._turn(session, talk)
        except GatewayError as error:
            talk.error = f"{type(error).__name__}: {error}"
        except TimeoutError:
            talk.hung = talk.hung or "a session"
        await self._leave(session, talk, watching)

    async def _turn(self, session: AsyncSession, talk: Talk) -> None:
        """Say something, sometimes two things at once, and sometimes be interrupted or pause."""
        said = [self._next(talk) for _ in range(self._rng.choice([1, 1, 2]))]
        spoken = [self._say(session, talk, one) for one in said]
        kind = self._rng.choices(["interrupt", "pause", "nothing"], [30, 20, 50])[0]
        if kind != "nothing":
            await asyncio.sleep(self._rng.uniform(0.1, 1.5))
            await (self._interrupt if kind == "interrupt" else self._pause)(session, talk)
        for one, utterance in zip(said, spoken, strict=True):
            if utterance is None:
                continue
            try:
                async with asyncio.timeout(PATIENCE_S):
                    outcome = await utterance
            except TimeoutError:
                talk.hung = f"the end of utterance {one.utterance_id}"
                raise
            except GatewayError as error:
                one.outcome, one.error = "lost", f"{type(error).__name__}: {error}"
            else:
                one.outcome, one.error = str(outcome.kind), str(outcome.error or "")

    def _say(self, session: AsyncSession, talk: Talk, one: Said) -> AsyncUtterance | None:
        try:
            return session.say(one.pcm, utterance_id=one.utterance_id)
        except GatewayError as error:
            one.outcome = "refused"
            talk.error = talk.error or f"say: {type(error).__name__}: {error}"
            return None

    async def _interrupt(self, session: AsyncSession, talk: Talk) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await session.interrupt()
        except TimeoutError:
            talk.hung = "the answer to an interrupt"
            raise
        except GatewayError as error:
            talk.error = talk.error or f"interrupt: {type(error).__name__}: {error}"

    async def _pause(self, session: AsyncSession, talk: Talk) -> None:
        talk.pauses += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                # With a limit: a caller whose next command fails has not silenced its session for good.
                await session.pause(limit=LONGEST_PAUSE_S)
                await asyncio.sleep(self._rng.uniform(0.1, 1.5))
                await session.continue_speech()
        except TimeoutError:
            talk.hung = "the answer to a pause"
            raise
        except GatewayError as error:
            talk.error = talk.error or f"pause: {type(error).__name__}: {error}"

    def _next(self, talk: Talk) -> Said:
        self._count += 1
        seconds = self._rng.uniform(0.3, 2.5)
        one = Said(f"{self._number}-{self._count}", noise(seconds, seed=self._rng.getrandbits(32)))
        talk.said.append(one)
        return one

    async def _leave(self, session: AsyncSession, talk: Talk, watching: asyncio.Task[None] | None) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if talk.session_id:
                    with contextlib.suppress(GatewayError):
                        talk.answered_end = str((await session.end()).end_reason)
                if watching is not None:
                    await watching
        except TimeoutError:
            talk.hung = talk.hung or "the end of a session"
        finally:
            if watching is not None:
                watching.cancel()


async def _watch(session: AsyncSession, talk: Talk) -> None:
    try:
        async for event in session.events():
            if isinstance(event, ResumedEvent):
                talk.resumed += 1
                talk.missed += event.missed_events
                talk.sequences += range(event.sequence + 1, event.sequence + 1 + event.missed_events)
            if isinstance(event, GoAwayEvent | GoAwayCancelledEvent | ResumedEvent):
                continue  # not numbered
            if isinstance(event, SessionEvent):
                talk.sequences.append(event.sequence)
            if isinstance(event, SessionEndedEvent):
                talk.ends.append(str(event.record.end_reason))
    except GatewayError as error:
        talk.events_error = f"{type(error).__name__}: {error}"


async def look_up(client: AsyncClient, talks: list[Talk]) -> None:
    """Ask for the final record of every session."""
    for talk in talks:
        if talk.session_id:
            with contextlib.suppress(GatewayError):
                talk.record_end = str((await client.get_session(talk.session_id)).end_reason)
