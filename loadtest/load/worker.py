"""Share of a run that one process serves: its arrivals, one session each, and their measurements.

All of it runs on the engine's loop, except `take` and `for_locust`, which Locust's greenlets call.
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
from load.keys import CallerKeys
from load.recorder import LoadRecorder, Shown
from load.run_config import RunConfig
from load.scenarios import Style
from load.session import Failure, Session, until
from load.speech import Voice
from load.timeline import Timeline
from load.upstream_check import NotRecorded, UpstreamCheck

logger = logging.getLogger(__name__)

DRAIN_S: Final = 20.0
"""Longest time that sessions may go on after the last arrival; then they are ended."""
END_WITHIN_S: Final = 40.0
"""Longest time for ending the remaining sessions: above every deadline inside a session's end."""

_FLUSH_S: Final = 0.5


class Worker:
    """Server of one process's share of a run's arrivals."""

    def __init__(
        self,
        config: RunConfig,
        style: Style,
        arrivals: Sequence[Arrival],
        *,
        zero_mono_s: float,
        timeline: Timeline,
    ) -> None:
        """Prepare to serve.

        Args:
            config: Configuration of the run.
            style: Speech of the callers.
            arrivals: This process's share.
            zero_mono_s: Time at which the schedule begins.
            timeline: The run's faults, so that the errors that they provoke are counted apart.
        """
        self.zero_mono_s = zero_mono_s
        self.recorder = LoadRecorder(Recorder(zero_mono_s), timeline.expects)
        self.health = Health()
        self._config = config
        self._style = style
        self._arrivals = arrivals
        self._waiting: dict[str, deque[Arrival]] = {name: deque() for name in USER_KINDS}
        for arrival in arrivals:
            self._waiting[arrival.user].append(arrival)
        self._voice = Voice()
        self._keys = CallerKeys.read(config.key_files)
        self._tenants: dict[str, str] = {}
        """Names of tenants by the labels of their keys, as sessions tell them."""
        self._begun: set[int] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._watching: set[asyncio.Task[Any]] = set()
        self._connections: dict[int, Connection] = {}
        self._http: aiohttp.ClientSession | None = None
        self._upstream_check: UpstreamCheck | None = None
        self._closing = False
        self._hurried = asyncio.Event()

    @property
    def closing(self) -> bool:
        """True once no more sessions are begun."""
        return self._closing

    def take(self, user: str) -> Arrival | None:
        """Return the next arrival of a class of users; None after the last one."""
        try:
            return None if self._closing else self._waiting[user].popleft()
        except IndexError:
            return None

    def for_locust(self) -> list[Shown]:
        """Return the rows that Locust's tables have not shown yet."""
        rows = []
        while self.recorder.for_locust:
            rows.append(self.recorder.for_locust.popleft())
        return rows

    async def begin(self) -> None:
        """Start to watch the loop. Call it before `serve`."""
        if self._config.emulator:
            self._http = aiohttp.ClientSession(
                self._config.emulator,
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            token = self._config.control_token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            self._upstream_check = UpstreamCheck(self._http, self._config.one_clock, self._voice, headers)
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
        recorder, system = session.recorder, session.system
        recorder.count(system, "arrivals")
        recorder.record(system, "deferred", began_s - due_s, at_mono_s=due_s)
        opening = asyncio.ensure_future(session.open())
        try:
            # Half an opening cannot be undone: it is completed and then ended, even when the run is stopped.
            await asyncio.shield(opening)
            now_s = time.monotonic()
            recorder.record(system, "session open", now_s - due_s, at_mono_s=now_s)
            recorder.record(system, "session open, closed loop", now_s - began_s, at_mono_s=now_s)
            recorder.count(system, "sessions")
            self._note_tenant(arrival, user, session)
            await behaviour(self._as_call(arrival, session))
        except Failure as failure:
            logger.warning("%s %s: %s: %s", arrival.user, arrival.number, failure.reason, failure)
            recorder.failed(system, failure.reason, took_s=time.monotonic() - began_s)
        finally:
            if not opening.done():
                await asyncio.wait({opening})
            if not opening.cancelled():
                opening.exception()
            await session.end()
            recorder.record(system, "session lifetime", time.monotonic() - due_s)
            await self._check(session)

    def _key_number(self, arrival: Arrival, user: int) -> int:
        key = USER_KINDS[arrival.user].key
        return user if key is None else key

    def _note_tenant(self, arrival: Arrival, user: int, session: Session) -> None:
        label = self._keys.label_of(self._key_number(arrival, user))
        if label is not None and isinstance(session, GatewaySession) and session.tenant:
            self._tenants[label] = session.tenant

    def _session(self, arrival: Arrival, user: int) -> Session:
        kind = USER_KINDS[arrival.user]
        if kind.direct:
            assert self._http is not None
            return DirectSession(self._http, self._config.api_key, self.recorder, self._voice)
        number = self._key_number(arrival, user)
        label = self._keys.label_of(number)
        recorder = self.recorder if label is None else self.recorder.of_tenant(label)
        if kind.lean:
            # The few unary calls of lean sessions share a connection.
            lean = LeanSession(self._connection(0), self._config.target, recorder, self._voice)
            lean.metadata = self._keys.of(number)
            return lean
        session = GatewaySession(self._connection(user), recorder, self._voice, attached=kind.attached)
        session.metadata = self._keys.of(number)
        return session

    def _as_call(self, arrival: Arrival, session: Session) -> Call:
        return Call(
            session=session,
            rng=random.Random(f"{self._config.seed}/{arrival.number}"),
            voice=self._voice,
            style=self._style,
            name=f"u{arrival.number}",
            closing=lambda: self._closing,
        )

    def _connection(self, user: int) -> Connection:
        number = user // max(1, self._config.streams_per_connection)
        if number not in self._connections:
            self._connections[number] = Connection(self._config.target, None, CONNECTION_OPTIONS)
        return self._connections[number]

    async def _check(self, session: Session) -> None:
        if self._upstream_check is None:
            return
        try:
            await self._upstream_check.check(session, session.recorder)
        except NotRecorded as error:
            logger.warning("integrity of a session could not be checked: %s", error)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            self.recorder.flush()

    async def drain(self, within_s: float) -> dict[str, Any]:
        """Take no more arrivals, let sessions end by themselves, end the remaining ones, and return the report.

        Args:
            within_s: Longest wait for sessions to end by themselves; `hurry` makes it shorter.
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
        self.recorder.flush()
        self._count_missed()
        self.recorder.measured.rename_tenants(self._tenants)
        for connection in self._connections.values():
            await connection.close()
        if self._http is not None:
            await self._http.close()
        return {"measured": self.recorder.measured.to_json(), **self.health.report()}

    async def hurry(self) -> None:
        """End all sessions now."""
        self._hurried.set()

    async def _served_or_hurried(self, within_s: float) -> None:
        hurried = asyncio.ensure_future(self._hurried.wait())
        deadline_s = time.monotonic() + within_s
        while self._serving and not hurried.done() and (left_s := deadline_s - time.monotonic()) > 0:
            # Tasks that wait for an arrival end with the schedule, so only sessions under way are left.
            await asyncio.wait({hurried, *self._serving}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()

    def _count_missed(self) -> None:
        elapsed_s = time.monotonic() - self.zero_mono_s
        for arrival in self._arrivals:
            if arrival.due_s <= elapsed_s and arrival.number not in self._begun:
                self.recorder.count(USER_KINDS[arrival.user].system, "arrivals missed")
