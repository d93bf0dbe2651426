"""Core times and CPU clocks are the kernel's, and cores are given back."""

import os
import sys
import time

import pytest

from stage.cores import CoreTimes, on_cores, process_cpu_s
from stage.errors import StageError

_on_linux = pytest.mark.skipif(sys.platform != "linux", reason="clocks and cores of the Linux kernel")

_STAT = "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 10 0 10 70 10 0 0 0 0 0\ncpu1 100 5 50 800 20 5 10 10 0 0\nintr 5\n"


def test_core_times_are_read_from_the_cores_own_line():
    assert CoreTimes.parse(_STAT, 0) == CoreTimes(total=100, idle=80, steal=0)
    assert CoreTimes.parse(_STAT, 1) == CoreTimes(total=1000, idle=820, steal=10)
    with pytest.raises(StageError, match="no core 7"):
        CoreTimes.parse(_STAT, 7)


def test_busy_and_stolen_are_shares_of_the_time_between():
    before, after = CoreTimes(1000, 800, 10), CoreTimes(1200, 850, 40)
    assert after.busy_since(before) == pytest.approx(0.75)
    assert after.stolen_since(before) == pytest.approx(0.15)
    assert after.stolen_since(after) == 0.0


@_on_linux
def test_the_cpu_clock_of_a_process_is_the_kernels():
    before_s = time.process_time()
    seen_s = process_cpu_s(os.getpid())
    assert before_s <= seen_s <= time.process_time()


@_on_linux
def test_cores_are_given_back():
    allowed = os.sched_getaffinity(0)
    with on_cores([min(allowed)]):
        assert os.sched_getaffinity(0) == {min(allowed)}
    assert os.sched_getaffinity(0) == allowed
