"""A scenario under way: its timeline on the clock, and its watches on sessions as they start."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import LiveSession
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.fault_injector import FaultInjector, NoSession
from liveavatar_emulator.faults import RestFault
from liveavatar_emulator.scenario import Action, At, Restart, Scenario, When
from liveavatar_emulator.seeds import Seed
from liveavatar_emulator.triggers import ArmedTrigger


class Busy(RuntimeError):
    """It cannot be done now."""


class Operations(Protocol):
    """What a scenario may do besides faults."""

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Change knobs."""

    def end_sessions(self, ordinals: list[int], reason: str) -> None:
        """End running sessions."""

    def restart(self, order: Restart) -> None:
        """Restart the service.

        Raises:
            Busy: it is down already.
        """


class ScenarioRun:
    """Begins when it is made. Closed by `stop`; what it armed stays armed."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        operations: Operations,
        director: FaultInjector,
        clock: Clock,
        seed: Seed,
        log: EventLog,
    ) -> None:
        self.scenario = scenario
        self._operations = operations
        self._director = director
        self._clock = clock
        self._seed = seed
        self._log = log
        self._began_s = clock.now_s()
        self._timers: dict[object, Timer] = {}
        self._watches: dict[int, list[ArmedTrigger]] = {}
        self._fired: dict[tuple[str, int], int] = {}
        self._next_at_s: dict[int, float] = {}
        for index, at in enumerate(scenario.at):
            self._schedule(index, at, 1, seed.stream(f"scenario-at-{index}").uniform)

    def session_started(self, live: LiveSession) -> None:
        """A session runs: those entries that are about it take hold."""
        for index, when in enumerate(self.scenario.when):
            if when.session in ("all", live.ordinal):
                uniform = self._seed.stream(f"scenario-when-{index}-{live.ordinal}").uniform
                watch = ArmedTrigger(
                    live,
                    when,
                    self._clock,
                    act=partial(self._befall, index, when, live, uniform),
                    on_done=lambda: None,
                )
                self._watches.setdefault(live.ordinal, []).append(watch)
                watch.start()

    def session_over(self, ordinal: int) -> None:
        """A session is over; nothing holds on to it any more."""
        for watch in self._watches.pop(ordinal, ()):
            watch.stop()

    def stop(self) -> None:
        """Nothing further happens."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for ordinal in list(self._watches):
            self.session_over(ordinal)

    def row(self) -> dict[str, Any]:
        """As JSON: how often each entry has fired, and when those on the timeline will next."""
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

    # -- timeline
    # ---------------------------------------------------------------------------------------------

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
            self._perform("at", index, at, None)

        self._timers[index] = self._clock.call_at(self._began_s + due_s, fire)

    def _befall(self, index: int, when: When, live: LiveSession, uniform: Callable[[float, float], float]) -> None:
        if not when.jitter_s:
            self._perform("when", index, when, live)
            return
        key = object()

        def fire() -> None:
            del self._timers[key]
            self._perform("when", index, when, live)

        self._timers[key] = self._clock.call_at(self._clock.now_s() + uniform(0, when.jitter_s), fire)

    def _perform(self, table: str, index: int, action: Action, live: LiveSession | None) -> None:
        self._fired[table, index] = self._fired.get((table, index), 0) + 1
        self._log.note(f"scenario.{table}", entry=index + 1, session=live.ordinal if live else None)
        try:
            self._do(action, live)
        except (NoSession, Busy) as error:
            # A timeline goes on where one of its entries found nobody to hit, but not in silence.
            self._log.note("scenario.missed", entry=index + 1, why=str(error))

    def _do(self, action: Action, live: LiveSession | None) -> None:
        if action.fault is not None:
            if live is None or isinstance(action.fault, RestFault):
                self._director.arm(action.fault)
            else:
                self._director.hit(action.fault, live.ordinal)
        elif action.settings is not None:
            self._operations.change_settings(action.settings)
        elif action.restart is not None:
            self._operations.restart(action.restart)
        elif action.end is not None:
            if live is not None:
                self._operations.end_sessions([live.ordinal], action.end.reason)
            elif action.end.session is not None:
                self._operations.end_sessions(self._director.running(action.end.session), action.end.reason)
