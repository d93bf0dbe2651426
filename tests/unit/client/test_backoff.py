import random

from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway.backoff import Backoff


@given(st.integers(), st.integers(1, 12))
def test_delays_double_up_to_the_longest_with_jitter(seed, attempts):
    backoff = Backoff(first_s=0.1, longest_s=2.0, rng=random.Random(seed))
    for attempt in range(attempts):
        ceiling_s = min(0.1 * 2**attempt, 2.0)
        assert ceiling_s / 2 <= backoff.next_delay_s() <= ceiling_s
    assert backoff.attempt == attempts


def test_a_gateway_may_be_away_for_hours():
    backoff = Backoff(rng=random.Random(1))
    assert all(backoff.next_delay_s() <= 2.0 for _ in range(2000))


def test_success_starts_over():
    backoff = Backoff(rng=random.Random(1))
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.attempt == 0
    assert backoff.next_delay_s() <= 0.1


def test_the_gateways_wish_is_a_floor():
    backoff = Backoff()
    assert backoff.next_delay_s(5.0) == 5.0
    assert backoff.next_delay_s(0.0) > 0
