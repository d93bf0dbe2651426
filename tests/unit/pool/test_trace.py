"""Arrival traces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.pool import trace
from liveavatar_gateway.pool.trace import Arrival, TraceError, read_trace, write_trace

HEAD = "time,tenant,duration,max_wait\n"


def test_reads_seconds_and_clock_times_in_order_of_time():
    found = read_trace([HEAD, "08:30,acme,00:01:30,\n", "12.5,zoo,3,10\n", "8:29:59.5,acme,2,0\n"])
    assert found == [
        Arrival(at_s=12.5, tenant="zoo", duration_s=3.0, max_wait_s=10.0),
        Arrival(at_s=30599.5, tenant="acme", duration_s=2.0, max_wait_s=0.0),
        Arrival(at_s=30600.0, tenant="acme", duration_s=90.0),
    ]


def test_takes_columns_in_any_order_and_skips_comments():
    lines = ["\ufeffDuration, Tenant ,TIME\r\n", "# a comment\n", "\n", "5,acme,1\n"]
    assert read_trace(lines) == [Arrival(at_s=1.0, tenant="acme", duration_s=5.0)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "no column 'time'"),
        ([HEAD], "no arrivals"),
        (["time,tenant\n"], "no column 'duration'"),
        (["time,tenant,duration,avatar\n"], "unknown column 'avatar'"),
        (["time,tenant,duration,time\n"], "named twice"),
        ([HEAD, "1,acme,5\n"], "line 2: 3 values for 4 columns"),
        ([HEAD, "soon,acme,5,\n"], "line 2, time: 'soon' is neither"),
        ([HEAD, "1,acme,0,\n"], "line 2, duration"),
        ([HEAD, "1,acme,nan,\n"], "line 2, duration"),
        ([HEAD, "1,acme,1e300,\n"], "line 2, duration"),
        ([HEAD, "-1,acme,1,\n"], "line 2, time"),
        ([HEAD, "1,acme,1,inf\n"], "line 2, max_wait"),
        ([HEAD, "1,\x1b[2J,1,\n"], "line 2, tenant"),
        ([HEAD, '1,"acme,1,\n'], "line 2: not CSV"),
        ([HEAD, "1" * 2000], "line 2: longer than"),
    ],
)
def test_refuses_with_the_line_and_the_column(lines, words):
    with pytest.raises(TraceError, match=words.replace("[", r"\[")):
        read_trace(lines)


def test_bounds_the_numbers_of_arrivals_and_tenants(monkeypatch):
    monkeypatch.setattr(trace, "MAX_ARRIVALS", 2)
    with pytest.raises(TraceError, match="line 4: a trace has at most 2 arrivals"):
        read_trace([HEAD, *("1,acme,1,\n" for _ in range(3))])
    monkeypatch.setattr(trace, "MAX_TENANTS", 1)
    with pytest.raises(TraceError, match="line 3: a trace has at most 1 tenants"):
        read_trace([HEAD, "1,acme,1,\n", "1,zoo,1,\n"])


@given(
    st.lists(
        st.builds(
            Arrival,
            at_s=st.integers(0, 10_000_000).map(lambda ms: ms / 1000),
            tenant=st.sampled_from(["acme", "zoo-2"]),
            duration_s=st.integers(1, 86_400_000).map(lambda ms: ms / 1000),
            max_wait_s=st.none() | st.integers(0, 60).map(float),
        ),
        min_size=1,
    )
)
def test_reads_what_it_writes(arrivals):
    assert read_trace(write_trace(arrivals)) == sorted(arrivals, key=lambda arrival: arrival.at_s)
