"""Result of a run: a JSON file that verdict, reports and comparisons read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from liveavatar_gateway.escaping import escaped
from load.figures import Recorder


class NoResult(ValueError):
    """A file that is no result of a run; the message names it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway's process at one moment; seconds since the run's start, bytes."""

    at_s: float
    cpu_s: float
    """CPU time since its start."""
    rss_bytes: int
    threads: int
    open_files: int
    talking: int
    """Sessions whose avatar talked at that moment, as the emulator says."""
    tasks: int | None = None
    """Tasks of the gateway's event loop; None when it was not asked just then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorHealth:
    """Health of the generator; the worst process counts."""

    lag_p99_ms: float
    """Lateness of its event loop."""
    lag_max_ms: float
    cpu_share: float
    """Share of one core that the busiest generator process took."""
    core_steal: float
    """Share of the machine's time that the hypervisor gave to others during the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorCost:
    """Cost of speech at a bare server on the gateway's core, during the run."""

    cpu_s: float
    audio_s: float

    @property
    def ms_per_audio_s(self) -> float | None:
        """CPU milliseconds per second of audio; None before any audio."""
        return 1000 * self.cpu_s / self.audio_s if self.audio_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Result of a run of a scenario."""

    scenario: str
    target: str
    """Address of the gateway."""
    embedded: bool
    """True if gateway and emulator were started for the run, so that all clocks are one."""
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float
    measured: Recorder
    generator: GeneratorHealth
    samples: list[Sample] = field(default_factory=list)
    """Empty when the gateway is not on this machine."""
    left_upstream: int | None = None
    """Sessions still active upstream after the run and a short grace; None when there was no emulator to ask."""
    floor: FloorCost | None = None
    """None when no floor ran beside the gateway."""
    faults: list[dict[str, Any]] = field(default_factory=list)
    """The timeline that was played: {"at_s", "what"}."""
    noisy: list[tuple[float, float]] = field(default_factory=list)
    """Windows in which another tenant flooded the gateway: begin and end, seconds since the run's start."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions, machine and settings, to repeat the run. No secrets."""

    def save(self, path: Path) -> None:
        """Write it."""
        row = {
            **{
                name: getattr(self, name)
                for name in self.__dataclass_fields__
                if name not in {"measured", "generator", "samples", "floor"}
            },
            "measured": self.measured.to_json(),
            "generator": asdict(self.generator),
            "samples": [asdict(sample) for sample in self.samples],
            "floor": None if self.floor is None else asdict(self.floor),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row, indent=1))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            NoResult: the file is something else, or of another version of the suite.
        """
        try:
            row = _escaped(json.loads(path.read_text()))
            row["measured"] = Recorder.from_json(row["measured"])
            row["generator"] = GeneratorHealth(**row["generator"])
            row["samples"] = [Sample(**sample) for sample in row["samples"]]
            row["floor"] = FloorCost(**row["floor"]) if row.get("floor") else None
            row["noisy"] = [(from_s, to_s) for from_s, to_s in row.get("noisy", ())]
            return cls(**row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NoResult(
                f"{path} is no result of a run, or one of another version ({type(error).__name__}: {error}); "
                "give the result.json that `run` left"
            ) from error


def _escaped(value: Any) -> Any:
    """Escape the texts of a file, which may come from another machine."""
    match value:
        case str():
            return escaped(value)
        case list():
            return [_escaped(one) for one in value]
        case dict():
            return {escaped(name): _escaped(one) for name, one in value.items()}
        case _:
            return value
