"""Ids and times that all sessions of a process use."""

from datetime import timedelta

from liveavatar_gateway.sessions.services import new_id, utc_now


def test_no_id_is_given_twice():
    assert len({new_id() for _ in range(1000)}) == 1000


def test_the_wall_clock_is_in_utc():
    assert utc_now().utcoffset() == timedelta(0)
