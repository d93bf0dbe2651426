"""The account's limit: callers wait in line, are served as others end, or are refused at their deadline."""

import asyncio

import grpc
import pytest

from liveavatar.gateway.v1 import session_pb2
from testkit import processes
from testkit.caller import Refusal, refusal, refused
from testkit.caller import caller as connect

ACCOUNT = 50
CALLERS = 61


@pytest.mark.timeout(120)
async def test_61_callers_on_an_account_of_50():
    with (
        processes.emulator(concurrency=ACCOUNT, slot_release_ms=300) as emulator,
        processes.gateway(emulator.url, max_sessions=ACCOUNT, settle_s=0.6) as gateway,
    ):
        async with connect(gateway.address) as caller:
            # The last six have a short deadline and will have waited in vain.
            patient = [asyncio.create_task(caller.create(deadline_s=60)) for _ in range(CALLERS - 6)]
            await asyncio.sleep(0.5)
            hurried = [asyncio.create_task(caller.create(deadline_s=12)) for _ in range(6)]
            sessions = []
            for done in asyncio.as_completed(patient):
                sessions.append((await done).session)
                if len(sessions) == ACCOUNT:
                    break
            while (info := await _info(caller)).waiting_count != CALLERS - ACCOUNT:
                await asyncio.sleep(0.05)
            assert (info.used_permit_count, info.permit_count) == (ACCOUNT, ACCOUNT)
            assert emulator.active() == ACCOUNT
            refusals = await asyncio.gather(*hurried, return_exceptions=True)
            for error in refusals:
                assert isinstance(error, grpc.aio.AioRpcError)
                _assert_quota(error)
            # Five places come free one after another: the five who still wait get them.
            for session in sessions[:5]:
                await caller.end(session.id)
            served = await asyncio.gather(*patient)
            assert len(served) == CALLERS - 6
            assert emulator.active() == ACCOUNT
            state = emulator.state()
            assert state["refusals"]["403/4032"] == 0
            assert state["sessions"]["started_total"] == CALLERS - 6


def _assert_quota(error: grpc.aio.AioRpcError) -> None:
    why: Refusal = refusal(error)
    assert (why.reason, why.code) == ("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert why.quota == "upstream_account"
    assert why.metadata["limit"] == str(ACCOUNT)
    assert why.retry_s > 0


async def _info(caller):
    from liveavatar.gateway.v1 import session_service_pb2 as sessions

    return await caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), timeout=10)


async def test_a_full_line_is_refused_at_once(emulator):
    with processes.gateway(emulator.url, max_sessions=1, max_waiting=1) as gateway:
        async with connect(gateway.address) as caller:
            await caller.create()
            waiting = asyncio.create_task(caller.create(deadline_s=20))
            while (await _info(caller)).waiting_count < 1:
                await asyncio.sleep(0.02)
            why = await refused(caller.create(deadline_s=20))
            assert (why.reason, why.quota) == ("CAPACITY_EXHAUSTED", "upstream_account")
            waiting.cancel()
            while (await _info(caller)).waiting_count:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("call", ["create", "attach"])
async def test_a_caller_that_gives_up_in_line_leaves_at_once_and_may_ask_again_with_its_id(emulator, call):
    # A grace that outlasts the test.
    with processes.gateway(emulator.url, max_sessions=1, detach_grace_s=300) as gateway:
        async with connect(gateway.address) as caller:
            first = (await caller.create()).session
            waiting = asyncio.create_task(getattr(caller, call)("wish"))
            while (await _info(caller)).waiting_count < 1:
                await asyncio.sleep(0.02)
            waiting.cancel()
            while (await _info(caller)).waiting_count:
                await asyncio.sleep(0.02)
            await caller.end(first.id)
            again = (await caller.create("wish")).session
            assert again.state == session_pb2.SESSION_STATE_READY
            await caller.end(again.id)


async def test_a_caller_that_gives_up_in_line_leaves_no_session_behind(emulator):
    with processes.gateway(emulator.url, max_sessions=1) as gateway:
        async with connect(gateway.address) as caller:
            first = (await caller.create()).session
            waiting = asyncio.create_task(caller.create(deadline_s=20))
            while (await _info(caller)).waiting_count < 1:
                await asyncio.sleep(0.02)
            waiting.cancel()
            while (await _info(caller)).waiting_count:
                await asyncio.sleep(0.02)
            await caller.end(first.id)
            second = (await caller.create()).session
            await caller.end(second.id)
