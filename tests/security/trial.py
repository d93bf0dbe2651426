"""Trial of a gateway: quiet windows, attacks three times each, and what a victim and the process show of them."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psutil

from security.counts import Counts
from testkit import processes
from testkit.emulator import Emulator
from testkit.proxies import proxy
from testkit.tenants import TenantsFile
from testkit.tokens import TokenIssuer

MAX_RATIO: Final = 2.0
MAX_GROWTH_BYTES: Final = 24 * 1024 * 1024
"""Memory that may be kept from one repetition to the next; allocators keep some of what was freed."""
MAX_LOG_LINES: Final = 200
_SAMPLE_S: Final = 0.05
_REST_S: Final = 1.0
_VICTIM_READY_S: Final = 3.0
_FEW_DESCRIPTORS: Final = 8
_MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Attack and the bounds within which the gateway has to stay."""

    name: str
    """`module.function` below `security.attacks`."""
    max_memory_bytes: int = 256 * _MB
    """Most memory that the process may hold at the worst moment."""
    outcomes: tuple[str, ...] = ()
    """Reasons of refusals, of which the attacker must have counted one; empty for floods that are ignored."""
    settings: tuple[tuple[str, object], ...] = ()
    """Settings of the gateway that are not the defaults."""
    authenticates: bool = False
    """True for a gateway that asks for credentials; the victim has one."""
    behind_envoy: bool = False
    """True for an attack that is sent through Envoy, as the victim's calls are."""
    at_metrics: bool = False
    """True for an attack on the port of metrics."""
    in_short: bool = False
    """True for an attack that CI tries in each run."""
    leaves_to_proxy: bool = False
    """True for a flood of calls of one peer, which a proxy limits: calls of others may wait or be refused."""

    @property
    def title(self) -> str:
        """Name of the attack and of the way that it takes."""
        return f"{self.name} behind Envoy" if self.behind_envoy else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Figures of an attack."""

    attack: Attack
    underruns: int
    failures: tuple[str, ...]
    """Calls and utterances of the victim that failed."""
    judges_latency: bool
    quiet_p99_s: float
    attacked_p99_s: float
    elsewhere_p99_s: float | None
    """Figure while the same attack goes to another gateway on this machine: the part of the processors' time that
    attacker and attacked take. It is judged by nothing. None where it was not measured."""
    base_bytes: int
    peak_bytes: int
    after_bytes: tuple[int, ...]
    """Memory after each repetition."""
    descriptors_left: int
    """Descriptors that are open at the end beyond those before."""
    tracebacks: int
    log_lines: int
    counts: Counts

    @property
    def ratio(self) -> float:
        """Times by which a call's p99 is higher during the attack."""
        return self.attacked_p99_s / self.quiet_p99_s

    @property
    def _elsewhere(self) -> str:
        if self.elsewhere_p99_s is None:
            return ""
        return f"; {self.elsewhere_p99_s / self.quiet_p99_s:.2f} x while another gateway is attacked"

    def problems(self) -> list[str]:
        """Return what is out of bounds."""
        grown = self.after_bytes[-1] - self.after_bytes[0]
        calls = [one for one in self.failures if one.startswith("probe")]
        sessions = [one for one in self.failures if not one.startswith("probe")]
        is_judged = self.judges_latency and not self.attack.leaves_to_proxy
        refused = any(self.counts.outcomes[one] for one in self.attack.outcomes)
        found = [
            (self.underruns > 0, f"{self.underruns} underruns"),
            (bool(sessions), f"{len(sessions)} failed, such as {sessions[:1]}"),
            (bool(calls) and not self.attack.leaves_to_proxy, f"{len(calls)} calls failed, such as {calls[:1]}"),
            (self.ratio > MAX_RATIO and is_judged, f"p99 {self.ratio:.1f} x{self._elsewhere}"),
            (self.peak_bytes > self.attack.max_memory_bytes, f"peak {self.peak_bytes // _MB} MB"),
            (grown > MAX_GROWTH_BYTES, f"{grown // _MB} MB more from the first to the last repetition"),
            (self.descriptors_left > _FEW_DESCRIPTORS, f"{self.descriptors_left} descriptors left open"),
            (self.tracebacks > 0, f"{self.tracebacks} tracebacks"),
            (self.log_lines > MAX_LOG_LINES, f"{self.log_lines} log lines"),
            (bool(self.attack.outcomes) and not refused, f"not refused as {' or '.join(self.attack.outcomes)}"),
        ]
        return [problem for is_out, problem in found if is_out]

    def __str__(self) -> str:
        after = "/".join(str(one // _MB) for one in self.after_bytes)
        return (
            f"{self.underruns} underruns, {len(self.failures)} failed, "
            f"p99 {self.quiet_p99_s * 1e3:.1f} -> {self.attacked_p99_s * 1e3:.1f} ms "
            f"({self.ratio:.2f} x{self._elsewhere}), "
            f"{self.base_bytes // _MB} -> {self.peak_bytes // _MB} MB, then {after}; {self.counts}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Durations of a trial."""

    attack_s: float = 5.0
    quiet_s: float = 3.0
    """Time without an attack before each one."""
    repetitions: int = 3
    judges_latency: bool = True
    """False for a short trial, which has too few calls for a 99th percentile."""


@dataclass(slots=True)
class _Observed:
    """Observations of one attack beside those of its victim."""

    attack: Attack
    base_bytes: int
    lines: int
    tracebacks: int
    descriptors: int
    underruns: int
    peak_bytes: int = 0
    after_bytes: list[int] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


def try_all(attacks: list[Attack], extent: Extent) -> Iterator[Trial]:
    """Try attacks; those with the same settings on the same gateway, with one victim.

    Args:
        attacks: The attacks.
        extent: Durations.
    """
    groups: dict[tuple[object, ...], list[Attack]] = {}
    for attack in attacks:
        groups.setdefault((attack.authenticates, attack.behind_envoy, *attack.settings), []).append(attack)
    for group in groups.values():
        yield from _try_group(group, extent)


def _try_group(attacks: list[Attack], extent: Extent) -> Iterator[Trial]:
    first = attacks[0]
    with (
        _tenants(first) as (credential, settings),
        processes.emulator(concurrency=2000) as emulator,
        processes.gateway(
            emulator.url, max_sessions=100, metrics_port=0, **settings, **dict(first.settings)
        ) as gateway,
        _way(first, gateway.address) as address,
        _elsewhere(first, emulator, extent) as elsewhere,
        _Victim(address, credential) as victim,
    ):
        process = _Process(gateway.process)
        observed = []
        _lower_envoy()
        time.sleep(_VICTIM_READY_S)
        for number, attack in enumerate(attacks):
            seen = _Observed(
                attack,
                base_bytes=process.memory_bytes,
                lines=process.log_lines,
                tracebacks=process.tracebacks,
                descriptors=process.descriptors,
                underruns=_underruns(emulator),
            )
            victim.window("quiet")
            time.sleep(extent.quiet_s)
            if elsewhere:
                victim.window(f"elsewhere {number}")
                _attack(attack.name, elsewhere[attack.at_metrics], extent.attack_s)
                victim.window("rest elsewhere")
                time.sleep(_REST_S)
            with process.peak(seen):
                for _ in range(extent.repetitions):
                    victim.window(f"attack {number}")
                    target = _metrics_address(gateway) if attack.at_metrics else address
                    counted = _attack(attack.name, target, extent.attack_s)
                    seen.counts.sent += counted.sent
                    seen.counts.outcomes += counted.outcomes
                    victim.window(f"rest {number}")
                    time.sleep(_REST_S)
                    _settled(lambda before=seen.base_bytes: process.memory_bytes - before, MAX_GROWTH_BYTES)  # type: ignore[misc]
                    seen.after_bytes.append(process.memory_bytes)
            left = _settled(
                lambda before=seen.descriptors: process.descriptors - before,  # type: ignore[misc]
                _FEW_DESCRIPTORS,
            )
            seen.lines = process.log_lines - seen.lines
            seen.tracebacks = process.tracebacks - seen.tracebacks
            seen.underruns = _underruns(emulator) - seen.underruns
            seen.descriptors = left
            observed.append(seen)
        windows = victim.finish()
    quiet_p99_s = _p99(windows["quiet"]["probes_s"])
    for number, seen in enumerate(observed):
        window = windows[f"attack {number}"]
        yield Trial(
            attack=seen.attack,
            underruns=seen.underruns,
            failures=(*window["failures"], *windows[f"rest {number}"]["failures"]),
            judges_latency=extent.judges_latency,
            quiet_p99_s=quiet_p99_s,
            attacked_p99_s=_p99(window["probes_s"]),
            elsewhere_p99_s=_p99(beside["probes_s"]) if (beside := windows.get(f"elsewhere {number}")) else None,
            base_bytes=seen.base_bytes,
            peak_bytes=seen.peak_bytes,
            after_bytes=tuple(seen.after_bytes),
            descriptors_left=seen.descriptors,
            tracebacks=seen.tracebacks,
            log_lines=seen.lines,
            counts=seen.counts,
        )


class _Process:
    """Gateway's process from outside."""

    def __init__(self, server: processes.Process) -> None:
        self._server = server
        self._process = psutil.Process(server.pid)

    @property
    def memory_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    @property
    def descriptors(self) -> int:
        return int(self._process.num_fds())

    @property
    def log_lines(self) -> int:
        return len(self._server.log.splitlines())

    @property
    def tracebacks(self) -> int:
        return self._server.log.count("Traceback")

    @contextlib.contextmanager
    def peak(self, seen: _Observed) -> Iterator[None]:
        """Note the most memory that the process holds within the block."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(_SAMPLE_S):
                with contextlib.suppress(psutil.Error):
                    seen.peak_bytes = max(seen.peak_bytes, self.memory_bytes)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class _Victim:
    """Victim in a process of its own."""

    def __init__(self, address: str, credential: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "security.victim", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.window(credential)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def window(self, name: str) -> None:
        """Begin a window, or go on with it; the first line is the victim's credential."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n".encode())
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """Stop it; returns its windows."""
        output, _ = self._process.communicate(timeout=60)
        windows: dict[str, Any] = json.loads(output)
        return windows


@contextlib.contextmanager
def _tenants(attack: Attack) -> Iterator[tuple[str, dict[str, object]]]:
    """Make a victim's credential, and the settings of a gateway that knows it; empty without authentication."""
    if not attack.authenticates:
        yield "", {}
        return
    with tempfile.TemporaryDirectory() as folder:
        issuer = TokenIssuer()
        Path(folder, "jwks.json").write_bytes(issuer.jwks)
        file = TenantsFile(Path(folder, "tenants.toml"))
        file.tenant("victim")
        file.issuer(
            issuer=issuer.name,
            audience=["gateway"],
            algorithms=["ES256"],
            jwks_file=f"{folder}/jwks.json",
            tenant_claim="tenant",
            tenants=["*"],
            roles=["open", "speak"],
            roles_claim="roles",
        )
        yield file.key("victim"), {"auth_file": file.path}


@contextlib.contextmanager
def _elsewhere(attack: Attack, emulator: Emulator, extent: Extent) -> Iterator[tuple[str, ...]]:
    """Run another gateway, which is attacked for comparison; yields its ports, for calls and for metrics."""
    if not extent.judges_latency or attack.behind_envoy or attack.authenticates:
        yield ()
        return
    with processes.gateway(emulator.url, max_sessions=100, metrics_port=0, **dict(attack.settings)) as gateway:
        yield gateway.address, _metrics_address(gateway)


def _metrics_address(gateway: processes.Gateway) -> str:
    assert gateway.metrics is not None
    return urlsplit(gateway.metrics).netloc


def _way(attack: Attack, address: str) -> contextlib.AbstractContextManager[str]:
    """Run what stands before the gateway; attacker and victim both go through it."""
    return proxy("envoy", address) if attack.behind_envoy else contextlib.nullcontext(address)


def _attack(name: str, address: str, seconds: float) -> Counts:
    module, _, function = name.rpartition(".")
    words = [sys.executable, "-m", "security.attacker", module, function, address, str(seconds)]
    done = subprocess.run(
        words, stdout=subprocess.PIPE, check=True, timeout=seconds + 60, preexec_fn=_yield_to_others
    )
    return Counts.loads(done.stdout.decode())


def _yield_to_others() -> None:
    """Give an attacker, whose machine is not the victim's, the time that all others leave over."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _lower_envoy() -> None:
    """Let Envoy, which has a machine of its own elsewhere, not take the time of the victim."""
    for child in psutil.Process().children(recursive=True):
        if child.name() == "envoy":
            child.nice(os.getpriority(os.PRIO_PROCESS, 0) + 5)


def _underruns(emulator: Emulator) -> int:
    return sum(one["underruns"] for one in emulator.sessions())


def _settled(measure: Callable[[], int], most: int, within_s: float = 20.0) -> int:
    """Return the measure when it is at most `most`, or its last value."""
    give_up_s = time.monotonic() + within_s
    while (value := measure()) > most and time.monotonic() < give_up_s:
        time.sleep(0.2)
    return value


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
