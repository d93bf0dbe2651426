"""One process's part of a run: its arrivals, served one session each, and what was measured of them.

All of it lives on the engine's loop, but for `take` and `for_locust`, which Locust's greenlets call.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from liveavatar.gateway.channel import Connection
from load.arrivals import Arrival
from load.behaviours import USER_KINDS, Behaviour, Call
from load.direct import DirectSession
from load.figures import Recorder
from load.gateway import CONNECTION_OPTIONS, GatewaySession, LeanSession
from load.health import Health
from load.recorder import LoadRecorder, Shown
from load.run_config import RunConfig
from load.scenarios import Style
from load.session import Failure, Session, until
from load.speech import Voice
from load.timeline import Timeline
from load.upstream_check import NotSeen, UpstreamCheck

logger = logging.getLogger(__name__)

DRAIN_S: Final = 20.0
"""How long what was begun may go on after the last arrival; then it is ended."""
END_WITHIN_S: Final = 40.0
"""How long ending what is left may take: above every deadline inside a session's end."""

_FLUSH_S: Final = 0.5


class Worker:
    """Serves a share of a run's arrivals."""

    def __init__(
        self,
        order: RunConfig,
        style: Style,
        arrivals: Sequence[Arrival],
        *,
        zero_mono_s: float,
        timeline: Timeline,
    ) -> None:
        """Prepare to serve.

        Args:
            order: The run.
            style: How callers speak.
            arrivals: This process's share.
            zero_mono_s: When the schedule begins.
            timeline: The run's faults, so that the errors they provoke are told apart.
        """
        self.zero_mono_s = zero_mono_s
        self.meter = LoadRecorder(Recorder(zero_mono_s), timeline.expects)
        self.health = Health()
        self._order = order
        self._style = style
        self._arrivals = arrivals
        self._waiting: dict[str, deque[Arrival]] = {name: deque() for name in USER_KINDS}
        for arrival in arrivals:
            self._waiting[arrival.user].append(arrival)
        self._voice = Voice()
        self._begun: set[int] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._watching: set[asyncio.Task[Any]] = set()
        self._connections: dict[int, Connection] = {}
        self._http: aiohttp.ClientSession | None = None
        self._witness: UpstreamCheck | None = None
        self._closing = False
        self._hurried = asyncio.Event()

    @property
    def closing(self) -> bool:
        """Return whether nothing more is begun."""
        return self._closing

    # --- called by Locust's greenlets

    def take(self, user: str) -> Arrival | None:
        """The next arrival for a user of a class; None when there will be no more."""
        try:
            return None if self._closing else self._waiting[user].popleft()
        except IndexError:
            return None

    def for_locust(self) -> list[Shown]:
        """What its tables have not shown yet."""
        rows = []
        while self.meter.for_locust:
            rows.append(self.meter.for_locust.popleft())
        return rows

    # --- on the loop

    async def begin(self) -> None:
        """Start to watch the loop; before anything is served."""
        if self._order.emulator:
            self._http = aiohttp.ClientSession(
                self._order.emulator,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            self._witness = UpstreamCheck(self._http, self._order.one_clock, self._voice)
        for work in (self.health.watch(), self._flush()):
            self._watching.add(asyncio.create_task(work))

    async def serve(self, arrival: Arrival, user: int, behaviour: Behaviour) -> None:
        """Wait until an arrival is due, then hold its session.

        Args:
            arrival: Class of users and time.
            user: Number of the user; it selects the connection.
            behaviour: Coroutine function that speaks in the session.
        """
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await until(self.zero_mono_s + arrival.due_s)
            if not self._closing:
                self._begun.add(arrival.number)
                await self._call(arrival, user, behaviour)
        finally:
            self._serving.discard(task)

    async def _call(self, arrival: Arrival, user: int, behaviour: Behaviour) -> None:
        due_s, began_s = self.zero_mono_s + arrival.due_s, time.monotonic()
        session = self._session(arrival, user)
        meter, system = self.meter, session.system
        meter.count(system, "arrivals")
        meter.took(system, "deferred", began_s - due_s, at_mono_s=due_s)
        opening = asyncio.ensure_future(session.open())
        try:
            # Half an opening cannot be undone: even when the run is stopped, it is completed and then ended.
            await asyncio.shield(opening)
            now_s = time.monotonic()
            meter.took(system, "session open", now_s - due_s, at_mono_s=now_s)
            meter.took(system, "session open, closed loop", now_s - began_s, at_mono_s=now_s)
            meter.count(system, "sessions")
            await behaviour(self._as_call(arrival, session))
        except Failure as failure:
            logger.warning("%s %s: %s: %s", arrival.user, arrival.number, failure.reason, failure)
            meter.failed(system, failure.reason, took_s=time.monotonic() - began_s)
        finally:
            if not opening.done():
                await asyncio.wait({opening})
            if not opening.cancelled():
                opening.exception()
            await session.end()
            meter.took(system, "session lifetime", time.monotonic() - due_s)
            await self._check(session)

    def _session(self, arrival: Arrival, user: int) -> Session:
        kind = USER_KINDS[arrival.user]
        if kind.direct:
            assert self._http is not None
            return DirectSession(self._http, self._order.api_key, self.meter, self._voice)
        if kind.lean:
            # Its few unary calls share a connection.
            return LeanSession(self._connection(0), self._order.target, self.meter, self._voice)
        return GatewaySession(self._connection(user), self.meter, self._voice, attached=kind.attached)

    def _as_call(self, arrival: Arrival, session: Session) -> Call:
        return Call(
            session=session,
            rng=random.Random(f"{self._order.seed}/{arrival.number}"),
            voice=self._voice,
            style=self._style,
            name=f"u{arrival.number}",
            closing=lambda: self._closing,
        )

    def _connection(self, user: int) -> Connection:
        number = user // max(1, self._order.streams_per_connection)
        if number not in self._connections:
            self._connections[number] = Connection(self._order.target, None, CONNECTION_OPTIONS)
        return self._connections[number]

    async def _check(self, session: Session) -> None:
        if self._witness is None:
            return
        try:
            await self._witness.check(session, self.meter)
        except NotSeen as error:
            logger.warning("integrity of a session could not be checked: %s", error)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            self.meter.flush()

    # --- the end

    async def drain(self, within_s: float) -> dict[str, Any]:
        """Take no more arrivals, let what was begun come to its end, end what has not by then, and report.

        Args:
            within_s: How long it may take by itself; `hurry` makes it shorter.
        """
        self._closing = True
        await self._served_or_hurried(within_s)
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving, timeout=END_WITHIN_S)
        for task in self._serving:
            logger.error("%r did not end", task)
        for task in self._watching:
            task.cancel()
        self.meter.flush()
        self._count_missed()
        for connection in self._connections.values():
            await connection.close()
        if self._http is not None:
            await self._http.close()
        return {"measured": self.meter.recorder.to_json(), **self.health.report()}

    async def hurry(self) -> None:
        """End what was begun now."""
        self._hurried.set()

    async def _served_or_hurried(self, within_s: float) -> None:
        hurried = asyncio.ensure_future(self._hurried.wait())
        deadline_s = time.monotonic() + within_s
        while self._serving and not hurried.done() and (left_s := deadline_s - time.monotonic()) > 0:
            # Those that wait for somebody to come end with the schedule, so this is about calls under way.
            await asyncio.wait({hurried, *self._serving}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()

    def _count_missed(self) -> None:
        elapsed_s = time.monotonic() - self.zero_mono_s
        for arrival in self._arrivals:
            if arrival.due_s <= elapsed_s and arrival.number not in self._begun:
                self.meter.count(USER_KINDS[arrival.user].system, "arrivals missed")
