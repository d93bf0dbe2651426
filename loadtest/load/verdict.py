"""Verdict on a run: pass, fail or void, with reasons. Values only, for reports and machines."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Status = Literal["held", "broken", "void", "skipped"]
"""Status of an objective. void: it should have been judged and could not be. skipped: it does not apply here."""

Result = Literal["pass", "fail", "void"]
EXIT_CODES: Final[dict[Result, int]] = {"pass": 0, "fail": 1, "void": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Objective with its status."""

    objective: str
    kind: str
    why: str
    status: Status
    message: str
    """Names the figure, its value and the limit."""
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    figure: str = ""
    """The figure it speaks of, if it is one."""
    percentile: float | None = None
    """The percentile of the figure that was judged, 0 to 100, for objectives of kind latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Verdict on a run."""

    scenario: str
    outcomes: tuple[Outcome, ...]
    saturated: str = ""
    """Reason why the generator was the bottleneck; empty when it was not."""
    notes: tuple[str, ...] = ()
    """Checks that were not made."""

    @property
    def result(self) -> Result:
        """Fail when something is broken; void when something could not be judged; else pass."""
        statuses = {outcome.status for outcome in self.outcomes}
        if "broken" in statuses:
            return "fail"
        return "void" if "void" in statuses or self.saturated or "held" not in statuses else "pass"

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 void."""
        return EXIT_CODES[self.result]

    @property
    def broken(self) -> tuple[Outcome, ...]:
        """The objectives that broke."""
        return self.having("broken")

    def having(self, status: Status) -> tuple[Outcome, ...]:
        """Return the objectives of one status."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == status)

    @property
    def headline(self) -> str:
        """The verdict in a sentence."""
        judged = [outcome for outcome in self.outcomes if outcome.status in {"held", "broken"}]
        if self.result == "fail":
            first, *others = self.broken
            more = f" (and {len(others)} more)" if others else ""
            return f"{_named(first)}{more}"
        if self.saturated:
            return f"generator saturated, nothing is said of the gateway: {self.saturated}"
        if voids := self.having("void"):
            return f"{_named(voids[0])}{f' (and {len(voids) - 1} more)' if len(voids) > 1 else ''}"
        if not judged:
            return "nothing was measured that any objective speaks of"
        return f"all {len(judged)} objectives held" if len(judged) > 1 else "the objective held"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "verdict": self.result,
            "exit_code": self.exit_code,
            "headline": self.headline,
            "scenario": self.scenario,
            "saturated": self.saturated or None,
            "notes": list(self.notes),
            "objectives": [asdict(outcome) for outcome in self.outcomes],
        }


def count_statuses(outcomes: Iterable[Outcome]) -> str:
    """Return the counts of all statuses, such as "11 held, 1 broken"."""
    statuses = [outcome.status for outcome in outcomes]
    words: tuple[Status, ...] = ("held", "broken", "void", "skipped")
    return ", ".join(f"{statuses.count(word)} {word}" for word in words if word in statuses)


def _named(outcome: Outcome) -> str:
    return f"{outcome.objective}: {outcome.message}"
