"""Result of a run: a JSON file that verdict, reports and comparisons read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

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
    faults: list[dict[str, Any]] = field(default_factory=list)
    """The timeline that was played: {"at_s", "what"}."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions, machine and settings, to repeat the run. No secrets."""

    def save(self, path: Path) -> None:
        """Write it."""
        row = {
            **{
                name: getattr(self, name)
                for name in self.__dataclass_fields__
                if name not in {"measured", "generator", "samples"}
            },
            "measured": self.measured.to_json(),
            "generator": asdict(self.generator),
            "samples": [asdict(sample) for sample in self.samples],
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
            row = json.loads(path.read_text())
            row["measured"] = Recorder.from_json(row["measured"])
            row["generator"] = GeneratorHealth(**row["generator"])
            row["samples"] = [Sample(**sample) for sample in row["samples"]]
            return cls(**row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NoResult(
                f"{path} is no result of a run, or one of another version ({type(error).__name__}: {error}); "
                "give the result.json that `run` left"
            ) from error
