"""Quotas: each is enforced up to its limit, for each tenant alone, and freed when the use ends."""

import math

import pytest

from liveavatar_gateway.auth.limiter import Limited, Limiter
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import QuotaExceeded


class Rig:
    """Limiter of two tenants, "acme" with the quotas of the test and "other" with the defaults, under a clock."""

    def __init__(self, **quotas) -> None:
        self.now_s = 100.0
        self.file = {"acme": Quotas(**quotas), "other": Quotas()}
        self.limiter = Limiter(self.file.get, clock=lambda: self.now_s)


def refused(call, *args, **kwargs) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        call(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize(("kind", "quota"), [(Limited.STREAM, "max_streams"), (Limited.WATCH, "max_watches")])
def test_streams_are_counted_until_they_end(kind, quota):
    rig = Rig(**{quota: 2})
    slots = [rig.limiter.admit_call("acme", kind) for _ in range(2)]
    error = refused(rig.limiter.admit_call, "acme", kind)
    assert (error.metadata["scope"], error.metadata["limit"], error.metadata["used"]) == (quota, "2", "2")
    assert rig.limiter.admit_call("other", kind) is not None
    slots[0].release()
    slots[0].release()
    assert rig.limiter.admit_call("acme", kind) is not None
    refused(rig.limiter.admit_call, "acme", kind)


@pytest.mark.parametrize(
    ("kind", "quota"), [(Limited.UNARY, "unary_calls_per_s"), (Limited.LIST, "list_calls_per_s")]
)
def test_calls_have_a_rate_with_a_burst_of_two_seconds(kind, quota):
    rig = Rig(**{quota: 5.0})
    for _ in range(10):
        assert rig.limiter.admit_call("acme", kind) is None
    error = refused(rig.limiter.admit_call, "acme", kind)
    assert error.retry_after_s == pytest.approx(0.2)
    rig.now_s += 0.21
    rig.limiter.admit_call("acme", kind)
    refused(rig.limiter.admit_call, "acme", kind)


def test_a_rate_of_zero_refuses_everything():
    rig = Rig(list_calls_per_s=0.0)
    for _ in range(2):
        assert refused(rig.limiter.admit_call, "acme", Limited.LIST).retry_after_s is None
        rig.now_s += 3600


def test_sessions_are_counted_until_they_end():
    rig = Rig(max_sessions=1, opens_per_min=600)
    first = rig.limiter.admit_session("acme", waits=False)
    assert refused(rig.limiter.admit_session, "acme", waits=False).metadata["scope"] == "max_sessions"
    first.release()
    rig.limiter.admit_session("acme", waits=False)


def test_sessions_of_dead_processes_count_without_being_refused():
    rig = Rig(max_sessions=1)
    places = [rig.limiter.count_session("acme") for _ in range(3)]
    refused(rig.limiter.admit_session, "acme", waits=False)
    for place in places:
        place.release()
    rig.limiter.admit_session("acme", waits=False)


def test_opens_have_a_rate():
    rig = Rig(max_sessions=100, opens_per_min=6)
    for _ in range(6):
        rig.limiter.admit_session("acme", waits=False)
    error = refused(rig.limiter.admit_session, "acme", waits=False)
    assert error.metadata["scope"] == "opens_per_min"
    assert error.retry_after_s == pytest.approx(10.0)
    rig.now_s += 10.1
    rig.limiter.admit_session("acme", waits=False)


def test_callers_wait_up_to_their_quota_and_leave_the_line_when_the_session_starts():
    rig = Rig(max_sessions=100, max_waiting=1, opens_per_min=6000)
    first = rig.limiter.admit_session("acme", waits=True)
    assert refused(rig.limiter.admit_session, "acme", waits=True).metadata["scope"] == "max_waiting"
    rig.limiter.admit_session("acme", waits=False)
    first.stop_waiting()
    first.release()
    rig.limiter.admit_session("acme", waits=True)


def test_a_session_that_finds_no_permit_after_all_counts_as_waiting():
    rig = Rig(max_sessions=100, max_waiting=1, opens_per_min=6000)
    first, second = (rig.limiter.admit_session("acme", waits=False) for _ in range(2))
    first.wait()
    first.wait()
    assert refused(second.wait).metadata["scope"] == "max_waiting"
    first.release()
    second.wait()


def test_a_refused_waiter_costs_no_open():
    rig = Rig(max_sessions=100, max_waiting=0, opens_per_min=6)
    for _ in range(20):
        refused(rig.limiter.admit_session, "acme", waits=True)
    rig.limiter.admit_session("acme", waits=False)


def test_the_wait_for_a_permit_is_cut_to_the_quota():
    rig = Rig(max_wait_s=5.0)
    assert rig.limiter.longest_wait_s("acme", 60.0) == 5.0
    assert rig.limiter.longest_wait_s("acme", 2.0) == 2.0
    assert rig.limiter.longest_wait_s("", 60.0) == 60.0


def test_audio_above_the_rate_pauses_its_reader_and_is_not_dropped():
    rig = Rig(audio_bytes_per_s=1000)
    assert rig.limiter.audio_pause_s("acme", 2000) == 0.0
    assert rig.limiter.audio_pause_s("acme", 500) == pytest.approx(0.5)
    assert rig.limiter.audio_pause_s("acme", 500) == pytest.approx(1.0)
    rig.now_s += 1.0
    assert rig.limiter.audio_pause_s("acme", 0) == 0.0
    assert rig.limiter.audio_pause_s("other", 500) == 0.0


def test_a_rate_of_zero_lets_no_audio_through_until_it_is_raised():
    rig = Rig(audio_bytes_per_s=0)
    assert rig.limiter.audio_pause_s("acme", 500) == math.inf
    assert rig.limiter.audio_pause_s("acme", 0) == math.inf
    rig.file["acme"] = Quotas(audio_bytes_per_s=1000)
    assert rig.limiter.audio_pause_s("acme", 0) == pytest.approx(0.5, abs=0.1)


def test_without_quotas_nothing_is_refused():
    limiter = Limiter(lambda _: None)
    for kind in Limited:
        assert limiter.admit_call("", kind) is None
    for _ in range(1000):
        limiter.admit_session("", waits=True)
    assert limiter.audio_pause_s("", 1 << 40) == 0.0
    assert limiter.quotas("") is None


def test_changed_quotas_count_from_the_next_check_on():
    rig = Rig(max_sessions=1, opens_per_min=6000)
    rig.limiter.admit_session("acme", waits=False)
    rig.file["acme"] = Quotas(max_sessions=2, opens_per_min=6000)
    rig.limiter.admit_session("acme", waits=False)
    refused(rig.limiter.admit_session, "acme", waits=False)


def test_refusals_are_noted_with_their_quota():
    noted = []
    limiter = Limiter(lambda _: Quotas(max_sessions=0), refused=lambda *refusal: noted.append(refusal))
    refused(limiter.admit_session, "acme", waits=False)
    assert noted == [("acme", "max_sessions")]
