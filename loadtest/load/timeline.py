"""Timeline of faults: events upstream, their times, and the errors that they explain. Pure.

```toml
[[at]]
at_s = 20.0
what = "every command socket is dropped"
for_s = 5.0
expect = ["SESSION_ENDED"]
fault = { kind = "drop", session = "all", code = 1011 }
```
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class TimelineError(ValueError):
    """Invalid timeline; the message names the place and the problem."""


class TimelineEvent(BaseModel):
    """Event upstream. It has exactly one of `fault`, `settings` and `restart`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_s: float = Field(ge=0)
    """Time of the event, seconds after the schedule's zero."""
    what: str = Field(min_length=5, max_length=120)
    """Description for reports."""
    for_s: float = Field(default=5.0, gt=0)
    """Time from `at_s` on in which its errors are expected; changed settings are put back after it."""
    expect: tuple[str, ...] = ()
    """Reasons of the errors it provokes, as the gateway names them. Any other error is the gateway's."""
    fault: dict[str, Any] | None = None
    """A fault to arm: the body of `POST /_emulator/faults`."""
    settings: dict[str, Any] | None = None
    """Knobs to change, and to put back after `for_s`: the body of `PATCH /_emulator/settings`."""
    restart: dict[str, Any] | None = None
    """Restart of the service: the body of `POST /_emulator/restart`."""

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if sum(one is not None for one in (self.fault, self.settings, self.restart)) != 1:
            raise ValueError("give exactly one of 'fault', 'settings' and 'restart'")
        return self

    @property
    def until_s(self) -> float:
        """End of the time in which its errors are expected."""
        return self.at_s + self.for_s


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: tuple[TimelineEvent, ...] = Field(min_length=1)


class Timeline:
    """Events upstream during a run, in order."""

    def __init__(self, events: Sequence[TimelineEvent] = ()) -> None:
        self.events = tuple(sorted(events, key=lambda one: one.at_s))

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a TOML file; an empty path gives an empty timeline.

        Raises:
            TimelineError: it cannot be read, or says something that cannot be played.
        """
        if not path:
            return cls()
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise TimelineError(f"the timeline of faults cannot be read: {error}") from error
        return cls.parse(text, source=path)

    @classmethod
    def parse(cls, text: str, *, source: str = "timeline") -> Self:
        """Read the text of such a file.

        Raises:
            TimelineError: it says something that cannot be played.
        """
        try:
            return cls(_File.model_validate(tomllib.loads(text)).at)
        except tomllib.TOMLDecodeError as error:
            raise TimelineError(f"{source}: {error}") from error
        except ValidationError as error:
            problems = [
                f"{source}: {'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
                for one in error.errors(include_url=False)
            ]
            raise TimelineError("\n".join(problems)) from error

    def expects(self, reason: str, at_s: float) -> bool:
        """Return whether an error at a time, seconds after the schedule's zero, was provoked."""
        return any(reason in one.expect and one.at_s <= at_s < one.until_s for one in self.events)

    def steps(self) -> list[tuple[float, TimelineEvent, bool]]:
        """Return all steps in order: time, event, and True for the step that undoes it."""
        done = [(one.at_s, one, False) for one in self.events]
        undone = [(one.until_s, one, True) for one in self.events if one.settings is not None]
        return sorted(done + undone, key=lambda step: step[0])
