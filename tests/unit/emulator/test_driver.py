"""A session on the event loop: effects and sockets."""

import random
import time
from collections.abc import Callable

import numpy as np
import orjson
import pytest
from structlog.testing import capture_logs

from liveavatar_emulator.clock import RealClock
from liveavatar_emulator.config import Settings
from liveavatar_emulator.driver import SessionDriver
from liveavatar_emulator.effects import ChargeMinute, SessionEnded
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.hosted_agent import HostedAgent, answer
from liveavatar_emulator.outbox import OUTBOX_LIMIT, CloseFrame, Outbox
from liveavatar_emulator.recording import AudioBudget, Recording
from liveavatar_emulator.session import Session
from liveavatar_emulator.timer_lag import TimerLag


def make_driver(
    *,
    charge_minute: Callable[[], bool] = lambda: True,
    on_ended: Callable[[SessionEnded], None] = lambda _: None,
    has_connector: bool = False,
    agent: HostedAgent | None = None,
) -> SessionDriver:
    now_s = time.monotonic()
    clock = RealClock()
    now_s = clock.now_s()
    session = Session(
        settings=Settings(ready_delay_ms=0) if has_connector else Settings(),
        recording=Recording(started_mono_s=now_s, keep_bytes=0, budget=AudioBudget(0)),
        fresh_id=lambda: "s",
        now_s=now_s,
        limit_s=3600,
        billed=True,
        has_connector=has_connector,
    )
    return SessionDriver(
        session,
        ordinal=1,
        clock=clock,
        rng=random.Random(1),
        log=EventLog(clock),
        timer_lag=TimerLag(),
        charge_minute=charge_minute,
        on_ended=on_ended,
        agent=agent,
    )


async def drained(outbox: Outbox) -> list[str]:
    """Return the items of an outbox up to its close frame, in short."""
    words = []
    while not isinstance(item := await outbox.take(), CloseFrame):
        body = orjson.loads(item)
        words.append(body.get("state", body["type"]))
    return [*words, f"close {item.code}"]


async def test_a_minute_that_cannot_be_paid_ends_the_session():
    over: list[SessionEnded] = []
    driver = make_driver(charge_minute=lambda: False, on_ended=over.append)
    outbox = Outbox(RealClock(), reset=lambda: None)
    driver.attach(outbox)
    driver._apply([ChargeMinute(60.0)], time.monotonic())
    assert [end.reason for end in over] == ["NO_CREDITS"]
    assert await drained(outbox) == ["new", "session.stopped", "disconnected", "close 1000"]


async def test_a_client_that_does_not_read_is_told_why_it_was_reset():
    with capture_logs() as logs:
        driver = make_driver()
        outbox = Outbox(RealClock(), reset=lambda: None)
        seen = driver.attach(outbox)
        for _ in range(OUTBOX_LIMIT + 1):
            outbox.put(b'{"type":"x"}')
        driver.detach(outbox, seen, 1006, "")
    reason = f"the client did not read: {OUTBOX_LIMIT} events were waiting"
    assert seen.close_reason == reason
    assert [(line["event"], line["why"]) for line in logs] == [("socket.reset", reason)]
    detached = orjson.loads(driver._log.lines().splitlines()[-1])
    assert (detached["what"], detached["why"]) == ("socket.detached", reason)
    driver.dispose()


@pytest.mark.parametrize(("knob", "named"), [(False, True), (True, False)])
async def test_speech_without_an_end_names_the_knob_in_the_log(knob, named):
    driver = make_driver()
    driver.configure(Settings(idle_on_underrun=knob))
    with capture_logs() as logs:
        driver._apply([SessionEnded("USER_CLOSED", 1.0, speak_end_missing=True)], time.monotonic())
    hints = [line["hint"] for line in logs if line["event"] == "session.speak_end_missing"]
    assert [("--idle-on-underrun" in hint) for hint in hints] == ([True] if named else [])
    driver.dispose()


async def test_a_minute_that_is_paid_changes_nothing():
    over: list[SessionEnded] = []
    driver = make_driver(on_ended=over.append)
    driver._apply([ChargeMinute(60.0)], time.monotonic())
    assert over == []
    driver.dispose()


async def test_a_disposed_session_has_no_timer_and_no_effects():
    over: list[SessionEnded] = []
    driver = make_driver(on_ended=over.append)
    outbox = Outbox(RealClock(), reset=lambda: None)
    seen = driver.attach(outbox)
    driver.dispose()
    driver.detach(outbox, seen, 1001, "")
    driver.stop("USER_CLOSED")
    assert over == []
    assert driver._timer is None


async def test_a_replaced_socket_does_not_detach_its_successor():
    driver = make_driver()
    first, second = Outbox(RealClock(), reset=lambda: None), Outbox(RealClock(), reset=lambda: None)
    seen = driver.attach(first)
    driver.attach(second)
    driver.detach(first, seen, 1000, "")
    assert driver.socket_open
    assert driver.session.attached
    assert seen.closed_by == "server"
    driver.dispose()


async def test_a_hosted_agent_answers_a_user_and_falls_silent_for_one():
    driver = make_driver(has_connector=True, agent=HostedAgent())
    frame = (np.sin(np.arange(480) / 10) * 10_000).astype("<i2").tobytes()
    for _ in range(20):
        driver.hear("ann", frame)
    driver.hear("ann", b"")
    recording = driver.session.recording
    assert [one.playback.received_bytes for one in recording.utterances] == [len(answer())]
    for _ in range(20):
        driver.hear("ben", frame)
    assert [command.type for command in recording.commands] == [], "an agent sends no commands"
    assert driver.session.playback.queued
    driver.dispose()


async def test_without_an_agent_nobody_hears():
    driver = make_driver()
    driver.hear("ann", b"")
    assert driver.session.recording.utterances == []
    driver.dispose()
