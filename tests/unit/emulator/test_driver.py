"""A session on the event loop: effects, outbox, lateness."""

import time
from collections.abc import Callable

import orjson
import pytest

from liveavatar_emulator.clock import RealClock
from liveavatar_emulator.config import Settings
from liveavatar_emulator.driver import OUTBOX_LIMIT, CloseFrame, Lateness, LiveSession, Outbox
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.session import MinuteDue, Over, Session


def live(
    *, charge_minute: Callable[[], bool] = lambda: True, on_over: Callable[[Over], None] = lambda _: None
) -> LiveSession:
    now_s = time.monotonic()
    clock = RealClock()
    now_s = clock.now_s()
    core = Session(
        settings=Settings(),
        recording=Recording(started_mono_s=now_s, keep_bytes=0, budget=AudioBudget(0)),
        fresh_id=lambda: "s",
        now_s=now_s,
        limit_s=3600,
        billed=True,
    )
    return LiveSession(core, clock=clock, lateness=Lateness(), charge_minute=charge_minute, on_over=on_over)


async def drained(outbox: Outbox) -> list[str]:
    """What waits in an outbox up to its close frame, in short."""
    words = []
    while not isinstance(item := await outbox.take(), CloseFrame):
        body = orjson.loads(item)
        words.append(body.get("state", body["type"]))
    return [*words, f"close {item.code}"]


async def test_a_minute_that_cannot_be_paid_ends_the_session():
    over: list[Over] = []
    session = live(charge_minute=lambda: False, on_over=over.append)
    outbox = Outbox(abort=lambda: None)
    session.attach(outbox)
    session._apply([MinuteDue(60.0)], time.monotonic())
    assert [end.reason for end in over] == ["NO_CREDITS"]
    assert await drained(outbox) == ["new", "session.stopped", "disconnected", "close 1000"]


async def test_a_minute_that_is_paid_changes_nothing():
    over: list[Over] = []
    session = live(on_over=over.append)
    session._apply([MinuteDue(60.0)], time.monotonic())
    assert over == []
    session.dispose()


async def test_a_disposed_session_has_no_timer_and_no_effects():
    over: list[Over] = []
    session = live(on_over=over.append)
    outbox = Outbox(abort=lambda: None)
    seen = session.attach(outbox)
    session.dispose()
    session.detach(outbox, seen, 1001, "")
    session.stop("USER_CLOSED")
    assert over == []
    assert session._timer is None


async def test_a_replaced_socket_does_not_detach_its_successor():
    session = live()
    first, second = Outbox(abort=lambda: None), Outbox(abort=lambda: None)
    seen = session.attach(first)
    session.attach(second)
    session.detach(first, seen, 1000, "")
    assert session.socket_open
    assert session.core.attached
    assert seen.closed_by == "server"
    session.dispose()


def test_a_client_that_never_reads_is_cut_off():
    aborted = []
    outbox = Outbox(abort=lambda: aborted.append(True))
    for _ in range(OUTBOX_LIMIT + 2):
        outbox.put(b"{}")
    assert aborted == [True]
    assert outbox.aborted


async def test_nothing_follows_a_close_frame():
    outbox = Outbox(abort=lambda: None)
    outbox.put(CloseFrame(1000, ""))
    outbox.put(b"{}")
    assert await outbox.take() == CloseFrame(1000, "")
    outbox.put(CloseFrame(1001, ""))
    assert not outbox._items


@pytest.mark.parametrize(("share", "bound_ms"), [(0.5, 2), (0.99, 20), (1.0, 5000)])
def test_lateness_is_reported_as_the_bound_of_its_bucket(share, bound_ms):
    lateness = Lateness()
    for late_s, count in ((0.0015, 90), (0.015, 9), (5.0, 1)):
        for _ in range(count):
            lateness.note(late_s)
    assert lateness.percentile_ms(share) == bound_ms


def test_no_lateness_is_zero():
    assert Lateness().row() == {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
