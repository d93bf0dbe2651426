"""Fixed windows of one second."""

from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.ratelimit import RateLimiter


def test_one_call_more_than_the_limit_waits_for_the_next_window():
    limiter = RateLimiter()
    verdicts = [limiter.take("k", "e", limit=2, now_s=5.0 + n / 10) for n in range(3)]
    assert [v.allowed for v in verdicts] == [True, True, False]
    assert [v.remaining for v in verdicts] == [1, 0, 0]
    assert verdicts[2].headers()["Retry-After"] == "1"
    assert limiter.take("k", "e", limit=2, now_s=6.0).allowed


def test_callers_and_endpoints_have_budgets_of_their_own():
    limiter = RateLimiter()
    for caller, endpoint in (("a", "x"), ("b", "x"), ("a", "y")):
        assert limiter.take(caller, endpoint, limit=1, now_s=0.0).allowed


@given(times=st.lists(st.floats(min_value=0, max_value=20), max_size=60).map(sorted))
def test_no_window_lets_more_than_its_limit_pass(times):
    limiter = RateLimiter()
    passed: dict[int, int] = {}
    for now_s in times:
        if limiter.take("k", "e", limit=3, now_s=now_s).allowed:
            passed[int(now_s)] = passed.get(int(now_s), 0) + 1
    assert all(count <= 3 for count in passed.values())
