"""Waits between tries."""

import random

from liveavatar_gateway.upstream.backoff import Backoff


def test_waits_double_up_to_a_limit_and_each_is_at_least_half_of_its_own():
    backoff = Backoff(first_s=0.2, max_s=5.0, rng=random.Random(1))
    waits = [backoff.next_s() for _ in range(9)]
    for wait_s, limit_s in zip(waits, [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0], strict=True):
        assert limit_s / 2 <= wait_s <= limit_s


def test_waits_differ_between_those_who_wait():
    waits = {Backoff(first_s=0.2, max_s=5.0, rng=random.Random(seed)).next_s() for seed in range(20)}
    assert len(waits) == 20


def test_a_success_begins_with_the_shortest_wait_again():
    backoff = Backoff(first_s=0.2, max_s=5.0, rng=random.Random(1))
    for _ in range(5):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.2
