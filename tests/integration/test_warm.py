"""Warm sessions and reservations against the emulator: ready at once, billed to somebody, and never orphaned."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import jwt
import pytest

from liveavatar.gateway import AsyncClient, ReservationNotFound
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes, speech
from testkit.caller import AVATAR, caller, make_spec, refused
from testkit.pool_files import profile, write_pool_file
from testkit.tenants import TenantsFile

READY_MS = 2500


async def until(reached: Callable[[], object], timeout_s: float = 20.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not await asyncio.to_thread(reached):
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.05)


def warmed(gateway, times: int = 1) -> bool:
    return gateway.process.log.count("warm.ready") >= times


@contextlib.contextmanager
def warm_gateway(emulator, folder: Path, profiles, **settings):
    pool_file = write_pool_file(folder, profiles)
    with processes.gateway(emulator.url, pool_file=pool_file, api_key="", **settings) as gateway:
        yield gateway


async def test_a_taken_warm_session_speaks_at_once_and_another_takes_its_place(tmp_path):
    with (
        processes.emulator(ready_delay_ms=READY_MS) as emulator,
        warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway,
    ):
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        async with caller(gateway.address) as client:
            began_s = time.monotonic()
            attachment = await client.attach()
            await attachment.until_ready()
            assert time.monotonic() - began_s < READY_MS / 1000
            assert attachment.upstream_id == waiting
            stream = await client.speak(attachment.session_id)
            await stream.say(speech.sound(0.3))
            assert (await stream.until("ended")).outcome
            await until(lambda: warmed(gateway, 2))
            await client.end(attachment.session_id)
        await asyncio.to_thread(emulator.wait_active, 1)


async def test_who_asks_for_something_else_gets_a_session_of_its_own(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        async with caller(gateway.address) as client:
            video = session_pb2.VideoSettings(quality=session_pb2.VIDEO_QUALITY_LOW)
            created = await client.create(video=video)
            assert created.session.upstream_session_id != waiting


async def test_a_warm_session_brings_the_agents_token_along(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        async with caller(gateway.address) as client:
            made = await client.create(agent_seat=session_pb2.AGENT_SEAT_CALLER)
            assert made.session.upstream_session_id == waiting
            claims = jwt.decode(made.room.agent_token, options={"verify_signature": False})
            assert claims["sub"] == "agent"


async def test_a_shorter_limit_counts_from_taking_and_ends_the_session(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        await asyncio.sleep(1.5)
        spec = make_spec()
        spec.max_duration.FromSeconds(2)
        async with caller(gateway.address) as client:
            began_s = time.monotonic()
            created = await client.sessions.CreateSession(p.CreateSessionRequest(spec=spec), timeout=30)
            assert created.session.upstream_session_id == waiting
            assert created.session.max_duration.seconds == 2
            attachment = await client.resume(created.handle)
            ended = await attachment.event("ended")
            assert time.monotonic() - began_s >= 1.9
            assert ended.session.end_reason == session_pb2.END_REASON_MAX_DURATION


async def test_a_kill_leaves_no_billed_session(tmp_path):
    """Goal: another process on the registry stops what a killed one kept warm."""
    shared = {"registry_file": str(tmp_path / "registry.db")}
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    with (
        processes.emulator() as emulator,
        warm_gateway(emulator, tmp_path, {"desk": profile(min=3)}, **shared) as first,
        warm_gateway(emulator, quiet, {}, **shared) as second,
    ):
        await until(lambda: warmed(first, 3))
        async with caller(second.address) as client:
            listed = await client.sessions.ListSessions(p.ListSessionsRequest(), timeout=10)
            assert not listed.sessions
        first.process.kill()
        await asyncio.to_thread(emulator.wait_active, 0, 20)
        assert second.process.logged("session.swept", times=3)
        assert "sweep.unreadable" not in second.process.log


async def test_a_dead_socket_is_replaced_and_never_given_to_a_caller(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        emulator.socket_fault("drop", waiting)
        await until(lambda: warmed(gateway, 2))
        async with caller(gateway.address) as client:
            created = await client.create()
            assert created.session.upstream_session_id != waiting
        await until(lambda: not emulator.runs(waiting))


async def test_a_session_that_liveavatar_ended_is_replaced(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        (waiting,) = [one["id"] for one in emulator.sessions()]
        emulator.end(waiting, "IDLE_TIMEOUT")
        await until(lambda: warmed(gateway, 2))


async def test_never_more_than_the_profile_allows_and_idle_ones_are_replaced(tmp_path):
    with (
        processes.emulator() as emulator,
        warm_gateway(emulator, tmp_path, {"desk": profile(min=2, max=2, max_idle_s=10)}) as gateway,
    ):
        most = 0
        give_up_s = time.monotonic() + 14
        while time.monotonic() < give_up_s:
            most = max(most, await asyncio.to_thread(emulator.active))
            await asyncio.sleep(0.1)
        assert most == 2
        assert gateway.process.logged("warm.retired", "idle", times=2)


async def test_a_removed_profile_ends_its_sessions_without_a_restart(tmp_path):
    with processes.emulator() as emulator, warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
        await until(lambda: warmed(gateway))
        write_pool_file(tmp_path, {})
        await asyncio.to_thread(emulator.wait_active, 0, 20)
        write_pool_file(tmp_path, {"desk": profile(min=2)})
        await asyncio.to_thread(emulator.wait_active, 2, 20)


async def test_an_exit_ends_what_is_warm_and_what_is_reserved(tmp_path):
    with processes.emulator() as emulator:
        with warm_gateway(emulator, tmp_path, {"desk": profile()}) as gateway:
            await until(lambda: warmed(gateway))
            async with caller(gateway.address) as client:
                await client.sessions.PrepareSession(p.PrepareSessionRequest(spec=make_spec()), timeout=30)
            await asyncio.to_thread(emulator.wait_active, 2)
        assert emulator.active() == 0


async def test_an_exit_stops_what_is_being_prepared(tmp_path):
    pool_file = write_pool_file(tmp_path, {}, max_sessions=1)
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, pool_file=pool_file, api_key="", drain_grace_s=10) as gateway,
    ):
        emulator.fault("start", after_effect=True, delay_s=2.0)
        async with caller(gateway.address) as client:
            request = p.PrepareSessionRequest(spec=make_spec())
            starting = asyncio.create_task(refused(client.sessions.PrepareSession(request, timeout=30)))
            await asyncio.to_thread(emulator.wait_active, 1)
            waiting = asyncio.create_task(refused(client.sessions.PrepareSession(request, timeout=30)))
            await asyncio.sleep(0.5)
            gateway.process.send(signal.SIGTERM)
            assert [(await refusal).reason for refusal in (starting, waiting)] == ["DRAINING", "DRAINING"]
            await asyncio.to_thread(emulator.wait_active, 0)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0
        assert emulator.state()["sessions"]["started_total"] == 1


async def test_a_caller_that_leaves_while_its_session_is_prepared_buys_none(tmp_path):
    pool_file = write_pool_file(tmp_path, {}, max_sessions=1)
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, pool_file=pool_file, api_key="", settle_s=0.1) as gateway,
    ):
        async with caller(gateway.address) as client:
            created = await client.create()
            for request_id in ("", "call-7"):
                request = p.PrepareSessionRequest(spec=make_spec(), request_id=request_id)
                leaving = client.sessions.PrepareSession(request, timeout=30)
                await asyncio.sleep(0.5)
                leaving.cancel()
            await client.end(created.session.id)
            await client.create()
            assert emulator.state()["sessions"]["started_total"] == 2


async def test_a_spent_budget_of_the_payer_leaves_nothing_warm(tmp_path):
    tenants = TenantsFile(tmp_path / "auth.toml")
    tenants.tenant("acme", budget={"minutes_per_month": 1})
    tenants.tenant("beta")
    profiles = {"desk": profile(min=2, payer="acme", tenants=["beta", "acme"])}
    with (
        processes.emulator() as emulator,
        warm_gateway(emulator, tmp_path, profiles, auth_file=tenants.path, metrics_port=0) as gateway,
    ):
        await until(lambda: "BUDGET_EXHAUSTED" in gateway.process.log)
        await until(lambda: warmed(gateway))
        assert emulator.state()["sessions"]["started_total"] == 1
        async with httpx.AsyncClient(timeout=10) as http:
            text = (await http.get(str(gateway.metrics))).text
        assert 'gateway_warm_sessions{profile="desk",state="ready"} 1.0' in text
        assert 'gateway_billed_minutes_total{tenant="acme"} 1.0' in text


async def test_a_prepared_session_is_taken_by_its_caller_and_by_nobody_else(tmp_path):
    with (
        processes.emulator(ready_delay_ms=READY_MS) as emulator,
        processes.gateway(emulator.url) as gateway,
    ):
        async with AsyncClient(gateway.address) as client:
            reservation = await client.prepare_session(AVATAR, request_id="call-7")
            assert await client.prepare_session(AVATAR, request_id="call-7") == reservation
            await until(lambda: warmed(gateway))
            began_s = time.monotonic()
            async with client.open_session(AVATAR, reservation=reservation) as session:
                await session.ready()
                assert time.monotonic() - began_s < READY_MS / 1000
                assert emulator.state()["sessions"]["started_total"] == 1
                with pytest.raises(ReservationNotFound):
                    await client.create_session(AVATAR, reservation=reservation)
        await asyncio.to_thread(emulator.wait_active, 0)


async def test_a_prepared_session_that_nobody_takes_is_ended(tmp_path):
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with AsyncClient(gateway.address) as client:
            reservation = await client.prepare_session(AVATAR, hold=5)
            await asyncio.to_thread(emulator.wait_active, 1)
            await asyncio.to_thread(emulator.wait_active, 0, 20)
            with pytest.raises(ReservationNotFound):
                await client.create_session(AVATAR, reservation=reservation.id)


async def test_a_reservation_of_a_killed_process_is_stopped_by_another(tmp_path):
    shared = {"registry_file": str(tmp_path / "registry.db")}
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, **shared) as first,
        processes.gateway(emulator.url, **shared) as second,
    ):
        async with caller(first.address) as client:
            request = p.PrepareSessionRequest(spec=make_spec(), request_id="call-7")
            made = (await client.sessions.PrepareSession(request, timeout=30)).reservation
        async with caller(second.address) as client:
            request = p.CreateSessionRequest(spec=make_spec(), reservation_id=made.id)
            moved = await refused(client.sessions.CreateSession(request, timeout=30))
            assert (moved.reason, moved.metadata["address"]) == ("OWNER_MOVED", first.address)
            first.process.kill()
            await asyncio.to_thread(emulator.wait_active, 0, 20)
            gone = await refused(client.sessions.CreateSession(request, timeout=30))
            assert gone.reason == "RESERVATION_NOT_FOUND"


async def test_a_reload_with_an_unknown_payer_leaves_the_former_profiles(tmp_path):
    tenants = TenantsFile(tmp_path / "auth.toml")
    tenants.tenant("acme")
    with (
        processes.emulator() as emulator,
        warm_gateway(emulator, tmp_path, {"desk": profile(payer="acme")}, auth_file=tenants.path) as gateway,
    ):
        await until(lambda: warmed(gateway))
        write_pool_file(tmp_path, {"desk": profile(min=2, payer="acem")})
        await until(lambda: "names the tenant 'acem'" in gateway.process.log)
        assert emulator.active() == 1
