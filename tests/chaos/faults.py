"""Faults of each kind on a running stage. Each returns how many targets were hit; 0 is no fault."""

import asyncio
import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

from chaos.proxy import Proxy
from chaos.schedule import Fault
from chaos.stage import Stage
from chaos.toxics import Latency, Slicer

from liveavatar_demo.emulator_control import EmulatorError, EmulatorRefused, EmulatorUnreachable

Way = Callable[[Stage, random.Random], Awaitable[int]]

PATIENCE_S = 10.0
"""Longest wait of a fault for a target."""
POLL_S = 0.1


async def _running(stage: Stage) -> list[str]:
    sessions = await _ask(stage.emulator.sessions) or []
    return [one["id"] for one in sessions if one["end_reason"] is None]


async def _ask(call: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    """Return a list from the emulator; None during a restart."""
    try:
        return await asyncio.to_thread(call)
    except EmulatorUnreachable:
        return None


async def _arm(stage: Stage, **fault: object) -> int:
    """Arm a fault of the emulator, and wait until it has hit somebody."""
    number = await asyncio.to_thread(lambda: stage.emulator.arm(**fault))
    give_up_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_s:
        armed = await _ask(stage.emulator.faults)
        # One that is not there any more is used up.
        if armed is not None and all(one["fired"] for one in armed if one["id"] == number):
            return 1
        await asyncio.sleep(POLL_S)
    return 0


async def _while_armed(stage: Stage, seconds: float, fault: dict[str, Any]) -> int:
    """Keep a fault of the emulator armed for some seconds; says whether it hit anybody."""
    number = await asyncio.to_thread(lambda: stage.emulator.arm(**fault))
    await asyncio.sleep(seconds)
    armed = await _ask(stage.emulator.faults) or []
    with contextlib.suppress(EmulatorError):  # the emulator may have been restarted
        await asyncio.to_thread(stage.emulator.disarm, number)
    return int(any(one["fired"] for one in armed if one["id"] == number))


async def _some(stage: Stage, rng: random.Random, share: float, do: Callable[[str], object]) -> int:
    """Do it to a share of the sessions that run, but to one at least."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        hit = 0
        for upstream_id in await _running(stage):
            if rng.random() < share:
                with contextlib.suppress(EmulatorRefused):  # it is over, or has no socket just now
                    await asyncio.to_thread(do, upstream_id)
                    hit += 1
        if hit or time.monotonic() > give_up_s:
            return hit
        await asyncio.sleep(POLL_S)


async def close_sockets(stage: Stage, rng: random.Random) -> int:
    code = rng.choice([1000, 1001, 1011])
    return await _some(stage, rng, 0.6, lambda one: stage.emulator.drop(one, code))


async def reset_sockets(stage: Stage, rng: random.Random) -> int:
    return await _some(stage, rng, 0.6, lambda one: stage.emulator.drop(one, None))


def _kill(least_s: float, most_s: float) -> Way:
    """Kill the gateway that callers prefer, and start it again so much later."""

    async def way(stage: Stage, rng: random.Random) -> int:
        node = stage.nodes[0]
        async with node.busy:
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(rng.uniform(least_s, most_s))
            await asyncio.to_thread(node.start)
        return 1

    return way


def _freeze(least_s: float, most_s: float) -> Way:
    """Stop the gateway that callers prefer, and let it go on so much later."""

    async def way(stage: Stage, rng: random.Random) -> int:
        node = stage.nodes[0]
        async with node.busy:
            node.send(signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(least_s, most_s))
            node.send(signal.SIGCONT)
        return 1

    return way


async def drain_and_restart(stage: Stage, rng: random.Random) -> int:
    node = stage.nodes[0]
    async with node.busy:
        node.send(signal.SIGTERM)
        code = await asyncio.to_thread(node.drained)
        assert code == 0, f"a drained gateway exited with {code}"
        await asyncio.sleep(rng.uniform(0, 1))
        await asyncio.to_thread(node.start)
    return 1


async def drain_during_a_start(stage: Stage, rng: random.Random) -> int:
    """SIGTERM while LiveAvatar is being asked for a session, which it then makes."""
    async with stage.nodes[0].busy:
        hit = await _arm(stage, endpoint="start", delay_s=rng.uniform(0.5, 2))
    return await drain_and_restart(stage, rng) if hit else 0


async def lose_the_log(stage: Stage, _: random.Random) -> int:
    """Kill the reader of the log of the gateway that callers prefer."""
    node = stage.nodes[0]
    async with node.busy:
        await asyncio.to_thread(node.stop_reading_the_log)
    return 1


async def lock_the_registry(stage: Stage, rng: random.Random) -> int:
    """Another program holds SQLite's write lock."""
    seconds = rng.uniform(2, 5)

    def lock() -> None:
        connection = sqlite3.connect(stage.registry, timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    await asyncio.to_thread(lock)
    return 1


async def full_account(stage: Stage, rng: random.Random) -> int:
    """LiveAvatar says that no session may be started, for longer than a place takes to settle."""
    body = {"endpoint": "start", "status": 403, "code": 4032, "times": 10_000}
    return await _while_armed(stage, rng.uniform(2, 4), body)


async def html_from_a_proxy(stage: Stage, rng: random.Random) -> int:
    """Answer in LiveAvatar's place, as a proxy without knowledge of its sessions."""
    status = rng.choice([404, 404, 502])
    page = f"<html><body><h1>{status}</h1></body></html>"
    hits = [
        _while_armed(stage, 3.0, {"endpoint": endpoint, "status": status, "body": page, "times": 10_000})
        for endpoint in ("start", "stop", "get")
    ]
    return sum(await asyncio.gather(*hits))


async def restart_upstream(stage: Stage, rng: random.Random) -> int:
    down_s = rng.uniform(0.3, 2)
    await asyncio.to_thread(lambda: stage.emulator.restart(down_s=down_s, keep_sessions=True))
    return 1


async def shuffle_events(stage: Stage, rng: random.Random) -> int:
    await asyncio.to_thread(stage.emulator.change_settings, shuffle_events=True, jitter_ms=rng.choice([20, 80]))
    await asyncio.sleep(3)
    await asyncio.to_thread(stage.emulator.change_settings, shuffle_events=False, jitter_ms=0)
    return 1


async def end_sessions(stage: Stage, rng: random.Random) -> int:
    def end(upstream_id: str) -> None:
        stage.emulator.end(upstream_id, rng.choice(["IDLE_TIMEOUT", "NO_CREDITS"]))

    return await _some(stage, rng, 0.3, end)


async def jump_clocks(stage: Stage, rng: random.Random) -> int:
    for node in stage.nodes:
        node.clock.jump(rng.choice([-3600, 3600]))
    # A process looks at its clock's file once a second, so a jump that is over sooner may be no jump.
    await asyncio.sleep(rng.uniform(2, 5))
    for node in stage.nodes:
        node.clock.jump(0)
    return 1


async def reset_callers(stage: Stage, _: random.Random) -> int:
    return await _reset(*(node.proxy for node in stage.nodes if node.proxy is not None))


async def _reset(*proxies: Proxy) -> int:
    give_up_s = time.monotonic() + PATIENCE_S
    while not (hit := sum(proxy.active for proxy in proxies)) and time.monotonic() < give_up_s:
        await asyncio.sleep(POLL_S)
    for proxy in proxies:
        proxy.drop()
    return hit


async def slow_callers(stage: Stage, rng: random.Random) -> int:
    for node in stage.nodes:
        assert node.proxy is not None
        for stream in ("upstream", "downstream"):
            node.proxy.add(Latency(latency=rng.uniform(20, 80), jitter=20), stream=stream, name=f"slow {stream}")
            node.proxy.add(Slicer(average_size=700, size_variation=500), stream=stream, name=f"cut {stream}")
    await asyncio.sleep(4)
    for node in stage.nodes:
        assert node.proxy is not None
        for name in ("slow", "cut"):
            for stream in ("upstream", "downstream"):
                node.proxy.remove(f"{name} {stream}")
    return 1


async def callers_down(stage: Stage, rng: random.Random) -> int:
    proxies = [node.proxy for node in stage.nodes if node.proxy is not None]
    for proxy in proxies:
        proxy.disable()
    await asyncio.sleep(rng.uniform(0.5, 3))
    for proxy in proxies:
        proxy.enable()
    return 1


async def reset_upstream(stage: Stage, _: random.Random) -> int:
    return await _reset(stage.upstream)


async def slow_upstream(stage: Stage, rng: random.Random) -> int:
    stage.upstream.add(Latency(latency=rng.uniform(30, 120), jitter=30), stream="upstream", name="slow up")
    stage.upstream.add(Latency(latency=rng.uniform(30, 120), jitter=30), stream="downstream", name="slow down")
    await asyncio.sleep(4)
    stage.upstream.remove("slow up")
    stage.upstream.remove("slow down")
    return 1


async def upstream_down(stage: Stage, rng: random.Random) -> int:
    stage.upstream.disable()
    await asyncio.sleep(rng.uniform(0.5, 3))
    stage.upstream.enable()
    return 1


def _rest(endpoint: str, **fault: object) -> Way:
    async def way(stage: Stage, _: random.Random) -> int:
        return await _arm(stage, endpoint=endpoint, **fault)

    return way


def _sockets(kind: str, **fault: object) -> Way:
    async def way(stage: Stage, _: random.Random) -> int:
        return await _arm(stage, kind=kind, session="all", **fault)

    return way


async def malformed(stage: Stage, _: random.Random) -> int:
    return sum(
        await asyncio.gather(
            _arm(stage, endpoint="token", truncate=True), _arm(stage, endpoint="start", truncate=True)
        )
    )


WAYS: dict[str, Way] = {
    "socket closed": close_sockets,
    "socket reset": reset_sockets,
    "gateway killed and restarted": _kill(0, 1),
    "LiveAvatar reads nothing": _sockets("stop_reading", for_s=3),
    "caller's connections reset": reset_callers,
    "acks swallowed": _sockets("swallow_acks", for_s=3),
    "acks delayed": _sockets("delay_acks", delay_ms=600, jitter_ms=300, for_s=4),
    "gateway killed, another takes over": _kill(4, 6),
    "sockets refused": _sockets("refuse_sockets", how="reset", for_s=2),
    "caller's connections slow and sliced": slow_callers,
    "start fails": _rest("start", status=503, times=3),
    "gateway frozen": _freeze(0.5, 2),
    "gateway suspended for long": _freeze(5, 8),
    "acks stop for good": _sockets("swallow_acks"),
    "gateway drained during a start": drain_during_a_start,
    "gateway's log cannot be written": lose_the_log,
    "registry locked by another program": lock_the_registry,
    "place comes free late": full_account,
    "HTML from a proxy": html_from_a_proxy,
    "LiveAvatar's answers malformed": malformed,
    "LiveAvatar slow to read": _sockets("slow_reading", bytes_per_s=40_000, for_s=3),
    "gateway drained and restarted": drain_and_restart,
    "LiveAvatar restarted, keeping its sessions": restart_upstream,
    "LiveAvatar's connections reset": reset_upstream,
    "stop fails": _rest("stop", status=500, times=3),
    "events shuffled and late": shuffle_events,
    "caller's network down": callers_down,
    "start's answer lost": _rest("start", after_effect=True, times=1, status=502),
    "LiveAvatar's connections slow": slow_upstream,
    "LiveAvatar's network down": upstream_down,
    "LiveAvatar hangs": _rest("start", delay_s=2, jitter_s=1, times=4),
    "session ended by LiveAvatar": end_sessions,
    "gateway's wall clock jumps": jump_clocks,
}


async def inject(stage: Stage, fault: Fault) -> int:
    """Do it, and undo it if it is a state; says how many it hit."""
    return await WAYS[fault.kind](stage, random.Random(fault.chance))
