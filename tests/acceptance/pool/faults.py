"""Accounts that fail while callers come and go: every caller is served or told why, and the account recovers."""

import asyncio
import functools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from acceptance.line import Line, Outcome, Setting
from testkit import processes
from testkit.accounts import AccountsFile
from testkit.caller import Caller, refusal
from testkit.caller import caller as connect

_BREAKER_S: Final = 5.0
_TOLERANCE_S: Final = 1.0
"""Time beyond the interval of the breaker: the file of accounts is looked at every two seconds, for instance."""
_STARTS_PER_S: Final = 10.0
_BOUND: Final = 2 * _STARTS_PER_S * 3
"""Starts of three accounts in any second: a second's starts saved up, and those of the second itself."""
_NAMES: Final = ("one", "two", "three")
_SESSIONS: Final = 6
_HOLD_S: Final = 0.3
_PATIENCE_S: Final = 20.0


@dataclass
class Tally:
    """Results of the callers of one fault."""

    served: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    untyped: list[str] = field(default_factory=list)

    async def churn(self, caller: Caller, stop: asyncio.Event) -> None:
        """Open a session, hold it for a moment and end it, again and again."""
        while not stop.is_set():
            try:
                created = await caller.create(deadline_s=20)
                self.served += 1
                await asyncio.sleep(_HOLD_S)
                await caller.end(created.session.id)
            except grpc.aio.AioRpcError as error:
                try:
                    self.reasons[refusal(error).reason] += 1
                except AssertionError:
                    self.untyped.append(f"{error.code()}: {error.details()}")
                await asyncio.sleep(0.1)


@dataclass
class Stage:
    """Emulator, gateway and file of accounts of one line."""

    emulator: processes.Emulator
    gateway: processes.Gateway
    file: AccountsFile
    event_log: Path

    def balance(self) -> float:
        """Return the credits of the account that fails; each start takes one."""
        return next(float(row["credits"]) for row in self.emulator.state()["accounts"] if row["name"] == "one")

    def most_starts(self) -> int:
        """Return the largest number of starts in any second."""
        lines = map(json.loads, self.event_log.read_text().splitlines())
        times = [line["at_s"] for line in lines if (line["what"], line.get("endpoint")) == ("rest", "start")]
        return max((sum(begin <= at < begin + 1 for at in times) for begin in times), default=0)

    async def recovery_s(self) -> float:
        """Return the time until a session starts on the account that failed; infinite if none does in time."""
        since_s, balance = time.monotonic(), self.balance()
        while (waited_s := time.monotonic() - since_s) < _PATIENCE_S:
            if self.balance() < balance:
                return waited_s
            await asyncio.sleep(0.05)
        return float("inf")

    async def left(self) -> int:
        """Return the sessions that still run once everything is over."""
        until_s = time.monotonic() + _PATIENCE_S
        while (count := self.emulator.active()) and time.monotonic() < until_s:
            await asyncio.sleep(0.1)
        return count


Fault = Callable[[Stage], Awaitable[None]]
"""Makes an account fail, and returns when it works again."""


async def _restart(at: Stage) -> None:
    await asyncio.to_thread(at.emulator.restart, down_s=3)
    await asyncio.sleep(3.5)


async def _rate_limit(at: Stage) -> None:
    at.emulator.change_account("one", rate=1)
    await asyncio.sleep(4)
    at.emulator.change_account("one", rate=None)


async def _no_credits(at: Stage) -> None:
    at.emulator.change_account("one", credits=0)
    await asyncio.sleep(4)
    at.emulator.change_account("one", credits=1000)


async def _revoke(at: Stage) -> None:
    at.emulator.change_account("one", revoked_keys=["one-key"])
    await asyncio.sleep(4)
    at.file.write_key("one", "one-new-key")


async def _hang(at: Stage) -> None:
    at.emulator.fault("start", account="one", hang=True, after_effect=True, times=1000)
    await asyncio.sleep(6)
    at.emulator.clear_faults()


async def _lost_answers(at: Stage) -> None:
    at.emulator.fault("start", account="one", status=500, after_effect=True, times=1000)
    await asyncio.sleep(4)
    at.emulator.clear_faults()


@contextmanager
def _stage() -> Iterator[Stage]:
    keys = " ".join([f"{name}={name}-key" for name in _NAMES] + ["one=one-new-key"])
    with (
        tempfile.TemporaryDirectory() as folder,
        processes.emulator(
            api_keys=keys, concurrency=_SESSIONS, connect_retries=5, event_log=f"{folder}/events.jsonl"
        ) as emulator,
    ):
        file = AccountsFile(Path(folder))
        # The account that fails is the cheapest, so that everybody tries it first.
        path = file.write({name: {"max_sessions": _SESSIONS, "cost": cost} for cost, name in enumerate(_NAMES, 1)})
        settings = {
            "pool_file": path,
            "api_key": "",
            "rest_timeout_s": 2,
            "breaker_s": _BREAKER_S,
            "breaker_failures": 3,
            "starts_per_s": _STARTS_PER_S,
            "settle_s": 0.1,
            "wait_s": 15,
        }
        with processes.gateway(emulator.url, **settings) as gateway:
            yield Stage(emulator, gateway, file, Path(folder) / "events.jsonl")


async def _run(setting: Setting, *, fault: Fault) -> Outcome:
    tally, stop = Tally(), asyncio.Event()
    with _stage() as at:
        async with connect(at.gateway.address) as caller:
            callers = 24 if setting.long else 12
            running = [asyncio.create_task(tally.churn(caller, stop)) for _ in range(callers)]
            await asyncio.sleep(1.5)
            await fault(at)
            recovery_s = await at.recovery_s()
            await asyncio.sleep(1.0)
            stop.set()
            await asyncio.wait_for(asyncio.gather(*running), 60)
        left, starts = await at.left(), at.most_starts()
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.reasons.items())) or "nobody"
    figure = (
        f"{tally.served} served; refused: {told}; {len(tally.untyped)} without a reason; at most {starts} starts "
        f"in a second; back after {recovery_s:.1f} s; {left} sessions left"
    )
    passed = (
        tally.served > 0
        and not tally.untyped
        and not left
        and starts <= _BOUND
        and recovery_s <= _BREAKER_S + _TOLERANCE_S
    )
    return Outcome(figure="; ".join([figure, *tally.untyped[:1]]), passed=passed)


def _line(name: str, fault: Fault) -> Line:
    return Line(
        name=f"faults: {name}",
        goal=f"all are served or told why; at most {_BOUND:g} starts in any second; the account is back in its "
        f"breaker's {_BREAKER_S:g} s and {_TOLERANCE_S:g} s; no session left",
        run=functools.partial(_run, fault=fault),
        in_short=False,
        measures_time=True,
    )


FAULTS: Final = (
    _line("LiveAvatar restarted", _restart),
    _line("a key rate-limited", _rate_limit),
    _line("an account out of credits", _no_credits),
    _line("a key revoked, then replaced", _revoke),
    _line("starts hang", _hang),
    _line("starts answered 500 after they were carried out", _lost_answers),
)
