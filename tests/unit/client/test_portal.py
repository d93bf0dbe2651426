import asyncio
import threading
import time

import pytest

from liveavatar.gateway import ClientClosed, DeadlineExceeded
from liveavatar.gateway.portal import Portal


@pytest.fixture
def portal():
    found = Portal()
    yield found
    found.close()


def test_work_runs_in_one_thread_of_its_own(portal):
    async def where():
        return threading.current_thread().name

    assert portal.call(where()) == "liveavatar-client"
    assert portal.run(lambda: threading.current_thread().name) == "liveavatar-client"


def test_what_is_raised_comes_out(portal):
    async def breaks():
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        portal.call(breaks())


def test_a_timeout_cancels_the_work(portal):
    cancelled = threading.Event()

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(DeadlineExceeded):
        portal.call(forever(), 0.01)
    assert cancelled.wait(5)


def test_what_the_work_brings_in_the_last_moment_is_not_lost(portal):
    """As the change that a watch has taken from its line when the time is over."""

    async def takes():
        await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251  the time of the one who waits is over while the loop is busy
        return "taken"

    assert portal.call(takes(), 0.02) == "taken"


def test_a_timeout_of_the_works_own_is_not_mistaken(portal):
    async def times_out():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as raised:
        portal.call(times_out(), 5)
    assert not isinstance(raised.value, DeadlineExceeded)


def test_closing_releases_everyone_who_waits(portal):
    started = threading.Event()
    failures = []

    async def forever():
        started.set()
        await asyncio.Event().wait()

    def waits():
        try:
            portal.call(forever())
        except ClientClosed as error:
            failures.append(error)

    thread = threading.Thread(target=waits)
    thread.start()
    assert started.wait(5)
    portal.close()
    portal.close()
    thread.join(5)
    assert len(failures) == 1
    with pytest.raises(ClientClosed):
        portal.run(lambda: None)


def test_waiting_for_oneself_is_refused(portal):
    with pytest.raises(RuntimeError, match="wait for itself"):
        portal.run(lambda: portal.run(lambda: None))
