"""`liveavatar-gateway pool simulate` and `pool trace`: waits, refusals and credits of a day, before it comes."""

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from liveavatar_gateway.cli.output import fail, print_json, print_line
from liveavatar_gateway.cli.pool_plot import plot as draw
from liveavatar_gateway.cli.show import print_table
from liveavatar_gateway.pool.account_limits import AccountLimit
from liveavatar_gateway.pool.durations import Durations
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.pool.simulation_result import SimulationResult, TenantResult, percentile
from liveavatar_gateway.pool.simulator import SimulatedProfile, SimulationConfig, Simulator
from liveavatar_gateway.pool.trace import Arrival, TraceError, read_trace, write_trace
from liveavatar_gateway.pool.traffic_shapes import SHAPES, arrivals
from liveavatar_gateway.pool.warm_policy import DAY_S, HOUR_S, DayWindow, WarmMode, WarmProfile, credits_per_hour

MAX_BYTES: Final = 32_000_000
"""Size of the largest trace or file of durations."""
MAX_SESSIONS: Final = 10_000
"""Most sessions of one account."""
_MAX_LIST: Final = 100
_MAX_VALUES: Final = 100_000
_EX_USAGE: Final = 2
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CLOCK: Final = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)", re.ASCII)

_Reader = Callable[[str], Any]


