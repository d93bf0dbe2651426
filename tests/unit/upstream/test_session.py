"""A started session: its stop, its permit, and the reason for which it ended."""

import asyncio
import contextlib

import pytest

from liveavatar_gateway.pool.book import PermitState
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import Memory, MemoryRegistry
from liveavatar_gateway.upstream.model import RemoteStatus, Started
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig
from liveavatar_gateway.upstream.session import STOP_REASON, UpstreamSession
from liveavatar_gateway.upstream.stopper import Stopped


class Account:
    """Account whose stops have a given result; counts them."""

    def __init__(self, stopped: Stopped, reason: str) -> None:
        self.stop_count = 0
        self.session_ids = {"s-1"}
        self.over = True
        self.stopper = self
        self._stopped = stopped
        self._reason = reason

    async def stop(self, session_id: str, reason: str) -> Stopped:
        assert (session_id, reason) == ("s-1", STOP_REASON)
        self.stop_count += 1
        return self._stopped

    async def remote_status(self, _: str) -> RemoteStatus:
        return RemoteStatus(over=self.over, reason=self._reason)

    def remove_session(self, session_id: str) -> None:
        self.session_ids.discard(session_id)


class Host:
    """Pool of one session."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.socket = Socket()

    async def open_socket(self, *_: object) -> "Socket":
        return self.socket

    def run(self, work, *, name: str) -> asyncio.Task:
        return asyncio.create_task(work, name=name)


class Socket:
    closed = False

    async def close(self) -> None:
        self.closed = True


class Journal:
    def __init__(self) -> None:
        self.stopped_ids: list[str] = []

    async def stopped(self, session_id: str) -> None:
        self.stopped_ids.append(session_id)


async def make(stopped: Stopped = Stopped.NOW, reason: str = ""):
    registry = MemoryRegistry(LeaseConfig(), memory=Memory())
    permits = Permits(PermitsConfig(settle_s=0), registry)
    host, journal = Host(Account(stopped, reason)), Journal()
    started = Started(session_id="s-1", ws_url="wss://x", room_url="", viewer_token="", max_duration_s=None)
    session = UpstreamSession(host, host.account, await permits.acquire(), started, journal)
    await session.connect(lambda _: None)
    return session, host, permits, journal


async def test_closing_stops_the_session_once_and_returns_its_permit():
    session, host, permits, journal = await make()
    assert await asyncio.gather(session.close(), session.close()) == ["", ""]
    assert host.account.stop_count == 1
    assert host.socket.closed
    assert (host.account.session_ids, journal.stopped_ids, permits.used) == (set(), ["s-1"], 0)


async def test_a_cancelled_caller_does_not_cancel_the_stop():
    session, host, permits, _ = await make()
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await session.close()
    assert (host.account.stop_count, permits.used) == (1, 0)


@pytest.mark.parametrize("fault", [asyncio.CancelledError, RuntimeError], ids=["end of the process", "bug"])
async def test_the_permit_of_a_session_whose_stop_nobody_confirmed_stays_in_use(fault):
    session, host, permits, journal = await make()
    row = await add_upstream(permits, session)

    async def fail(*_: object) -> Stopped:
        raise fault

    host.account.stop = fail
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await session.close()
    await permits.refresh()
    assert permits.book.permits[row].state is PermitState.SUSPECT
    assert journal.stopped_ids == []


async def add_upstream(permits: Permits, session: UpstreamSession) -> str:
    """Let the registry know the session that the permit pays for, and return the id of the permit."""
    row = session._permit.row.id
    registry = permits._shared._store
    await registry.add_upstream(await registry.create("g-1", {}), "s-1", permit_id=row)
    return row


@pytest.mark.parametrize(
    ("stopped", "reason", "expected"),
    [
        (Stopped.NOW, "IDLE_TIMEOUT", ""),
        (Stopped.BEFORE, "IDLE_TIMEOUT", "IDLE_TIMEOUT"),
        (Stopped.EITHER, STOP_REASON, ""),
        (Stopped.EITHER, "IDLE_TIMEOUT", "IDLE_TIMEOUT"),
        (Stopped.NEVER, "IDLE_TIMEOUT", ""),
    ],
)
async def test_only_an_end_by_others_has_a_reason(stopped, reason, expected):
    session, *_ = await make(stopped, reason)
    assert await session.close() == expected


async def test_a_session_of_another_process_is_left_without_a_stop():
    session, host, permits, journal = await make()
    await session.leave()
    assert host.socket.closed
    assert (host.account.stop_count, host.account.session_ids, journal.stopped_ids) == (0, set(), [])
    async with asyncio.timeout(10):
        # The process that drives it has the permit; there is none here.
        while permits.used:
            await permits.refresh()


class Listed:
    """LiveAvatar's list of active sessions."""

    def __init__(self, ids) -> None:
        self.listed = ids

    async def ids(self, run, *, max_age_s: float):
        assert max_age_s == 5.0
        await run(asyncio.sleep(0))
        return self.listed


@pytest.mark.parametrize(
    ("listed", "over", "expected"),
    [
        ({"s-1"}, True, None),
        (None, True, None),
        ({"s-2"}, False, None),
        ({"s-2"}, True, "AGENT_HANG_UP"),
    ],
    ids=["listed", "no answer", "not listed yet", "over"],
)
async def test_a_session_has_ended_when_list_and_record_agree(listed, over, expected):
    session, host, *_ = await make(reason="AGENT_HANG_UP")
    host.account.active = Listed(listed)
    host.account.over = over
    assert await session.ended_reason(max_age_s=5.0) == expected
