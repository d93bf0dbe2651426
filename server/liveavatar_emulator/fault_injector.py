"""Injector of faults: arms them, binds them to sessions, and ends them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import AckRule, SessionDriver
from liveavatar_emulator.eventlog import EventLog
from liveavatar_emulator.faults import (
    AnySocketFault,
    DelayAcks,
    Drop,
    NeverConnected,
    RefuseSockets,
    RestFault,
    RestQueue,
    Selector,
    ShuffleEvents,
    SlowReading,
    StopReading,
    SwallowAcks,
)
from liveavatar_emulator.seeds import Seed
from liveavatar_emulator.triggers import ArmedTrigger


class NoMatchingSession(LookupError):
    """The selected sessions are not running, and will not be started."""


@dataclass(slots=True, eq=False)
class _Active:
    """A lasting fault that is active on one session."""

    ordinal: int
    undo: Callable[[], None]
    timer: Timer | None = None
    rule: AckRule | None = None


@dataclass(slots=True, eq=False)
class _Armed:
    """A fault on sockets that is armed or active."""

    number: int
    fault: AnySocketFault
    awaits: int | str | None
    """Awaited session: an ordinal, `next` or `all`; None if the fault awaits no further session."""
    triggers: dict[int, ArmedTrigger] = field(default_factory=dict)
    active: list[_Active] = field(default_factory=list)
    fired: int = 0


class FaultInjector:
    """All faults of one emulator. The service reports the start and the end of each session."""

    def __init__(self, clock: Clock, seed: Seed, log: EventLog) -> None:
        self._clock = clock
        self._log = log
        self._rng = seed.stream("faults")
        self._rest = RestQueue(seed.stream("rest-faults"))
        self._rest_fired: Counter[int] = Counter()
        self._armed: dict[int, _Armed] = {}
        self._running: dict[int, tuple[str, SessionDriver]] = {}
        self._last_ordinal = 0
        self._last_number = 0
        self.fired: Counter[str] = Counter()

    # -- arming
    # ------------------------------------------------------------------------------------------------

    def arm(self, fault: RestFault | AnySocketFault) -> int:
        """Arm a fault and return its number.

        Raises:
            NoMatchingSession: the fault selects no session, or one that is not running.
        """
        if isinstance(fault, RestFault):
            number = self._next_number()
            self._rest.arm(number, fault)
            self._log.append("fault.armed", fault=number, kind=fault.kind, endpoint=fault.endpoint)
            return number
        if fault.session is None:
            raise NoMatchingSession("session is missing: give a number, an id, next, all or random")
        ordinals, awaits = self._resolve(fault.session)
        armed = self._add(fault, awaits)
        self._log.append("fault.armed", fault=armed.number, kind=fault.kind, session=fault.session)
        for ordinal in ordinals:
            self._bind(armed, ordinal)
        self._remove_if_done(armed)
        return armed.number

    def arm_on(self, ordinal: int, fault: AnySocketFault) -> None:
        """Arm a fault on one running session, whatever sessions it selects.

        Raises:
            NoMatchingSession: the session has ended.
        """
        if ordinal not in self._running:
            raise NoMatchingSession(f"session {ordinal} is over")
        armed = self._add(fault, None)
        self._bind(armed, ordinal)
        self._remove_if_done(armed)

    def disarm(self, number: int) -> bool:
        """Disarm one fault and undo its effect; False if it is neither armed nor active."""
        armed = self._armed.pop(number, None)
        if armed is not None:
            self._release(armed)
        found = armed is not None or self._rest.disarm(number)
        if found:
            self._log.append("fault.disarmed", fault=number)
        return found

    def clear(self) -> None:
        """Disarm all faults."""
        for armed in self._armed.values():
            self._release(armed)
        self._armed.clear()
        self._rest.clear()
        self._log.append("faults.cleared")

    def armed(self) -> list[dict[str, object]]:
        """Return armed and active faults as JSON, by number; `times` of a REST fault are the calls left."""
        for armed in list(self._armed.values()):
            self._remove_if_done(armed)
        rows: dict[int, dict[str, object]] = {
            number: {"id": number, **fault.model_dump(), "times": left, "fired": self._rest_fired[number]}
            for number, fault, left in self._rest.armed()
        }
        for number, armed in self._armed.items():
            state = "active" if armed.active else "waiting"
            rows[number] = {"id": number, **armed.fault.model_dump(), "fired": armed.fired, "state": state}
        return [rows[number] for number in sorted(rows)]

    # -- calls and sessions
    # ------------------------------------------------------------------------------------

    def take_rest_fault(self, endpoint: str, account: str | None = None) -> RestFault | None:
        """Return the fault of this REST call, if any, and count the call."""
        taken = self._rest.take(endpoint, account)
        if taken is None:
            return None
        number, fault = taken
        self._rest_fired[number] += 1
        self.fired[fault.kind] += 1
        self._log.append("fault", fault=number, kind=fault.kind, endpoint=endpoint)
        return fault

    def delay_s(self, fault: RestFault) -> float:
        """Return the delay of a call that this REST fault affects."""
        return self._rest.delay_s(fault)

    def session_started(self, session_id: str, driver: SessionDriver) -> None:
        """Bind the faults that await this session."""
        self._running[driver.ordinal] = (session_id, driver)
        self._last_ordinal = max(self._last_ordinal, driver.ordinal)
        for armed in list(self._armed.values()):
            if armed.awaits in ("all", "next", driver.ordinal):
                if armed.awaits != "all":
                    armed.awaits = None
                self._bind(armed, driver.ordinal)
                self._remove_if_done(armed)

    def session_ended(self, ordinal: int) -> None:
        """Release an ended session from all faults."""
        self._running.pop(ordinal, None)
        for armed in list(self._armed.values()):
            trigger = armed.triggers.pop(ordinal, None)
            if trigger is not None:
                trigger.stop()
            for active in [row for row in armed.active if row.ordinal == ordinal]:
                self._end(armed, active)
            self._remove_if_done(armed)

    def running(self, selector: Selector) -> list[int]:
        """Return the ordinals of the running sessions that a selector matches now.

        Raises:
            NoMatchingSession: no running session matches.
        """
        ordinals, _ = self._resolve(selector)
        if not ordinals:
            raise NoMatchingSession(f"no running session matches {selector!r}")
        return ordinals

    # -- inside
    # ------------------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _add(self, fault: AnySocketFault, awaits: int | str | None) -> _Armed:
        number = self._next_number()
        armed = self._armed[number] = _Armed(number, fault, awaits)
        return armed

    def _resolve(self, selector: Selector) -> tuple[list[int], int | str | None]:
        """Return the running sessions that a selector matches, and the session it awaits."""
        ordinals = sorted(self._running)
        if selector == "next":
            return [], "next"
        if selector == "all":
            return ordinals, "all"
        if selector == "random":
            attached = [ordinal for ordinal in ordinals if self._running[ordinal][1].socket_open]
            if not attached:
                raise NoMatchingSession("random: no running session has a socket")
            return [self._rng.choice(attached)], None
        if isinstance(selector, int):
            if selector in self._running:
                return [selector], None
            if selector > self._last_ordinal:
                return [], selector
            raise NoMatchingSession(f"session {selector} is over")
        for ordinal in ordinals:
            if self._running[ordinal][0] == selector:
                return [ordinal], None
        raise NoMatchingSession(f"no session {selector!r} is running")

    def _bind(self, armed: _Armed, ordinal: int) -> None:
        driver = self._running[ordinal][1]
        trigger = armed.triggers[ordinal] = ArmedTrigger(
            driver,
            armed.fault,
            self._clock,
            action=partial(self._fire, armed, driver),
            on_done=partial(self._on_trigger_done, armed, ordinal),
            needs_socket=isinstance(armed.fault, Drop),
        )
        trigger.start()

    def _on_trigger_done(self, armed: _Armed, ordinal: int) -> None:
        armed.triggers.pop(ordinal, None)
        self._remove_if_done(armed)

    def _fire(self, armed: _Armed, driver: SessionDriver) -> None:
        fault = armed.fault
        armed.fired += 1
        self.fired[fault.kind] += 1
        self._log.append("fault", fault=armed.number, kind=fault.kind, session=driver.ordinal)
        if isinstance(fault, Drop):
            driver.drop(fault.code, fault.reason)
            return
        active = _activate(driver, fault)
        armed.active.append(active)
        if fault.for_s is not None:
            ends_s = self._clock.now_s() + fault.for_s
            active.timer = self._clock.call_at(ends_s, partial(self._expire, armed, active))

    def _expire(self, armed: _Armed, active: _Active) -> None:
        self._log.append("fault.ended", fault=armed.number, session=active.ordinal)
        self._end(armed, active)
        self._remove_if_done(armed)

    def _end(self, armed: _Armed, active: _Active) -> None:
        if active.timer is not None:
            active.timer.cancel()
        armed.active.remove(active)
        active.undo()

    def _release(self, armed: _Armed) -> None:
        for trigger in armed.triggers.values():
            trigger.stop()
        armed.triggers.clear()
        for active in list(armed.active):
            self._end(armed, active)

    def _remove_if_done(self, armed: _Armed) -> None:
        """Forget a fault that has no further effect."""
        for active in list(armed.active):
            if active.rule is not None and active.rule.left == 0:
                self._end(armed, active)
        if armed.awaits is None and not armed.triggers and not armed.active:
            self._armed.pop(armed.number, None)


def _activate(driver: SessionDriver, fault: AnySocketFault) -> _Active:
    """Activate a lasting fault on one session."""
    faults = driver.active_faults
    match fault:
        case StopReading() | SlowReading():
            limit = 0.0 if isinstance(fault, StopReading) else fault.bytes_per_s
            faults.reading_limits.append(limit)
            driver.apply_reading_limits()

            def lift_limit() -> None:
                faults.reading_limits.remove(limit)
                driver.apply_reading_limits()

            return _Active(driver.ordinal, lift_limit)
        case DelayAcks() | SwallowAcks():
            rule = AckRule(frozenset(fault.acks))
            if isinstance(fault, DelayAcks):
                rule.delay_ms, rule.jitter_ms = fault.delay_ms, fault.jitter_ms
            else:
                rule.swallow, rule.left = True, fault.count
            faults.ack_rules.append(rule)
            return _Active(driver.ordinal, partial(faults.ack_rules.remove, rule), rule=rule)
        case RefuseSockets():
            faults.refusals.append(fault.how)
            return _Active(driver.ordinal, partial(faults.refusals.remove, fault.how))
        case ShuffleEvents() | NeverConnected():
            knob = "shuffle_events" if isinstance(fault, ShuffleEvents) else "never_connected"
            override = {knob: True}
            faults.overrides.append(override)
            driver.apply_overrides()

            def remove_override() -> None:
                # Two equal overrides are interchangeable, so removing either one is right.
                faults.overrides.remove(override)
                driver.apply_overrides()

            return _Active(driver.ordinal, remove_override)
        case Drop():
            raise AssertionError("a drop does not last")
