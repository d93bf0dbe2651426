"""Triggers on a session: conditions, repetitions, sockets."""

import pytest

from liveavatar_emulator.faults import Trigger
from liveavatar_emulator.outbox import Outbox
from liveavatar_emulator.protocol import Speak
from liveavatar_emulator.triggers import ArmedTrigger


class Runs:
    """A trigger on a new session, with counts of its calls."""

    def __init__(self, service, **fields: object) -> None:
        needs_socket = bool(fields.pop("needs_socket", False))
        self.driver = service.start().driver
        self.actions = self.done = 0
        self.clock = service.emulator.clock
        self.trigger = ArmedTrigger(
            self.driver,
            Trigger(**fields),
            self.clock,
            action=self._act,
            on_done=self._finish,
            needs_socket=needs_socket,
        )

    def _act(self) -> None:
        self.actions += 1

    def _finish(self) -> None:
        self.done += 1

    def attach(self) -> None:
        self.driver.attach(Outbox(self.clock, reset=lambda: None))

    def speak(self) -> None:
        self.driver.command(Speak("u", bytes(960)), self.clock.now_s())


async def test_without_a_condition_the_action_runs_at_once(service):
    runs = Runs(service)
    runs.trigger.start()
    assert (runs.actions, runs.done) == (1, 1)


@pytest.mark.parametrize("condition", [{"after_packets": 2}, {"after_bytes": 1500}])
async def test_audio_is_counted_anew_after_each_run(service, condition):
    runs = Runs(service, **condition, times=2)
    runs.attach()
    runs.trigger.start()
    counts = []
    for _ in range(5):
        runs.speak()
        counts.append(runs.actions)
    assert counts == [0, 1, 1, 2, 2]
    assert runs.done == 1


async def test_a_trigger_that_needs_a_socket_waits_for_one(service):
    runs = Runs(service, after_s=1, needs_socket=True)
    runs.trigger.start()
    await runs.clock.advance(5)
    assert runs.actions == 0
    runs.attach()
    assert runs.actions == 1


async def test_a_stopped_trigger_never_runs(service):
    runs = Runs(service, after_s=1)
    runs.trigger.start()
    runs.trigger.stop()
    await runs.clock.advance(5)
    assert runs.actions == 0
