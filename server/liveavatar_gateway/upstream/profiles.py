"""Profiles of warm sessions, as operators write them: a table for each in the file of the pool."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from liveavatar_gateway.pool.warm_policy import DayWindow, WarmMode, WarmProfile, credits_per_hour
from liveavatar_gateway.upstream.model import AvatarRequest

MAX_PROFILES: Final = 100
PROFILE_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
"""Pattern of the names of profiles, which are labels of metrics."""
_NAME_PATTERN: Final = PROFILE_PATTERN
_AVATAR_PATTERN: Final = r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])", re.ASCII)
_DAY_S: Final = 86_400.0
_ROOM: Final = "liveavatar"
_CREDITS_PER_MINUTE: Final = 1.0
"""LiveAvatar's price of a minute in LITE mode."""

_Tenant = Annotated[str, Field(pattern=_NAME_PATTERN)]


class Profile(BaseModel):
    """Kind of avatar of which sessions are kept warm, for whom, and at whose expense."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    avatar_id: str = Field(pattern=_AVATAR_PATTERN)
    quality: Literal["very_high", "high", "medium", "low"] = "high"
    encoding: Literal["H264", "VP8"] = "H264"
    sandbox: bool = False
    room: str = _ROOM
    """Kind of room; only LiveAvatar's own, since a room of the caller's is fixed when the token is minted."""
    account: str | None = Field(None, pattern=_NAME_PATTERN)
    """Account on which the sessions run; None for any account that may use the avatar."""
    tenants: Annotated[tuple[_Tenant, ...] | None, Field(strict=False)] = None
    """Tenants that may take the sessions; None for all callers."""
    payer: _Tenant | None = None
    """Tenant whose budget pays until a session is taken; the only tenant of `tenants` by default."""
    max_duration_s: int | None = Field(None, ge=60, le=30 * 86_400)
    """Limit of the sessions at LiveAvatar; None for the limit of the plan."""
    min: int = Field(ge=0, le=1000)
    """Sessions that are kept warm."""
    max: int | None = Field(None, ge=1, le=1000)
    """Most sessions at once, replacements included; one more than `min` by default."""
    max_idle_s: float = Field(240.0, ge=10, le=3600, strict=False)
    """Longest time for which a session stays warm. LiveAvatar ends sessions that nobody watches or commands."""
    min_remaining_s: float = Field(60.0, ge=5, le=30 * 86_400, strict=False)
    """Least rest of its life with which a session is given to a caller that asks for no `max_duration`."""
    max_credits_per_hour: float | None = Field(None, ge=0, le=1_000_000, strict=False)
    """Most credits that sessions cost in an hour while nobody has taken them; None for no ceiling."""
    hours: Annotated[tuple[str, ...], Field(strict=False, max_length=24)] = ()
    """Times of the day in which sessions are kept warm, such as `07:00-19:00`; empty for all day."""
    timezone: str = Field("UTC", max_length=100)
    """Time zone of `hours`, such as `Europe/Berlin`."""
    mode: Literal["fixed", "learnt"] = "fixed"
    """`fixed` keeps `min` sessions warm; `learnt` follows the demand of the last minutes, from `min` to `max`."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_own_room(cls, values: Any) -> Any:
        if isinstance(values, dict) and ("livekit_room" in values or values.get("room", _ROOM) != _ROOM):
            raise ValueError(
                "sessions in rooms of the callers' own cannot be warm: LiveAvatar fixes the room when the token "
                f"of a session is minted; leave out livekit_room and room, or set room to {_ROOM!r}"
            )
        return values

    @field_validator("hours")
    @classmethod
    def _has_readable_hours(cls, hours: Sequence[str]) -> Sequence[str]:
        for text in hours:
            _window(text)
        return hours

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError("is no time zone of the IANA database, such as Europe/Berlin")
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError("max is below min")
        if self.tenants is not None and not self.tenants:
            raise ValueError("tenants is empty, so nobody could take the sessions; leave it out for all callers")
        if self.payer is None and self.tenants is not None and len(self.tenants) > 1:
            raise ValueError("payer is missing: name the tenant whose budget pays for the warm minutes")
        if self.max_duration_s is not None and self.max_duration_s <= self.min_remaining_s:
            raise ValueError("max_duration_s is not above min_remaining_s, so no session could ever be taken")
        return self

    @property
    def paying_tenant(self) -> str:
        """Tenant whose budget pays until a session is taken; empty for none, where callers are anonymous."""
        if self.payer is not None:
            return self.payer
        return self.tenants[0] if self.tenants else ""

    def serves(self, tenant: str) -> bool:
        """Return whether a tenant may take the sessions."""
        return self.tenants is None or tenant in self.tenants

    def may_run_on(
        self, account: str, *, tenants: Collection[str] | None, avatars: Collection[str] | None
    ) -> bool:
        """Return whether the sessions may run on an account: the payer, and all who may take one, may use it.

        Args:
            account: Name of the account.
            tenants: Tenants that may use the account; None for all callers.
            avatars: Avatars that the account is used for; None for all.
        """
        if self.account not in (None, account) or (avatars is not None and self.avatar_id not in avatars):
            return False
        if tenants is None:
            return True
        return self.tenants is not None and {self.paying_tenant, *self.tenants} <= set(tenants)

    def request(self) -> AvatarRequest:
        """Return the request with which a session is started."""
        return AvatarRequest(
            avatar_id=self.avatar_id,
            sandbox=self.sandbox,
            quality=self.quality,
            encoding=self.encoding,
            max_duration_s=self.max_duration_s,
        )

    def policy(self, name: str) -> WarmProfile:
        """Return the bounds that decide how many sessions are warm."""
        return WarmProfile(
            name=name,
            minimum=self.min,
            maximum=self.min + 1 if self.max is None else self.max,
            max_idle_s=self.max_idle_s,
            min_remaining_s=self.min_remaining_s,
            max_credits_per_hour=self.max_credits_per_hour,
            hours=tuple(_window(text) for text in self.hours),
            mode=WarmMode(self.mode),
            credits_per_minute=0.0 if self.sandbox else _CREDITS_PER_MINUTE,
        )

    def credits_per_hour(self) -> float:
        """Return what the sessions cost in an hour in which nobody takes one."""
        return credits_per_hour(self.policy(""))

    def time_of_day_s(self, now: datetime) -> float:
        """Return the seconds since midnight in the time zone of `hours`."""
        local = now.astimezone(ZoneInfo(self.timezone))
        return local.hour * 3600 + local.minute * 60 + local.second + local.microsecond / 1e6


def _window(text: str) -> DayWindow:
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ValueError("has the form HH:MM-HH:MM")
    from_h, from_min, until_h, until_min = (int(part) for part in match.groups())
    until_s = until_h * 3600.0 + until_min * 60.0
    if until_s > _DAY_S:
        raise ValueError("ends after 24:00")
    return DayWindow(from_s=from_h * 3600.0 + from_min * 60.0, until_s=until_s)
