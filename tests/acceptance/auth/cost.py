"""CPU of the gateway for calls, streams and chunks, with each kind of credential and with none."""

import asyncio
import contextlib
import random
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final

import grpc
from cryptography import x509

from acceptance.auth.stage import Stage, certificates, stage
from acceptance.cpu import CHUNKS_PER_S, cpu_s, speak_in_chunks
from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit.caller import Caller
from testkit.certificates import Authority
from testkit.tenants import caller_with

_AT_ONCE: Final = 8


@contextlib.asynccontextmanager
async def _callers(at: Stage, authority: Authority) -> AsyncIterator[dict[str, Caller]]:
    """Connect a caller of each kind to one gateway, all over TLS."""
    name = "agent.example.org"
    at.tenants.certificate("acme", f"dns:{name}")
    signed = authority.sign("agent", x509.DNSName(name))
    plain = grpc.ssl_channel_credentials(authority.certificate)
    mutual = grpc.ssl_channel_credentials(authority.certificate, signed.key, signed.certificate)
    key = at.tenants.key("acme")
    token = at.token("acme", "open", "speak", "control", "watch")
    address, mtls = at.gateway.address, at.gateway.process.info["mtls_address"]
    async with (
        caller_with(address, key, channel_credentials=plain) as by_key,
        caller_with(address, token, channel_credentials=plain) as by_token,
        caller_with(mtls, channel_credentials=mutual) as by_certificate,
    ):
        yield {"key": by_key, "token": by_token, "certificate": by_certificate}


async def _in_turns(count: int, work: Callable[[], Awaitable[object]]) -> None:
    async def some() -> None:
        for _ in range(count // _AT_ONCE):
            await work()

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))


async def _call_once(caller: Caller) -> None:
    await caller.sessions.GetServerInfo(p.GetServerInfoRequest())


async def _watch_once(caller: Caller) -> None:
    watch = caller.watch()
    await watch.progress()
    await watch.call.done_writing()
    await watch.call.code()


def _figure(costs: dict[str, list[float]], unit: str) -> str:
    base = statistics.median(costs["none"])
    return (
        ", ".join(
            f"{name} {statistics.median(values) * 1e6:.0f} us ({statistics.median(values) / base:.2f} x)"
            for name, values in costs.items()
        )
        + f" per {unit}"
    )


async def _run_calls(setting: Setting) -> Outcome:
    rounds, count = (5, 1600) if setting.long else (3, 480)
    authority = Authority()
    calls: dict[str, list[float]] = {}
    streams: dict[str, list[float]] = {}
    with (
        certificates(authority) as files,
        stage("acme", authenticates=False, mtls_port=0, **files) as free,
        stage("acme", mtls_port=0, **files) as at,
    ):
        plain = grpc.ssl_channel_credentials(authority.certificate)
        async with (
            caller_with(free.gateway.address, channel_credentials=plain) as nobody,
            _callers(at, authority) as known,
        ):
            await asyncio.sleep(3)
            who = {"none": (free, nobody), **{kind: (at, caller) for kind, caller in known.items()}}
            order = list(who)
            for _ in range(rounds):
                random.Random(setting.seed).shuffle(order)
                for kind in order:
                    place, caller = who[kind]
                    pid = place.gateway.process.pid
                    for costs, work, times in (
                        (calls, partial(_call_once, caller), count),
                        (streams, partial(_watch_once, caller), count // 4),
                    ):
                        began_s = cpu_s(pid)
                        await _in_turns(times, work)
                        costs.setdefault(kind, []).append((cpu_s(pid) - began_s) / times)
    calls = {kind: calls[kind] for kind in who}
    streams = {kind: streams[kind] for kind in who}
    return Outcome(figure=f"{_figure(calls, 'call')}; {_figure(streams, 'stream')}", passed=True)


async def _run_chunks(setting: Setting) -> Outcome:
    rounds, sessions, seconds = (5, 20, 10.0) if setting.long else (3, 10, 3.0)
    costs: dict[str, list[float]] = {"none": [], "key": []}
    with stage("acme", authenticates=False) as free, stage("acme") as at:
        key = at.tenants.key("acme")
        await asyncio.sleep(3)
        async with caller_with(free.gateway.address) as nobody, caller_with(at.gateway.address, key) as known:
            who = {"none": (free, nobody), "key": (at, known)}
            for number in range(rounds):
                for kind in sorted(who, reverse=bool(number % 2)):
                    place, caller = who[kind]
                    began_s = cpu_s(place.gateway.process.pid)
                    await speak_in_chunks(caller, sessions, seconds)
                    used_s = cpu_s(place.gateway.process.pid) - began_s
                    costs[kind].append(used_s / (sessions * seconds * CHUNKS_PER_S))
    spread = max(max(values) - min(values) for values in costs.values())
    medians = {kind: statistics.median(values) for kind, values in costs.items()}
    difference = medians["key"] - medians["none"]
    return Outcome(
        figure=f"none {medians['none'] * 1e6:.1f} us, key {medians['key'] * 1e6:.1f} us per chunk "
        f"({medians['key'] / medians['none']:.2f} x), spread {spread * 1e6:.1f} us",
        passed=difference <= spread,
    )


COST = (
    Line(
        name="cost of calls",
        goal="printed for each kind of credential",
        run=_run_calls,
        in_short=False,
        measures_time=True,
    ),
    Line(name="cost of chunks", goal="within the spread of the run", run=_run_chunks, measures_time=True),
)
