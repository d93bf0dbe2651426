"""Run of a scenario: its timeline on the clock, and its triggers on sessions as they start."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import SessionDriver
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.fault_injector import FaultInjector, NoMatchingSession
from liveavatar_emulator.faults import RestFault
from liveavatar_emulator.scenario import Action, At, Restart, Scenario, When
from liveavatar_emulator.seeds import Seed
from liveavatar_emulator.triggers import ArmedTrigger


class AlreadyRestarting(RuntimeError):
    """A restart was requested during another one."""


class Operations(Protocol):
    """Operations of a scenario other than faults."""

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change knobs."""

    def end_sessions(self, ordinals: list[int], reason: str) -> None:
        """End running sessions."""

    def restart(self, restart: Restart) -> None:
        """Restart the service.

        Raises:
            AlreadyRestarting: another restart is not finished.
        """


class ScenarioRun:
    """Run of a scenario, begun by its constructor. Closed by `stop`; faults that it armed stay armed."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        operations: Operations,
        fault_injector: FaultInjector,
        clock: Clock,
        seed: Seed,
        log: EventLog,
    ) -> None:
        self.scenario = scenario
        self._operations = operations
        self._fault_injector = fault_injector
        self._clock = clock
        self._seed = seed
        self._log = log
        self._began_s = clock.now_s()
        self._timers: dict[object, Timer] = {}
        self._triggers: dict[int, list[ArmedTrigger]] = {}
        self._fired: dict[tuple[str, int], int] = {}
        self._next_at_s: dict[int, float] = {}
        for index, at in enumerate(scenario.at):
            self._schedule(index, at, 1, seed.stream(f"scenario-at-{index}").uniform)

    def session_started(self, driver: SessionDriver) -> None:
        """Arm the `[[when]]` entries that match this session."""
        for index, when in enumerate(self.scenario.when):
            if when.session in ("all", driver.ordinal):
                uniform = self._seed.stream(f"scenario-when-{index}-{driver.ordinal}").uniform
                trigger = ArmedTrigger(
                    driver,
                    when,
                    self._clock,
                    action=partial(self._on_trigger, index, when, driver, uniform),
                    on_done=lambda: None,
                )
                self._triggers.setdefault(driver.ordinal, []).append(trigger)
                trigger.start()

    def session_ended(self, ordinal: int) -> None:
        """Stop the triggers of an ended session."""
        for trigger in self._triggers.pop(ordinal, ()):
            trigger.stop()

    def stop(self) -> None:
        """Cancel the timeline and all triggers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for ordinal in list(self._triggers):
            self.session_ended(ordinal)

    def row(self) -> dict[str, Any]:
        """Return the entries as JSON, with how often each has fired and its next time on the timeline."""
        return {
            "at_s": round(self._clock.now_s() - self._began_s, 6),
            "settings": self.scenario.settings,
            "at": [
                {
                    **at.model_dump(exclude_none=True),
                    "fired": self._fired.get(("at", index), 0),
                    "next_at_s": self._next_at_s.get(index),
                }
                for index, at in enumerate(self.scenario.at)
            ],
            "when": [
                {**when.model_dump(exclude_none=True), "fired": self._fired.get(("when", index), 0)}
                for index, when in enumerate(self.scenario.when)
            ],
        }

    def _schedule(self, index: int, at: At, time: int, uniform: Callable[[float, float], float]) -> None:
        since_s = at.seconds + (time - 1) * (at.every_seconds or 0.0)
        due_s = since_s + (uniform(0, at.jitter_s) if at.jitter_s else 0.0)
        self._next_at_s[index] = round(due_s, 6)

        def fire() -> None:
            del self._next_at_s[index]
            again = at.every_seconds is not None and (at.times is None or time < at.times)
            if again:
                self._schedule(index, at, time + 1, uniform)
            else:
                del self._timers[index]
            self._run_entry("at", index, at, None)

        self._timers[index] = self._clock.call_at(self._began_s + due_s, fire)

    def _on_trigger(
        self, index: int, when: When, driver: SessionDriver, uniform: Callable[[float, float], float]
    ) -> None:
        if not when.jitter_s:
            self._run_entry("when", index, when, driver)
            return
        key = object()

        def fire() -> None:
            del self._timers[key]
            self._run_entry("when", index, when, driver)

        self._timers[key] = self._clock.call_at(self._clock.now_s() + uniform(0, when.jitter_s), fire)

    def _run_entry(self, table: str, index: int, action: Action, driver: SessionDriver | None) -> None:
        self._fired[table, index] = self._fired.get((table, index), 0) + 1
        self._log.append(f"scenario.{table}", entry=index + 1, session=driver.ordinal if driver else None)
        try:
            self._execute(action, driver)
        except (NoMatchingSession, AlreadyRestarting) as error:
            # The timeline continues after an entry without a matching session, and the log records the miss.
            self._log.append("scenario.missed", entry=index + 1, why=str(error))

    def _execute(self, action: Action, driver: SessionDriver | None) -> None:
        if action.fault is not None:
            if driver is None or isinstance(action.fault, RestFault):
                self._fault_injector.arm(action.fault)
            else:
                self._fault_injector.arm_on(driver.ordinal, action.fault)
        elif action.settings is not None:
            self._operations.change_settings(action.settings)
        elif action.restart is not None:
            self._operations.restart(action.restart)
        elif action.end is not None:
            if driver is not None:
                self._operations.end_sessions([driver.ordinal], action.end.reason)
            elif action.end.session is not None:
                self._operations.end_sessions(self._fault_injector.running(action.end.session), action.end.reason)
