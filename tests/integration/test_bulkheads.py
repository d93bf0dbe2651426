"""A fault in one session ends that session, and reaches no other."""

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar_gateway.app import App
from liveavatar_gateway.config import Settings, load
from testkit import speech
from testkit.caller import Caller
from testkit.caller import caller as connect
from testkit.processes import API_KEY, Emulator


def _faulty(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("a fault of the test")


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect the log entries; rendering tracebacks for people would take seconds."""
    with capture_logs() as found:
        yield found


def _settings(emulator: Emulator) -> Settings:
    return load(
        {
            "LIVEAVATAR_API_URL": emulator.url,
            "LIVEAVATAR_API_KEY": API_KEY,
            "GATEWAY_PORT": "0",
            "GATEWAY_MAX_SESSIONS": "20",
            "GATEWAY_REGISTRY_FILE": "off",
        }
    )


@pytest.fixture
async def app(emulator: Emulator) -> AsyncIterator[App]:
    """Run a gateway in this process, so that a test can break a part of it."""
    async with App(_settings(emulator)) as found:
        yield found


@pytest.fixture
async def caller(app: App) -> AsyncIterator[Caller]:
    async with connect(app.address) as found:
        yield found


async def test_a_session_that_cannot_even_tell_of_its_fault_ends_alone(app, caller, emulator):
    broken, sound = await caller.attach(), await caller.attach()
    await broken.until_ready()
    stream = await caller.speak(sound.session_id)
    await stream.say(speech.sound(1.0), "u")
    await stream.until("started")
    faulty = await app.directory.get(broken.session_id, tenant="")
    faulty._publisher._listener = SimpleNamespace(on_news=_faulty)

    emulator.end(broken.upstream_id, "USER_CLOSED")
    await asyncio.wait_for(faulty.finished.wait(), 20)
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    later = await caller.attach()
    await later.until_ready()
    assert {session.id for session in app.directory.living()} == {sound.session_id, later.session_id}


async def test_a_task_that_raises_what_nothing_should_raise_is_the_only_one_that_ends(
    app, caller, emulator, logged
):
    broken, sound = await caller.attach(), await caller.attach()
    await sound.until_ready()
    await broken.until_ready()

    active = emulator.active()
    faulty = await app.directory.get(broken.session_id, tenant="")
    faulty._core.tick = _faulty
    faulty._core.ended = _faulty
    faulty.listen()
    await asyncio.wait_for(faulty.finished.wait(), 20)
    emulator.wait_active(active - 1)
    assert "session.crashed" in [line["event"] for line in logged]
    stream = await caller.speak(sound.session_id)
    await stream.say(speech.sound(0.5), "u")
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED


async def test_a_fault_in_a_watcher_ends_its_watch_and_no_session(app, caller):
    class Watcher:
        """A watcher with a bug."""

        failure = None
        on_session = on_news = on_close = staticmethod(_faulty)

        def fail(self, error: Exception) -> None:
            self.failure = error

    watcher = Watcher()
    app.directory.observers.add(watcher)
    attachment = await caller.attach()
    await attachment.until_ready()
    assert watcher not in app.directory.observers
    assert "incident" in watcher.failure.metadata


async def test_a_fault_in_the_drain_of_one_session_drains_the_others(app, caller, emulator):
    broken, sound = await caller.attach(), await caller.attach()
    await broken.until_ready()
    await sound.until_ready()
    (await app.directory.get(broken.session_id, tenant="")).go_away = _faulty
    (await app.directory.get(broken.session_id, tenant="")).end = _faulty
    await app.drain()
    assert (await sound.event("ended")).session.end_reason == session_pb2.END_REASON_DRAINED
    del (await app.directory.get(broken.session_id, tenant="")).end


async def test_a_fault_in_one_step_of_the_shutdown_skips_no_other(emulator, logged):
    async with App(_settings(emulator)) as app:
        async with connect(app.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            app.directory.end_all = _faulty
        session = await app.directory.get(attachment.session_id, tenant="")
        app.pool.run(session.avatars.upstream.close(), name="test/close")
    events = [line["event"] for line in logged]
    assert "shutdown.step_failed" in events
    assert "shutdown.sessions_may_still_run" not in events
