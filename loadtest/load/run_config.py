"""Configuration and report of one Locust run: the seam between the command line and the generator.

The command line writes a `RunConfig` into the environment (`LOAD_*`), starts `locust -f loadtest/locustfile.py`,
and reads a `Report` when that has ended. A locust started by hand, as master or worker on other machines, takes
the same variables. Anything not given has its default here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

from load.figures import Recorder

PREFIX: Final = "LOAD_"


class InvalidRunConfig(ValueError):
    """A variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of a run. Each field is a variable `LOAD_<FIELD>`; an empty or missing one means the default."""

    scenario: str = "ci"
    """Name of a scenario: which users, in which mix, on which schedule."""
    target: str = "127.0.0.1:50051"
    """The gateway, `host:port`."""
    emulator: str = ""
    """Base URL of the emulator behind the gateway, for `Direct`, for recordings and for integrity. Empty:
    no emulator can be reached, so integrity is not checked and there are no direct users."""
    emulator_token_file: str = ""
    """File with the emulator's control token. Empty: none, for an emulator on loopback."""
    api_key: str = "emulator-key"
    """API key that the emulator takes from `Direct`."""
    key_files: str = ""
    """Files with API keys of the gateway, separated as in PATH; users are spread over them. Empty: none."""
    one_clock: bool = False
    """True if generator and emulator run on one machine, so that their monotonic clocks are one."""
    users: int = 0
    """In-flight cap; 0 takes the scenario's own. Given without a rate, arrivals keep four in five of them busy."""
    seconds: float = 0.0
    """Length of the arrivals; 0 takes the scenario's own. A drain follows in which what was begun ends."""
    rate: float = 0.0
    """Arrivals per second; 0 takes the scenario's own. What the knee finder turns."""
    chunk_ms: int = 0
    """Chunk size of callers; 0 takes the scenario's own."""
    streams_per_connection: int = 1
    """Users that share a connection to the gateway. 1 is like separate callers, more like a media server that
    multiplexes its calls."""
    seed: int = 1
    """Seed of arrivals, texts, pauses: the same seed gives the same schedule."""
    faults: str = ""
    """TOML file with the timeline of faults, so that the errors it provokes are told apart. Empty: none."""
    report: str = "out/load/measured.json"
    """Path of the `Report` that the master, or the only process, writes."""

    def to_environment(self) -> dict[str, str]:
        """Return the settings as variables."""
        return {f"{PREFIX}{one.name.upper()}": _written(getattr(self, one.name)) for one in fields(self)}

    def control_token(self) -> str:
        """Return the emulator's control token; empty if none is configured.

        Raises:
            InvalidRunConfig: the file cannot be read.
        """
        if not self.emulator_token_file:
            return ""
        try:
            return Path(self.emulator_token_file).read_text().strip()
        except OSError as error:
            raise InvalidRunConfig(
                f"LOAD_EMULATOR_TOKEN_FILE: {self.emulator_token_file} cannot be read: {error.strerror}"
            ) from None

    def at(self, target: str) -> Self:
        """Return the same settings for another gateway."""
        return replace(self, target=target)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the variables of `to_environment`.

        Raises:
            InvalidRunConfig: a value is not of its field's type.
        """
        given: dict[str, Any] = {}
        for one in fields(cls):
            name = f"{PREFIX}{one.name.upper()}"
            if text := environment.get(name, "").strip():
                given[one.name] = _read(name, text, one.type)
        return cls(**given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The schedule's zero, told when it begins: beside it the timeline of faults is played."""

    started_at: str
    """UTC, ISO 8601."""
    started_mono_s: float
    """The same moment on the monotonic clock of the master's machine."""
    seconds: float
    """Length of the arrivals."""

    def save(self, config: RunConfig) -> None:
        """Write it beside where the report will be."""
        _write(self.path(config), asdict(self))

    @classmethod
    def load(cls, config: RunConfig) -> Self | None:
        """Read it; None when nothing has begun."""
        path = cls.path(config)
        return cls(**json.loads(path.read_text())) if path.exists() else None

    @staticmethod
    def path(config: RunConfig) -> Path:
        """Return the path of the file."""
        report = Path(config.report)
        return report.with_name(f"{report.stem}.began.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Measurements of all generator processes together."""

    measured: Recorder
    started_at: str
    """UTC, ISO 8601: the schedule's zero."""
    started_mono_s: float
    """The same moment on the monotonic clock of the master's machine."""
    duration_s: float
    """From there to the end of the drain."""
    lag_p99_ms: float
    """Lateness of the worst process's event loop."""
    lag_max_ms: float
    cpu_share: float
    """Share of one core that the busiest process took, 0 to 1."""
    workers: int = 1
    """Processes that generated load."""

    def save(self, path: Path) -> None:
        """Write it."""
        row = {
            one.name: getattr(self, one.name) if one.name != "measured" else self.measured.to_json()
            for one in fields(self)
        }
        _write(path, row)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it."""
        row = json.loads(path.read_text())
        row["measured"] = Recorder.from_json(row["measured"])
        return cls(**row)


def discard_previous(config: RunConfig) -> None:
    """Remove the files of an earlier run that would be taken for those of this one."""
    for path in (Began.path(config), Path(config.report)):
        path.unlink(missing_ok=True)


def _write(path: Path, row: dict[str, Any]) -> None:
    """Write a file under another name first, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_text(json.dumps(row))
    draft.replace(path)


def _written(value: str | float | bool) -> str:  # noqa: FBT001 - a value, not a switch
    return str(int(value)) if isinstance(value, bool) else str(value)


def _read(name: str, text: str, kind: Any) -> str | int | float | bool:
    try:
        if kind is bool:
            return _SWITCHES[text.lower()]
        return str(text) if kind is str else int(text) if kind is int else float(text)
    except (ValueError, KeyError):
        wanted = {bool: "1 or 0", int: "a whole number", float: "a number"}[kind]
        raise InvalidRunConfig(f"{name} is {text!r}; it must be {wanted}") from None


_SWITCHES: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
