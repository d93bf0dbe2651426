"""How each kind of fault is done to a running stage."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable

import httpx
from chaos.schedule import Fault
from chaos.stage import Stage
from chaos.toxics import Latency, Slicer

Way = Callable[[Stage, random.Random], Awaitable[None]]


def _running(stage: Stage) -> list[str]:
    sessions = stage.emulator.http.get("/_emulator/sessions").raise_for_status().json()
    return [one["id"] for one in sessions if one["end_reason"] is None]


async def _socket(stage: Stage, kind: str, **fault: object) -> None:
    with contextlib.suppress(httpx.HTTPStatusError):  # whom it should have hit is over
        await asyncio.to_thread(stage.emulator.socket_fault, kind, "all", **fault)


async def _some(stage: Stage, rng: random.Random, do: Callable[[str], object]) -> None:
    for upstream_id in _running(stage):
        if rng.random() < 0.6:
            with contextlib.suppress(httpx.HTTPStatusError):
                await asyncio.to_thread(do, upstream_id)


async def close_sockets(stage: Stage, rng: random.Random) -> None:
    code = rng.choice([1000, 1001, 1011])
    await _some(stage, rng, lambda one: stage.emulator.drop(one, code))


async def reset_sockets(stage: Stage, rng: random.Random) -> None:
    await _some(stage, rng, lambda one: stage.emulator.drop(one, None))


def _kill(least_s: float, most_s: float) -> Way:
    """Kill the gateway that callers prefer, and start it again so much later."""

    async def way(stage: Stage, rng: random.Random) -> None:
        node = stage.nodes[0]
        async with node.busy:
            await asyncio.to_thread(node.kill)
            await asyncio.sleep(rng.uniform(least_s, most_s))
            await asyncio.to_thread(node.start)

    return way


async def freeze(stage: Stage, rng: random.Random) -> None:
    node = stage.nodes[0]
    async with node.busy:
        node.send(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(0.5, 2))
        node.send(signal.SIGCONT)


async def drain_and_restart(stage: Stage, rng: random.Random) -> None:
    node = stage.nodes[0]
    async with node.busy:
        node.send(signal.SIGTERM)
        code = await asyncio.to_thread(node.drained)
        assert code == 0, f"a drained gateway exited with {code}"
        await asyncio.sleep(rng.uniform(0, 1))
        await asyncio.to_thread(node.start)


async def restart_upstream(stage: Stage, rng: random.Random) -> None:
    body = {"down_s": rng.uniform(0.3, 2), "keep_sessions": True}
    await asyncio.to_thread(lambda: stage.emulator.http.post("/_emulator/restart", json=body).raise_for_status())


async def shuffle_events(stage: Stage, rng: random.Random) -> None:
    await asyncio.to_thread(stage.emulator.settings, shuffle_events=True, jitter_ms=rng.choice([20, 80]))
    await asyncio.sleep(3)
    await asyncio.to_thread(stage.emulator.settings, shuffle_events=False, jitter_ms=0)


async def end_sessions(stage: Stage, rng: random.Random) -> None:
    for upstream_id in _running(stage)[:3]:
        with contextlib.suppress(httpx.HTTPStatusError):
            await asyncio.to_thread(stage.emulator.end, upstream_id, rng.choice(["IDLE_TIMEOUT", "NO_CREDITS"]))


async def jump_clocks(stage: Stage, rng: random.Random) -> None:
    for node in stage.nodes:
        node.clock.jump(rng.choice([-3600, 3600]))
    await asyncio.sleep(rng.uniform(1, 4))
    for node in stage.nodes:
        node.clock.jump(0)


async def reset_callers(stage: Stage, _: random.Random) -> None:
    for node in stage.nodes:
        assert node.proxy is not None
        node.proxy.drop()


async def slow_callers(stage: Stage, rng: random.Random) -> None:
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


async def callers_down(stage: Stage, rng: random.Random) -> None:
    proxies = [node.proxy for node in stage.nodes if node.proxy is not None]
    for proxy in proxies:
        proxy.disable()
    await asyncio.sleep(rng.uniform(0.5, 3))
    for proxy in proxies:
        proxy.enable()


async def reset_upstream(stage: Stage, _: random.Random) -> None:
    stage.upstream.drop()


async def slow_upstream(stage: Stage, rng: random.Random) -> None:
    stage.upstream.add(Latency(latency=rng.uniform(30, 120), jitter=30), stream="upstream", name="slow up")
    stage.upstream.add(Latency(latency=rng.uniform(30, 120), jitter=30), stream="downstream", name="slow down")
    await asyncio.sleep(4)
    stage.upstream.remove("slow up")
    stage.upstream.remove("slow down")


async def upstream_down(stage: Stage, rng: random.Random) -> None:
    stage.upstream.disable()
    await asyncio.sleep(rng.uniform(0.5, 3))
    stage.upstream.enable()


def _rest(endpoint: str, **fault: object) -> Way:
    async def way(stage: Stage, _: random.Random) -> None:
        await asyncio.to_thread(stage.emulator.fault, endpoint, **fault)

    return way


def _sockets(kind: str, **fault: object) -> Way:
    async def way(stage: Stage, _: random.Random) -> None:
        await _socket(stage, kind, **fault)

    return way


async def malformed(stage: Stage, _: random.Random) -> None:
    await asyncio.to_thread(stage.emulator.fault, "token", truncate=True, times=1)
    await asyncio.to_thread(stage.emulator.fault, "start", truncate=True, times=1)


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
    "gateway frozen": freeze,
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


async def inject(stage: Stage, fault: Fault) -> None:
    """Do it, and undo it if it is a state."""
    await WAYS[fault.kind](stage, random.Random(fault.chance))
