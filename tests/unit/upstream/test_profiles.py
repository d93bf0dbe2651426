"""Profiles: what an operator may write, and what is refused with its reason."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from liveavatar_gateway.pool.warm_policy import WarmMode
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.profiles import Profile

AVATAR = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


def profile(**values) -> Profile:
    return Profile.model_validate({"avatar_id": AVATAR, "min": 2, **values})


def test_defaults_are_one_avatar_of_the_usual_kind_that_waits_four_minutes():
    found = profile()
    assert found.request() == AvatarRequest(avatar_id=AVATAR)
    bounds = found.policy("desk")
    assert (bounds.minimum, bounds.maximum, bounds.max_idle_s, bounds.mode) == (2, 3, 240.0, WarmMode.FIXED)
    assert bounds.credits_per_minute > 0
    assert 120 <= found.credits_per_hour() <= 150


def test_the_sandbox_costs_nothing():
    assert profile(sandbox=True).credits_per_hour() == 0


def test_a_ceiling_bounds_the_cost():
    assert profile(max_credits_per_hour=60).credits_per_hour() == 60


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"room": "own"}, "rooms of the callers' own cannot be warm"),
        ({"livekit_room": "desk"}, "rooms of the callers' own cannot be warm"),
        ({"max": 1}, "max is below min"),
        ({"tenants": []}, "tenants is empty"),
        ({"tenants": ["acme", "beta"]}, "payer is missing"),
        ({"max_duration_s": 60}, "max_duration_s is not above min_remaining_s"),
        ({"hours": ["7-19"]}, "HH:MM-HH:MM"),
        ({"hours": ["07:00-24:30"]}, "ends after 24:00"),
        ({"timezone": "Europe/Atlantis"}, "no time zone"),
        ({"min": -1}, "greater than or equal"),
        ({"min": 2_000}, "less than or equal"),
        ({"max_idle_s": 5}, "greater than or equal"),
        ({"avatar_id": "Wayne"}, "pattern"),
        ({"quality": "best"}, "very_high"),
        ({"mode": "guess"}, "fixed"),
        ({"warmth": 1}, "not permitted"),
        ({"min": "2"}, "integer"),
    ],
)
def test_a_mistake_is_refused_with_its_reason(values, cause):
    with pytest.raises(ValidationError, match=cause):
        profile(**values)


@pytest.mark.parametrize(
    ("values", "payer"),
    [
        ({}, ""),
        ({"tenants": ["acme"]}, "acme"),
        ({"tenants": ["acme", "beta"], "payer": "gamma"}, "gamma"),
        ({"payer": "acme"}, "acme"),
    ],
)
def test_somebody_pays(values, payer):
    assert profile(**values).paying_tenant == payer


def test_a_profile_serves_its_tenants_alone():
    found = profile(tenants=["acme"])
    assert (found.serves("acme"), found.serves("beta"), profile().serves("beta")) == (True, False, True)


def test_hours_are_those_of_the_time_zone():
    found = profile(hours=["07:00-19:00", "22:30-02:00"], timezone="Europe/Berlin")
    bounds = found.policy("desk")

    def is_open(hour_utc: int) -> bool:
        return bounds.is_open(found.time_of_day_s(datetime(2026, 11, 30, hour_utc, tzinfo=UTC)))

    # Berlin is an hour ahead in November.
    assert [hour for hour in range(24) if is_open(hour)] == [0, *range(6, 18), 22, 23]
