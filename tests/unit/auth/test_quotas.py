"""Quotas: defaults that a stranger may have, and values that are refused."""

import pytest
from pydantic import ValidationError

from liveavatar_gateway.auth.quotas import Quotas


def test_a_stranger_may_do_little():
    quotas = Quotas()
    assert quotas.max_sessions == 1
    assert quotas.opens_per_min * quotas.max_session_s <= 3600


def test_every_quota_is_described_and_bounded():
    for name, field in Quotas.model_fields.items():
        assert field.description, name
        assert {type(rule).__name__ for rule in field.metadata} >= {"Ge", "Le"}, name


@pytest.mark.parametrize("values", [{"max_sessions": -1}, {"max_sessions": "3"}, {"sessions": 3}])
def test_a_wrong_quota_is_refused(values):
    with pytest.raises(ValidationError):
        Quotas(**values)