def _reads(read: _Reader) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that reads an option's text, or each text of an option that is repeated."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:  # noqa: ARG001 - click's
        try:
            return tuple(map(read, value)) if isinstance(value, tuple) else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def _number(least: float, most: float, *, whole: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{text[:40]!r} is not {kind} between {least:g} and {most:g}")
        return value

    return read


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no name; letters, digits, '.', '_' and '-', at most 64")
    return text


def _time_of_day_s(text: str) -> float:
    match = _CLOCK.fullmatch(text)
    at_s = int(match[1]) * 3600 + int(match[2]) * 60 if match else DAY_S + 1
    if at_s > DAY_S:
        raise ValueError(f"{text[:40]!r} is no time of day, as in 07:30")
    return float(at_s)


def _hours(text: str) -> tuple[DayWindow, ...]:
    windows = []
    for part in text.split("+"):
        begin, dash, end = part.partition("-")
        if not dash:
            raise ValueError(f"{part[:40]!r} is no part of a day, as in 07:00-19:00")
        windows.append(DayWindow(from_s=_time_of_day_s(begin), until_s=_time_of_day_s(end)))
    return tuple(windows)


def _names(text: str) -> tuple[str, ...]:
    return tuple(_name(part) for part in text.split("+"))


def _mode(text: str) -> WarmMode:
    try:
        return WarmMode(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is neither 'fixed' nor 'learnt'") from None


_PROFILE: Final[Mapping[str, tuple[str, _Reader]]] = {
    "min": ("minimum", _number(0, 1000, whole=True)),
    "max": ("maximum", _number(0, 1000, whole=True)),
    "mode": ("mode", _mode),
    "max_idle": ("max_idle_s", _number(1, 3600)),
    "min_remaining": ("min_remaining_s", _number(0, 86400)),
    "max_credits_per_hour": ("max_credits_per_hour", _number(0, 1e6)),
    "credits_per_minute": ("credits_per_minute", _number(0, 1000)),
    "hours": ("hours", _hours),
}
_AROUND: Final[Mapping[str, tuple[str, _Reader]]] = {
    "tenants": ("tenants", lambda text: frozenset(_names(text))),
    "accounts": ("accounts", _names),
    "life": ("life_s", _number(10, 86400)),
}
_SHARE: Final[Mapping[str, tuple[str, _Reader]]] = {
    "weight": ("weight", _number(0.001, 1000)),
    "reserved": ("floor", _number(0, MAX_SESSIONS, whole=True)),
    "ceiling": ("ceiling", _number(1, MAX_SESSIONS, whole=True)),
    "max_waiting": ("max_waiting", _number(0, 100_000, whole=True)),
}


def _fields(parts: Iterable[str], known: Mapping[str, tuple[str, _Reader]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        key, sign, text = part.partition("=")
        if not sign or key not in known:
            raise ValueError(f"{part[:60]!r} is none of {', '.join(f'{name}=...' for name in known)}")
        name, read = known[key]
        if name in found:
            raise ValueError(f"{key!r} is given twice")
        try:
            found[name] = read(text)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return found


def _account(text: str) -> AccountLimit:
    name, sign, limit = text.rpartition("=")
    return AccountLimit(
        name=_name(name) if sign else "main", limit=int(_number(1, MAX_SESSIONS, whole=True)(limit))
    )


def _tenant(text: str) -> tuple[str, TenantShare]:
    name, *parts = text.split(",")
    return _name(name), TenantShare(**_fields(parts, _SHARE))


def _profile(text: str) -> SimulatedProfile:
    name, *parts = text.split(",")
    fields = _fields(parts, {**_PROFILE, **_AROUND})
    around = {field: fields.pop(field) for field, _ in _AROUND.values() if field in fields}
    minimum = fields.get("minimum", 0)
    fields.setdefault("maximum", max(1, minimum))
    if minimum > fields["maximum"]:
        raise ValueError(f"min={minimum} is above max={fields['maximum']}")
    return SimulatedProfile(profile=WarmProfile(name=_name(name), **fields), **around)


def _durations(text: str) -> Durations:
    if not text.startswith("@"):
        return Durations.parse(text)
    lines = _read(Path(text[1:])).split()
    if len(lines) > _MAX_VALUES:
        raise ValueError(f"{text[1:]} has more than {_MAX_VALUES} values")
    read = _number(0, 3600)
    return Durations.measured([read(line) for line in lines])


def _pool_file(
    path: Path,
) -> tuple[tuple[AccountLimit, ...], dict[str, frozenset[str]], tuple[SimulatedProfile, ...]]:
    """Return the accounts of a file, the cheapest first, their tenants, and the profiles."""
    from liveavatar_gateway.config import pool_file  # noqa: PLC0415 - keeps `--help` fast
    from liveavatar_gateway.pool.account_health import AccountState  # noqa: PLC0415

    try:
        file = pool_file.parse(_read(path).encode())
    except ValueError as error:
        fail(f"{path}: {error}" if isinstance(error, pool_file.UnusablePoolFile) else str(error), _EX_USAGE)
    accounts = sorted(file.accounts.items(), key=lambda item: item[1].cost)
    limits = tuple(
        AccountLimit(name=name, limit=entry.max_sessions, usable=entry.state is AccountState.ACTIVE)
        for name, entry in accounts
    )
    tenants_of = {name: frozenset(entry.tenants) for name, entry in accounts if entry.tenants is not None}
    profiles = tuple(
        SimulatedProfile(
            profile=profile.policy(name),
            tenants=frozenset(profile.tenants or ()),
            accounts=tuple(
                account
                for account, entry in accounts
                if profile.may_run_on(account, tenants=entry.tenants, avatars=entry.avatars)
            ),
            life_s=profile.max_duration_s,
        )
        for name, profile in file.profiles.items()
    )
    return limits, tenants_of, profiles


def _read(path: Path) -> str:
    """Return the text of a file, within bounds.

    Raises:
        ValueError: the file cannot be read, is too large, or no text.
    """
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None


def _unique(names: Iterable[str], option: str) -> None:
    names = list(names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{option} names {twice!r} twice")
    if len(names) > _MAX_LIST:
        raise click.UsageError(f"{option} is given {len(names)} times; at most {_MAX_LIST}")


_simulated = click.option(
    "--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="Same seed, same result."
)


@click.command()
@click.argument("trace", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option(
    "--account",
    "accounts",
    callback=_reads(_account),
    metavar="[NAME=]N",
    multiple=True,
    help="Account with N concurrent sessions; repeat for several.",
)
@click.option(
    "--pool-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Accounts and profiles as in GATEWAY_POOL_FILE, in place of --account. Keys are not read.",
)
@click.option(
    "--tenant",
    "tenants",
    callback=_reads(_tenant),
    metavar="NAME[,...]",
    multiple=True,
    help="Share of a tenant: weight=, reserved=, ceiling=, max_waiting=.  [default: equal shares]",
)
@click.option(
    "--profile",
    "profiles",
    callback=_reads(_profile),
    metavar="NAME[,...]",
    multiple=True,
    help="Warm sessions: min=, max=, mode=fixed|learnt, max_idle=, min_remaining=, max_credits_per_hour=, "
    "credits_per_minute=, hours=, tenants=, accounts=, life=.  [default: none]",
)
@click.option(
    "--opening",
    callback=_reads(_durations),
    metavar="SECONDS",
    default="2.5..4.7",
    show_default=True,
    help="Time to open a session: a constant, a range, or @FILE with measured values.",
)
@click.option(
    "--release",
    callback=_reads(_durations),
    metavar="SECONDS",
    default="1",
    show_default=True,
    help="Time from the end of a session until LiveAvatar has freed it.",
)
@click.option(
    "--wait",
    "wait_s",
    callback=_reads(_number(0, 86400)),
    metavar="SECONDS",
    default="30",
    show_default=True,
    help="Longest wait of callers without max_wait, as GATEWAY_WAIT_S.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="Size of the queue, as GATEWAY_MAX_WAITING.",
)
@click.option(
    "--begins-at",
    "begins_at_s",
    callback=_reads(_time_of_day_s),
    metavar="HH:MM",
    default="00:00",
    show_default=True,
    help="Time of day at which the trace's time is 0; for hours= of profiles.",
)
@_simulated
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Draw an SVG file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with slots over time.")
def simulate(
    *,
    trace: Path,
    accounts: tuple[AccountLimit, ...],
    pool_file: Path | None,
    tenants: tuple[tuple[str, TenantShare], ...],
    profiles: tuple[SimulatedProfile, ...],
    opening: Durations,
    release: Durations,
    wait_s: float,
    max_waiting: int,
    begins_at_s: float,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Simulate the callers of TRACE: waits, refusals, credits, use of slots.

    The simulator runs the gateway's own decisions (queue, fair order, warm sessions) over simulated time, so that
    a day takes seconds, costs nothing and needs neither a gateway nor an account.

    TRACE is a CSV file, or - for standard input. Its first line names the columns: time, tenant, duration and, if
    wanted, max_wait. Times are seconds or hours:minutes[:seconds]; a duration counts from the moment the session
    is ready. `liveavatar-gateway pool trace` makes examples.

    \b
      time,tenant,duration,max_wait
      08:30,acme,180,
      08:30:05,zoo,95.5,20

    \b
    How many sessions does the account need?
      pool simulate day.csv --account 10
      pool simulate day.csv --account 20
    Two accounts, and a tenant with thrice the share of the others:
      pool simulate day.csv --account main=25 --account spare=25 --tenant acme,weight=3
    Do warm sessions pay? The last table compares with none:
      pool simulate day.csv --account 25 --begins-at 00:00 \\
        --profile desk,mode=learnt,min=0,max=5,hours=07:00-19:00,max_credits_per_hour=200
    """  # noqa: D301 - \b keeps click from wrapping
    if bool(accounts) == (pool_file is not None):
        raise click.UsageError("name the accounts: either --account [NAME=]N, once or more often, or --pool-file")
    tenants_of: dict[str, frozenset[str]] = {}
    if pool_file is not None:
        accounts, tenants_of, own = _pool_file(pool_file)
        profiles = (*own, *profiles)
    _unique((account.name for account in accounts), "--account")
    _unique((name for name, _ in tenants), "--tenant")
    _unique((one.profile.name for one in profiles), "--profile")
    known = {account.name for account in accounts}
    for one in profiles:
        if unknown := sorted(set(one.accounts) - known):
            raise click.UsageError(f"--profile {one.profile.name} names no account of --account: {unknown[0]!r}")
    try:
        found = read_trace(_read(trace).splitlines())
    except (TraceError, ValueError) as error:
        fail(f"{trace}: {error}" if isinstance(error, TraceError) else str(error), _EX_USAGE)
    config = SimulationConfig(
        accounts=accounts,
        tenants_of=tenants_of,
        shares=Shares(by_tenant=dict(tenants)),
        profiles=profiles,
        opening=opening,
        release=release,
        wait_s=wait_s,
        max_waiting=max_waiting,
        begins_at_s=begins_at_s,
        seed=seed,
    )
    result, cold = _runs(config, found)
    if plot is not None:
        _write(plot, draw(result, title=trace.name, begins_at_s=begins_at_s, before=cold))
    if as_json:
        print_json({**result.as_fields(), "without_warm": None if cold is None else cold.as_fields()})
        return
    _show(result, cold, profiles)
    if plot is not None:
        print_line()
        print_line(f"plot: {plot}")


@click.command()
@click.argument("shape", type=click.Choice(list(SHAPES)))
@_simulated
def trace(shape: str, seed: int) -> None:
    """Print an example trace for `pool simulate`.

    \b
    steady    four hours, a caller every 30 seconds on average: a help desk
    morning   seven to noon, from nobody to a caller every 12 seconds and back: a front desk
    lessons   four hours, 20 callers within 100 seconds each half hour and few between: a school
    """  # noqa: D301 - \b keeps click from wrapping
    for line in write_trace(arrivals(SHAPES[shape], seed)):
        print_line(line.rstrip())


def _runs(config: SimulationConfig, found: list[Arrival]) -> tuple[SimulationResult, SimulationResult | None]:
    """Return the simulation, and another one without warm sessions if it has any."""
    result = Simulator(config, found).run()
    return result, Simulator(replace(config, profiles=()), found).run() if config.profiles else None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def _show(result: SimulationResult, cold: SimulationResult | None, profiles: tuple[SimulatedProfile, ...]) -> None:
    headings = ("tenant", "callers", "served", "warm", "refused", "wait p50", "p95", "max", "open p50", "p95")
    rows = [_row(name, one) for name, one in sorted(result.tenants.items())]
    if len(rows) > 1:
        rows.append(_row("all", result.total))
    print_table((*headings, "slot hours", "credits"), rows)
    print_line()
    print_line(
        f"{result.slot_use:.0%} of {result.slots} slots used by callers over {_time(result.seconds)}; "
        f"{result.credits:.0f} credits in all"
    )
    if cold is None:
        return
    print_line()
    print_table(
        ("profile", "started", "taken", "most", "idle each", "credits", "credits/h", "credits/h unused"),
        [
            (
                one.profile.name,
                str(warm.started),
                str(warm.taken),
                str(warm.most),
                _seconds(warm.idle_s / warm.started if warm.started else math.nan),
                f"{warm.credits:.1f}",
                f"{warm.credits * HOUR_S / result.seconds:.1f}" if result.seconds else "-",
                f"{credits_per_hour(one.profile):.1f}",
            )
            for one in profiles
            for warm in (result.warm[one.profile.name],)
        ],
    )
    print_line()
    print_table(
        ("warm sessions", "open p50", "p95", "mean", "refused", "credits"),
        [_compared("with", result), _compared("without", cold)],
    )
    saved_s = sum(cold.total.openings_s) - sum(result.total.openings_s)
    extra = result.credits - cold.credits
    print_line()
    print_line(f"Callers waited {_time(saved_s)} less in all, for {extra:.0f} more credits.")


def _row(name: str, one: TenantResult) -> tuple[str, ...]:
    return (
        name,
        str(one.arrivals),
        str(one.served),
        str(one.served_warm),
        str(one.refused.total()),
        *(_seconds(percentile(one.waits_s, percent)) for percent in (50, 95, 100)),
        *(_seconds(percentile(one.openings_s, percent)) for percent in (50, 95)),
        f"{one.slot_s / HOUR_S:.2f}",
        f"{one.credits:.1f}",
    )


def _compared(name: str, result: SimulationResult) -> tuple[str, ...]:
    opened_s = result.total.openings_s
    return (
        name,
        _seconds(percentile(opened_s, 50)),
        _seconds(percentile(opened_s, 95)),
        _seconds(sum(opened_s) / len(opened_s) if opened_s else math.nan),
        str(result.total.refused.total()),
        f"{result.credits:.1f}",
    )


def _seconds(value_s: float) -> str:
    return "-" if math.isnan(value_s) else f"{value_s:.1f} s"


def _time(value_s: float) -> str:
    if abs(value_s) < 120:
        return f"{value_s:.0f} s"
    return f"{value_s / 60:.0f} min" if abs(value_s) < 7200 else f"{value_s / 3600:.1f} h"
