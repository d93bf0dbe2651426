"""The line that shows where a run is."""

from load.progress import line
from load.run import Progress
from load.sampler import Seen

_SEEN = Seen(
    at_mono_s=1.0, cpu_s=0.5, rss_bytes=84 * 2**20, threads=9, open_files=50, talking=14, active=18, tasks=None
)


def test_it_tells_phase_time_sessions_and_what_the_gateway_takes():
    shown = line(Progress("load", 35.2, 120.0, _SEEN, 0.21))
    assert shown == "load  35/120 s  14 talking  18 sessions  gateway 21% of a core, 84 MiB"


def test_before_the_load_begins_there_is_only_the_phase():
    assert line(Progress("starting")) == "starting"


def test_a_gateway_elsewhere_has_no_figures():
    assert line(Progress("drain", 121.0, 120.0)) == "drain  121/120 s"
