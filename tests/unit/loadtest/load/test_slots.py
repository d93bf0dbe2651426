"""Users are dealt out evenly over workers, and their number follows the curve of arrivals."""

from hypothesis import given, settings
from hypothesis import strategies as st

from load.arrivals import Curve
from load.slots import cap_at, even

# The machine may be busy.
in_no_hurry = settings(deadline=None)

_weights = st.dictionaries(st.sampled_from(["A", "B", "C", "D", "E"]), st.floats(0.1, 50.0), min_size=1)


@in_no_hurry
@given(_weights, st.integers(1, 7), st.integers(1, 500))
def test_every_worker_has_every_class_and_the_sum_is_right(weights: dict[str, float], workers: int, users: int):
    ids = [f"w{number}" for number in range(workers)]
    dealt = even(ids, weights, users)
    assert all(count >= 1 for counts in dealt.values() for count in counts.values())
    assert all(set(counts) == set(weights) for counts in dealt.values())
    total = sum(sum(counts.values()) for counts in dealt.values())
    assert total == max(users, workers * len(weights))
    for name in weights:
        sizes = [counts[name] for counts in dealt.values()]
        assert max(sizes) - min(sizes) <= 1


@in_no_hurry
@given(_weights, st.integers(1, 4), st.integers(1, 300))
def test_more_users_take_nobody_away(weights: dict[str, float], workers: int, users: int):
    ids = [f"w{number}" for number in range(workers)]
    before, after = even(ids, weights, users), even(ids, weights, users + 1)
    assert all(after[worker][name] >= count for worker in ids for name, count in before[worker].items())


def test_users_are_about_in_the_proportion_of_the_weights():
    (dealt,) = even(["w"], {"A": 50.0, "B": 30.0, "C": 20.0}, 103).values()
    assert dealt == {"A": 51, "B": 31, "C": 21}


def test_the_cap_follows_the_curve_ahead_of_time_and_never_falls():
    curve = Curve(((0.0, 0.0), (100.0, 4.0), (100.0, 1.0), (200.0, 1.0)))
    caps = [cap_at(curve, at_s, 40) for at_s in range(0, 200, 5)]
    assert caps == sorted(caps)
    assert caps[0] == 8
    assert caps[-1] == 40
