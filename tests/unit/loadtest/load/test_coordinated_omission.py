"""Coordinated omission: who waits for a server that stands still asks it less, and so hides that it did.

One simulated server, asked in both ways. Open loop: on an absolute schedule, each answer's time counted from when
it was due, as this suite does. Closed loop: one caller who asks again after the answer, each time counted from the
ask.
"""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.arrivals import even
from load.curves import constant
from load.figures import Series

SERVICE_S = 0.001
STALL_S = 2.0


@dataclass(frozen=True)
class Server:
    """Answers each request after a millisecond, in order, but stands still for a while."""

    stalls_at_s: float

    def answers(self, asked_s: float, free_s: float) -> float:
        """Return the time of the answer to a request, given the time at which the server is free again."""
        begins_s = max(asked_s, free_s)
        if self.stalls_at_s <= begins_s < self.stalls_at_s + STALL_S:
            begins_s = self.stalls_at_s + STALL_S
        return begins_s + SERVICE_S


def open_loop(server: Server, rate: float, seconds: float) -> Series:
    series, free_s = Series(), 0.0
    for due_s in even(constant(rate, seconds)):
        free_s = server.answers(due_s, free_s)
        series.add(free_s - due_s, 0)
    return series


def closed_loop(server: Server, rate: float, seconds: float) -> Series:
    """Pacing as many tools have it: the next request is due a period later, but never before this one's answer."""
    series, now_s = Series(), 0.0
    while now_s < seconds:
        answered_s = server.answers(now_s, now_s)
        series.add(answered_s - now_s, 0)
        now_s = max(now_s + 1 / rate, answered_s)
    return series


def test_of_a_stall_of_2_s_the_open_loop_reports_nearly_2_s_and_the_closed_loop_nothing():
    server = Server(stalls_at_s=8.0)
    opened, closed = (way(server, rate=50, seconds=20) for way in (open_loop, closed_loop))
    # A tenth of the run is lost, so one in a hundred waits for the last tenth of it at least: 1.8 s.
    assert opened.percentile_ms(99) == pytest.approx(1800, rel=0.03)
    assert opened.percentile_ms(99.9) == pytest.approx(2000, rel=0.03)
    assert closed.percentile_ms(99) == pytest.approx(1000 * SERVICE_S, rel=0.01)
    # Both saw the stall; only one of them knows how many it would have met.
    assert opened.max_ms() == pytest.approx(2000, rel=0.02)
    assert closed.max_ms() == pytest.approx(2000, rel=0.02)
    assert opened.count - closed.count == pytest.approx(STALL_S * 50, abs=2)


@settings(deadline=None, max_examples=15)
@given(stalls_at_s=st.floats(1, 17), rate=st.floats(20, 200))
def test_the_closed_loop_never_reports_more_than_the_open_loop(stalls_at_s, rate):
    server = Server(stalls_at_s)
    opened, closed = (way(server, rate, 20.0) for way in (open_loop, closed_loop))
    for rank in (50, 90, 95, 99):
        assert closed.percentile_ms(rank) <= opened.percentile_ms(rank) * 1.001
    assert opened.percentile_ms(99) > 1500
    assert closed.percentile_ms(99) < 10


def test_without_a_stall_both_ways_agree():
    server = Server(stalls_at_s=1e9)
    opened, closed = (way(server, rate=50, seconds=20) for way in (open_loop, closed_loop))
    for rank, (one, other) in itertools.product((50, 99, 100), [(opened, closed)]):
        assert one.percentile_ms(rank) == other.percentile_ms(rank)
