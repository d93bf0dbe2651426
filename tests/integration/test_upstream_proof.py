"""Only LiveAvatar's own answers prove that a session is gone or was ended by others."""

import asyncio

import pytest

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import refused, refused_before_deadline

PAGE = "<html><h1>404 Not Found</h1>nginx</html>"


@pytest.fixture(scope="module")
def own_emulator():
    """Its sessions are counted, so nobody else's may be there."""
    with processes.emulator() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(own_emulator):
    with processes.gateway(own_emulator.url, reconnect_budget_s=0.3) as found:
        yield found


@pytest.fixture
def emulator(own_emulator):
    yield own_emulator
    own_emulator.clear_faults()
    own_emulator.wait_active(0)


async def used(caller) -> int:
    info = await caller.sessions.GetServerInfo(sessions.GetServerInfoRequest(), timeout=10)
    return info.used_permit_count


async def until_used(caller, count: int) -> None:
    async with asyncio.timeout(20):
        while await used(caller) != count:
            await asyncio.sleep(0.05)


async def test_a_page_of_a_proxy_ends_no_stop(gateway, emulator):
    async with connect(gateway.address) as caller:
        session = (await caller.create()).session
        emulator.fault("stop", status=404, body=PAGE)
        emulator.fault("stop", status=200, body=PAGE)
        emulator.fault("get", status=404, body=PAGE, times=9)
        ending = asyncio.create_task(caller.end(session.id))
        async with asyncio.timeout(20):
            while "upstream.stop_retry" not in gateway.process.log:
                await asyncio.sleep(0.05)
        assert not ending.done()
        assert emulator.active() == 1
        assert await used(caller) == 1, "the permit was given away while the session is billed"
        ended = await ending
        assert emulator.active() == 0
        assert (ended.end_reason, ended.upstream_reason) == (session_pb2.END_REASON_CALLER_ENDED, "")


async def test_a_page_of_a_proxy_in_place_of_the_socket_ends_no_session(gateway, emulator):
    with processes.gateway(emulator.url, reconnect_budget_s=15) as patient:
        async with connect(patient.address) as caller:
            attached = await caller.attach()
            await attached.until_ready()
            upstream_id = (await caller.get(attached.session_id)).upstream_session_id
            emulator.fault("get", status=404, body=PAGE, times=2)
            emulator.socket_fault("refuse_sockets", upstream_id, for_s=1)
            emulator.drop(upstream_id, None)
            await attached.event("reconnected")
            await caller.end(attached.session_id)


async def test_a_start_that_failed_is_told_at_once_and_stopped_behind(gateway, emulator):
    emulator.fault("start", status=403, body="<html>blocked</html>", after_effect=True)
    emulator.fault("stop", status=503, times=2)
    async with connect(gateway.address) as caller:
        why = await refused(caller.create())
        assert why.reason == "UPSTREAM_PROTOCOL"
        assert emulator.active() == 1, "its stop cannot have been confirmed yet"
        assert await used(caller) == 1, "the permit was given away while the session may run"
        emulator.wait_active(0)
        await until_used(caller, 0)


async def test_our_own_retry_is_not_read_as_the_deed_of_another(gateway, emulator):
    emulator.socket_fault("refuse_sockets", "next", how="reset")
    emulator.fault("stop", status=502, after_effect=True)
    async with connect(gateway.address) as caller:
        why = await refused(caller.create())
        assert why.reason == "UPSTREAM_UNREACHABLE"
        emulator.clear_faults()
        async with asyncio.timeout(20):
            while True:
                listed = await caller.sessions.ListSessions(sessions.ListSessionsRequest(page_size=1), timeout=10)
                if (session := listed.sessions[0]).state == session_pb2.SESSION_STATE_ENDED:
                    break
                await asyncio.sleep(0.05)
        assert session.end_reason == session_pb2.END_REASON_UPSTREAM_FAILED
        assert session.upstream_reason == ""


async def test_an_end_that_liveavatar_does_not_confirm_is_told_in_time(gateway, emulator):
    async with connect(gateway.address) as caller:
        session = (await caller.create()).session
        emulator.fault("stop", status=503, times=1000)
        request = sessions.EndSessionRequest(session_id=session.id)
        why = await refused_before_deadline(lambda s: caller.sessions.EndSession(request, timeout=s))
        assert (why.reason, why.metadata["session_id"]) == ("UPSTREAM_TIMEOUT", session.id)
        emulator.clear_faults()
        assert (await caller.end(session.id)).state == session_pb2.SESSION_STATE_ENDED


async def test_liveavatars_words_have_a_limit_wherever_they_are_told(gateway, emulator):
    async with connect(gateway.address) as caller:
        attached = await caller.attach()
        await attached.until_ready()
        upstream_id = (await caller.get(attached.session_id)).upstream_session_id
        words = {"type": "t" * 300_000, "message": "ä" * 300_000}
        emulator.inject(upstream_id, {"type": "warning", "warning": words})
        told = await attached.event("notice")
        assert len(told.type) < 200
        assert len(told.message.encode()) <= 500
        emulator.inject(upstream_id, {"type": "session.stopped", "end_reason": "\N{BOMB}" * 20_000})
        await attached.event("ended")
        request = sessions.InterruptSessionRequest(session_id=attached.session_id)
        why = await refused(caller.sessions.InterruptSession(request, timeout=10))
        assert why.reason == "SESSION_ENDED"
        assert why.metadata["upstream_reason"].endswith("… (cut)")


async def test_places_that_come_free_late_keep_the_line_waiting():
    with (
        processes.emulator(concurrency=2, slot_release_ms=800) as emulator,
        processes.gateway(emulator.url, max_sessions=2, settle_s=0.05) as gateway,
    ):
        async with connect(gateway.address) as caller:
            first = [(await caller.create()).session for _ in range(2)]

            async def serve() -> None:
                session = (await caller.create(deadline_s=40)).session
                await caller.end(session.id)

            line = [asyncio.create_task(serve()) for _ in range(4)]
            hurried = await refused(caller.create(deadline_s=0.5))
            # Each caller's own deadline holds all the same.
            assert hurried.reason == "CAPACITY_EXHAUSTED"
            for session in first:
                await caller.end(session.id)
            done, _ = await asyncio.wait(line, timeout=40)
            assert [task.exception() for task in done] == [None] * 4
            assert emulator.state()["refusals"]["403/4032"] > 0, "no place came free late"
