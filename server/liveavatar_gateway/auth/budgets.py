"""Budgets of billed minutes. Without limits, a tenant's minutes are only counted."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

_MAX_MINUTES: Final = 100_000_000


class Budget(BaseModel):
    """Minutes that a tenant may spend, over all processes of the gateway. A minute counts when it begins.

    Hours, days and months are those of UTC. The avatars of a session count separately, as LiveAvatar bills them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    minutes_per_hour: int | None = Field(None, ge=0, le=_MAX_MINUTES, description="Minutes in an hour.")
    minutes_per_day: int | None = Field(None, ge=0, le=_MAX_MINUTES, description="Minutes in a day.")
    minutes_per_month: int | None = Field(None, ge=0, le=_MAX_MINUTES, description="Minutes in a month.")
    at_limit: Literal["refuse", "end"] = Field(
        "refuse",
        description="`refuse`: a spent budget refuses new sessions, and running sessions continue. `end`: running "
        "sessions also end before a minute that would exceed the budget, or at the end of the utterance that is "
        "spoken then.",
    )

    @property
    def is_limited(self) -> bool:
        """True if the budget has a limit."""
        return (self.minutes_per_hour, self.minutes_per_day, self.minutes_per_month) != (None, None, None)
