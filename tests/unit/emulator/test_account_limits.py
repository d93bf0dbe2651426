"""Limits of one account."""

import pytest

from liveavatar_emulator.account_limits import AccountLimits, BadAccountLimits, parse_limits


def test_limits_are_read_from_an_option():
    assert parse_limits("acme:concurrency=25,credits=1.5") == ("acme", AccountLimits(concurrency=25, credits=1.5))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("acme", "is not NAME:LIMIT"),
        (":rate=1", "is not NAME:LIMIT"),
        ("acme:rate", "is not NAME:LIMIT"),
        ("acme:rates=1", "unknown limit 'rates'"),
        ("acme:rate=x", "rate: Input should be a valid integer"),
        ("acme:concurrency=-1", "concurrency: Input should be greater"),
    ],
)
def test_a_malformed_option_is_refused_with_its_cause(text, cause):
    with pytest.raises(BadAccountLimits, match=cause):
        parse_limits(text)
