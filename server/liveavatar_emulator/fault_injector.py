"""Arms faults and lets them take hold of sessions: which, when, how often, and for how long."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from liveavatar_emulator.clock import Clock, Timer
from liveavatar_emulator.driver import AckRule, LiveSession
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


class NoSession(LookupError):
    """The sessions named are not there, and will not come."""


@dataclass(slots=True, eq=False)
class _Active:
    """A lasting fault in force on one session."""

    ordinal: int
    undo: Callable[[], None]
    ends: Timer | None = None
    rule: AckRule | None = None


@dataclass(slots=True, eq=False)
class _Armed:
    """A fault on sockets that is armed, or in force."""

    number: int
    fault: AnySocketFault
    awaits: int | str | None
    """The session it waits for: an ordinal, `next`, `all`; None when it has all it was armed for."""
    watches: dict[int, ArmedTrigger] = field(default_factory=dict)
    active: list[_Active] = field(default_factory=list)
    fired: int = 0


class FaultInjector:
    """All faults of one emulator. Sessions are made known to it when they start and when they are over."""

    def __init__(self, clock: Clock, seed: Seed, log: EventLog) -> None:
        self._clock = clock
        self._log = log
        self._rng = seed.stream("faults")
        self._rest = RestQueue(seed.stream("rest-faults"))
        self._rest_fired: Counter[int] = Counter()
        self._armed: dict[int, _Armed] = {}
        self._running: dict[int, tuple[str, LiveSession]] = {}
        self._last_ordinal = 0
        self._last_number = 0
        self.fired: Counter[str] = Counter()

    # -- what is armed
    # -----------------------------------------------------------------------------------------

    def arm(self, fault: RestFault | AnySocketFault) -> int:
        """Arm a fault and return its number.

        Raises:
            NoSession: none is named, or the named one is not running.
        """
        if isinstance(fault, RestFault):
            number = self._next_number()
            self._rest.arm(number, fault)
            self._log.note("fault.armed", fault=number, kind=fault.kind, endpoint=fault.endpoint)
            return number
        if fault.session is None:
            raise NoSession("session: say which sessions it hits: a number, an id, next, all or random")
        targets, awaits = self._resolve(fault.session)
        number = self._next_number()
        armed = self._armed[number] = _Armed(number, fault, awaits)
        self._log.note("fault.armed", fault=number, kind=fault.kind, session=fault.session)
        for ordinal in targets:
            self._bind(armed, ordinal)
        self._retire(armed)
        return number

    def hit(self, fault: AnySocketFault, ordinal: int) -> None:
        """Let a fault take hold of one running session, whatever sessions it names.

        Raises:
            NoSession: it is over.
        """
        if ordinal not in self._running:
            raise NoSession(f"session {ordinal} is over")
        number = self._next_number()
        armed = self._armed[number] = _Armed(number, fault, None)
        self._bind(armed, ordinal)
        self._retire(armed)

    def disarm(self, number: int) -> bool:
        """Disarm one fault and undo what it does; False when it is neither armed nor in force."""
        armed = self._armed.pop(number, None)
        if armed is not None:
            self._let_go(armed)
        found = armed is not None or self._rest.disarm(number)
        if found:
            self._log.note("fault.disarmed", fault=number)
        return found

    def clear(self) -> None:
        """Disarm all."""
        for armed in self._armed.values():
            self._let_go(armed)
        self._armed.clear()
        self._rest.clear()
        self._log.note("faults.cleared")

    def armed(self) -> list[dict[str, object]]:
        """What is armed or in force, by number; `times` of a REST fault are the calls left."""
        for armed in list(self._armed.values()):
            self._retire(armed)
        rows: dict[int, dict[str, object]] = {
            number: {"id": number, **fault.model_dump(), "times": left, "fired": self._rest_fired[number]}
            for number, fault, left in self._rest.armed()
        }
        for number, armed in self._armed.items():
            state = "active" if armed.active else "waiting"
            rows[number] = {"id": number, **armed.fault.model_dump(), "fired": armed.fired, "state": state}
        return [rows[number] for number in sorted(rows)]

    # -- what takes place
    # --------------------------------------------------------------------------------------

    def take(self, endpoint: str) -> RestFault | None:
        """The fault that hits this REST call, if any."""
        taken = self._rest.take(endpoint)
        if taken is None:
            return None
        number, fault = taken
        self._rest_fired[number] += 1
        self.fired[fault.kind] += 1
        self._log.note("fault", fault=number, kind=fault.kind, endpoint=endpoint)
        return fault

    def wait_s(self, fault: RestFault) -> float:
        """How long this REST fault holds back the call it has just hit."""
        return self._rest.wait_s(fault)

    def session_started(self, session_id: str, live: LiveSession) -> None:
        """A session runs; those that wait for it take hold."""
        self._running[live.ordinal] = (session_id, live)
        self._last_ordinal = max(self._last_ordinal, live.ordinal)
        for armed in list(self._armed.values()):
            if armed.awaits in ("all", "next", live.ordinal):
                if armed.awaits != "all":
                    armed.awaits = None
                self._bind(armed, live.ordinal)
                self._retire(armed)

    def session_over(self, ordinal: int) -> None:
        """A session is over; nothing holds on to it any more."""
        self._running.pop(ordinal, None)
        for armed in list(self._armed.values()):
            watch = armed.watches.pop(ordinal, None)
            if watch is not None:
                watch.stop()
            for active in [row for row in armed.active if row.ordinal == ordinal]:
                self._end(armed, active)
            self._retire(armed)

    def running(self, selector: Selector) -> list[int]:
        """Ordinals of the running sessions that a selector means now.

        Raises:
            NoSession: there is none.
        """
        ordinals, _ = self._resolve(selector)
        if not ordinals:
            raise NoSession(f"no session that is meant by {selector!r} is running")
        return ordinals

    # -- inside
    # ------------------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _resolve(self, selector: Selector) -> tuple[list[int], int | str | None]:
        """Running sessions that are meant, and the one still to come."""
        ordinals = sorted(self._running)
        if selector == "next":
            return [], "next"
        if selector == "all":
            return ordinals, "all"
        if selector == "random":
            open_ = [ordinal for ordinal in ordinals if self._running[ordinal][1].socket_open]
            if not open_:
                raise NoSession("no session has a socket to draw from")
            return [self._rng.choice(open_)], None
        if isinstance(selector, int):
            if selector in self._running:
                return [selector], None
            if selector > self._last_ordinal:
                return [], selector
            raise NoSession(f"session {selector} is over")
        for ordinal in ordinals:
            if self._running[ordinal][0] == selector:
                return [ordinal], None
        raise NoSession(f"no session {selector!r} is running")

    def _bind(self, armed: _Armed, ordinal: int) -> None:
        live = self._running[ordinal][1]
        watch = armed.watches[ordinal] = ArmedTrigger(
            live,
            armed.fault,
            self._clock,
            act=partial(self._fire, armed, live),
            on_done=partial(self._watched, armed, ordinal),
            needs_socket=isinstance(armed.fault, Drop),
        )
        watch.start()

    def _watched(self, armed: _Armed, ordinal: int) -> None:
        armed.watches.pop(ordinal, None)
        self._retire(armed)

    def _fire(self, armed: _Armed, live: LiveSession) -> None:
        fault = armed.fault
        armed.fired += 1
        self.fired[fault.kind] += 1
        self._log.note("fault", fault=armed.number, kind=fault.kind, session=live.ordinal)
        if isinstance(fault, Drop):
            live.drop(fault.code, fault.reason)
            return
        active = _afflict(live, fault)
        armed.active.append(active)
        if fault.for_s is not None:
            ends_s = self._clock.now_s() + fault.for_s
            active.ends = self._clock.call_at(ends_s, partial(self._run_out, armed, active))

    def _run_out(self, armed: _Armed, active: _Active) -> None:
        self._log.note("fault.ended", fault=armed.number, session=active.ordinal)
        self._end(armed, active)
        self._retire(armed)

    def _end(self, armed: _Armed, active: _Active) -> None:
        if active.ends is not None:
            active.ends.cancel()
        armed.active.remove(active)
        active.undo()

    def _let_go(self, armed: _Armed) -> None:
        for watch in armed.watches.values():
            watch.stop()
        armed.watches.clear()
        for active in list(armed.active):
            self._end(armed, active)

    def _retire(self, armed: _Armed) -> None:
        """Forget a fault that has nothing left to do."""
        for active in list(armed.active):
            if active.rule is not None and active.rule.left == 0:
                self._end(armed, active)
        if armed.awaits is None and not armed.watches and not armed.active:
            self._armed.pop(armed.number, None)


def _afflict(live: LiveSession, fault: AnySocketFault) -> _Active:
    """Put a lasting fault in force on one session."""
    sick = live.afflictions
    match fault:
        case StopReading() | SlowReading():
            limit = 0.0 if isinstance(fault, StopReading) else fault.bytes_per_s
            sick.reading_limits.append(limit)
            live.follow_reading_limits()

            def read_on() -> None:
                sick.reading_limits.remove(limit)
                live.follow_reading_limits()

            return _Active(live.ordinal, read_on)
        case DelayAcks() | SwallowAcks():
            rule = AckRule(frozenset(fault.acks))
            if isinstance(fault, DelayAcks):
                rule.delay_ms, rule.jitter_ms = fault.delay_ms, fault.jitter_ms
            else:
                rule.swallow, rule.left = True, fault.count
            sick.ack_rules.append(rule)
            return _Active(live.ordinal, partial(sick.ack_rules.remove, rule), rule=rule)
        case RefuseSockets():
            sick.refusals.append(fault.how)
            return _Active(live.ordinal, partial(sick.refusals.remove, fault.how))
        case ShuffleEvents() | NeverConnected():
            knob = "shuffle_events" if isinstance(fault, ShuffleEvents) else "never_connected"
            override = {knob: True}
            sick.overrides.append(override)
            live.follow_overrides()

            def restore() -> None:
                # Two may be alike, and either may go.
                sick.overrides.remove(override)
                live.follow_overrides()

            return _Active(live.ordinal, restore)
        case Drop():
            raise AssertionError("a drop does not last")
