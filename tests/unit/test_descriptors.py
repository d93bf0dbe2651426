"""Shares of the descriptors, and the ones of this process."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from liveavatar_gateway.descriptors import _PORTABLE_LIMIT, Descriptors, TooFewDescriptors, share_out


def test_where_many_may_be_open_callers_get_what_is_set():
    assert share_out(1 << 20, max_connections=1000, max_sessions=10_000, ports=3).connections == 1000


def test_sessions_come_before_callers():
    shares = share_out(1024, max_connections=1000, max_sessions=200, ports=2)
    assert shares.connections == (1024 - 2 * 200 - 128) // 2


def test_too_few_are_refused_with_the_number_that_is_needed():
    with pytest.raises(TooFewDescriptors, match=r"ulimit -n 3128"):
        share_out(1024, max_connections=1000, max_sessions=1000, ports=1)


def test_few_callers_need_few():
    assert share_out(131, max_connections=1, max_sessions=1, ports=1).connections == 1


def test_a_process_counts_its_own_and_knows_when_they_run_out():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = Descriptors()
    try:
        before = descriptors.free
        opened = [os.dup(0) for _ in range(10)]
        assert before - descriptors.free == 10
        assert descriptors.suffice
        descriptors.limit -= descriptors.free - 31
        assert not descriptors.suffice
        for one in opened:
            os.close(one)
        assert descriptors.suffice
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_process_without_any_descriptor_left_knows_it_and_knows_when_they_are_back():
    probe = (
        "import os, resource\n"
        "from liveavatar_gateway.descriptors import Descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "descriptors = Descriptors()\n"
        "opened = []\n"
        "try:\n"
        "    while True:\n"
        "        opened.append(os.dup(0))\n"
        "except OSError:\n"
        "    pass\n"
        "assert not descriptors.suffice\n"
        "for one in opened:\n"
        "    os.close(one)\n"
        "assert descriptors.suffice\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


@pytest.mark.parametrize(
    ("code", "suffices"),
    [(errno.EMFILE, False), (errno.ENFILE, False), (errno.ENOENT, True), (errno.EACCES, True)],
)
def test_where_descriptors_cannot_be_counted_only_a_lack_of_them_refuses_sessions(monkeypatch, code, suffices):
    def fail(path: object) -> list[str]:
        raise OSError(code, os.strerror(code))

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        descriptors = Descriptors()
        monkeypatch.setattr(os, "listdir", fail)
        assert descriptors.suffice is suffices
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class System:
    """Limits of a system that grants `most` descriptors, whatever the hard limit says, like macOS."""

    def __init__(self, soft: int, hard: int, *, most: int, error: type[Exception]) -> None:
        self.limits = (soft, hard)
        self._most = most
        self._error = error

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self._most:
            raise self._error("refused")
        self.limits = limits


@pytest.mark.parametrize("error", [ValueError, OSError])
@pytest.mark.parametrize(
    ("soft", "most", "limit"),
    [
        (256, _PORTABLE_LIMIT, _PORTABLE_LIMIT),
        (20_000, 20_000, 20_000),
        (256, 1_000, 256),
        (256, 1 << 40, 1 << 40),
    ],
)
def test_a_system_that_refuses_the_hard_limit_grants_what_it_can(monkeypatch, error, soft, most, limit):
    system = System(soft, 1 << 40, most=most, error=error)
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    assert Descriptors().limit == limit
    assert system.limits == (limit, 1 << 40)


def test_an_unlimited_process_counts_on_many(monkeypatch):
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unlimited)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: None)
    assert Descriptors().limit == 1 << 20
