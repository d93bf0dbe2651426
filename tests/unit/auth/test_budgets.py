"""Budgets: no limit by default, and values that are refused."""

import pytest
from pydantic import ValidationError

from liveavatar_gateway.auth.budgets import Budget


def test_a_tenant_without_a_budget_has_no_limit():
    assert not Budget().is_limited
    assert Budget().at_limit == "refuse"


@pytest.mark.parametrize("period", ["hour", "day", "month"])
def test_a_limit_of_any_period_is_a_limit_even_if_it_allows_nothing(period):
    assert Budget(**{f"minutes_per_{period}": 0}).is_limited


def test_every_field_is_described():
    assert all(field.description for field in Budget.model_fields.values())


@pytest.mark.parametrize(
    "values", [{"minutes_per_day": -1}, {"minutes_per_day": 1.5}, {"minutes_per_week": 3}, {"at_limit": "warn"}]
)
def test_a_wrong_budget_is_refused(values):
    with pytest.raises(ValidationError):
        Budget(**values)
