"""Scenario file: knobs, a timeline, and actions on sessions. Parsing and checks only; pure.

[settings]                       knobs
[[at]]   seconds = 5 ...         an action at a time
[[when]] session = 1 ...         an action on a session, after some audio or time
"""

import difflib
import re
import tomllib
from typing import Any

from pydantic import Field, ValidationError, model_validator

from liveavatar_emulator.account import EndReason
from liveavatar_emulator.config import InvalidSetting, Settings, UnknownSetting, changed, check_room_clock
from liveavatar_emulator.faults import Fault, Part, RestFault, Selector, Trigger

_YEAR_S = 31_622_400


class BadScenario(ValueError):
    """A scenario that cannot be run; the message names the entry, its line, and the correction."""


class Restart(Part):
    """Restart of the whole service: every connection is reset, and the port refuses new ones for a while."""

    down_s: float = Field(default=0, ge=0, le=86_400)
    """Time during which no client can connect."""
    keep_sessions: bool = True
    """True lets sessions live on. Otherwise they end with SERVER_ERROR, and tokens not yet started are lost."""


class End(Part):
    """End of sessions on behalf of the service."""

    session: Selector | None = None
    """Selected sessions; in `[[when]]` the entry's own session."""
    reason: EndReason = "SERVER_ERROR"


class Action(Part):
    """Action of an entry: exactly one of the four."""

    fault: Fault | None = None
    settings: dict[str, Any] | None = None
    restart: Restart | None = None
    end: End | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Action":
        named = [name for name in ("fault", "settings", "restart", "end") if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"needs exactly one of fault, settings, restart, end; has {' and '.join(named) or 'none'}"
            )
        if self.settings is not None:
            _check_settings(self.settings)
        return self


class At(Action):
    """Entry of the timeline, executed once or repeatedly."""

    seconds: float = Field(ge=0, le=_YEAR_S)
    """Emulator seconds since the start of the scenario."""
    every_seconds: float | None = Field(default=None, ge=0.001, le=_YEAR_S)
    """Period of repetition, `times` times in all, or without end."""
    times: int | None = Field(default=None, ge=1, le=1_000_000)
    jitter_s: float = Field(default=0, ge=0, le=86_400)
    """Additional random delay of each run up to this value."""

    @model_validator(mode="after")
    def _complete(self) -> "At":
        if self.times is not None and self.every_seconds is None:
            raise ValueError("times needs every_seconds")
        if self.fault is not None and not isinstance(self.fault, RestFault) and self.fault.session is None:
            raise ValueError("fault: session is missing: a number, an id, next, all or random")
        if self.end is not None and self.end.session is None:
            raise ValueError("end: session is missing: a number, an id, all or random")
        if self.end is not None and self.end.session == "next":
            raise ValueError("end: a future session cannot be ended; use [[when]]")
        return self


class When(Trigger, Action):
    """Action on a session: at its start, or after some audio or time."""

    session: int | str = "all"
    """The n-th session started, or `all`."""
    jitter_s: float = Field(default=0, ge=0, le=86_400)
    """Additional random delay up to this value."""

    @model_validator(mode="after")
    def _complete(self) -> "When":
        if not (self.session == "all" or (isinstance(self.session, int) and self.session >= 1)):
            raise ValueError(f'session: the number of a session from 1 on, or "all", not {self.session!r}')
        if self.at_once and self.times > 1:
            raise ValueError("times needs after_bytes, after_packets or after_s, to separate the runs")
        fault = self.fault
        if (
            fault is not None
            and not isinstance(fault, RestFault)
            and (fault.session is not None or not fault.at_once)
        ):
            raise ValueError("fault: session and after_... belong to the [[when]] entry itself")
        if self.end is not None and self.end.session is not None:
            raise ValueError("end: session belongs to the [[when]] entry itself")
        return self


class Scenario(Part):
    """A whole scenario file."""

    settings: dict[str, Any] = Field(default_factory=dict)
    at: tuple[At, ...] = ()
    when: tuple[When, ...] = ()


def parse(text: str) -> Scenario:
    """Parse and check a scenario.

    Raises:
        BadScenario: not TOML, an unknown key or knob, a value out of range, or an entry without an action.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"not TOML: {error}") from error
    for name in data:
        if name not in Scenario.model_fields:
            close = difflib.get_close_matches(name, Scenario.model_fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "there are [settings], [[at]] and [[when]]"
            raise BadScenario(f"unknown table {name!r}; {hint}")
    try:
        scenario = Scenario.model_validate(data)
        _check_settings(scenario.settings)
    except ValidationError as error:
        raise BadScenario(_explained(error, text)) from error
    except ValueError as error:
        raise BadScenario(f"[settings]: {error}") from error
    return scenario


def check_rooms(scenario: Scenario) -> None:
    """Refuse a scenario that changes the speed of playback, which rooms cannot follow.

    Raises:
        BadScenario: an entry changes the speed.
    """
    entries: list[tuple[str, dict[str, Any]]] = [("[settings]", scenario.settings)]
    entries += [(f"[[at]] entry {n}", at.settings or {}) for n, at in enumerate(scenario.at, 1)]
    entries += [(f"[[when]] entry {n}", when.settings or {}) for n, when in enumerate(scenario.when, 1)]
    for where, changes in entries:
        try:
            check_room_clock(changed(Settings(), changes))
        except InvalidSetting as error:
            raise BadScenario(f"{where}: {error}") from error


def _check_settings(changes: dict[str, Any]) -> None:
    try:
        changed(Settings(), changes)
    except (UnknownSetting, InvalidSetting) as error:
        raise ValueError(str(error)) from error


def _explained(error: ValidationError, text: str) -> str:
    """Return the first problem with its position in the file."""
    problem = error.errors(include_url=False)[0]
    path = [part for part in problem["loc"] if part not in _TAGS]
    message = str(problem["msg"]).removeprefix("Value error, ")
    where = ""
    if len(path) >= 2 and path[0] in ("at", "when") and isinstance(path[1], int):
        table, index = str(path[0]), path[1]
        headers = [
            number
            for number, line in enumerate(text.splitlines(), 1)
            if re.match(rf"\s*\[\[\s*{table}\s*\]\]", line)
        ]
        line = f" (line {headers[index]})" if index < len(headers) else ""
        where = f"[[{table}]] entry {index + 1}{line}: "
        path = path[2:]
    elif path:
        where = f"[{path[0]}]: "
        path = path[1:]
    key = ".".join(str(part) for part in path)
    return f"{where}{key + ': ' if key else ''}{message}"


_TAGS = frozenset(
    (
        "rest",
        "drop",
        "stop_reading",
        "slow_reading",
        "delay_acks",
        "swallow_acks",
        "shuffle_events",
        "refuse_sockets",
        "never_connected",
    )
)
