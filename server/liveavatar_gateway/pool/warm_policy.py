"""Policy of warm sessions: how many of a profile to start, and which to retire.

Never more sessions than `maximum`, and never more credits in an hour than the ceiling: a session is started, or
kept over another minute, only if every charge that can come before its stop is confirmed still fits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from heapq import heappop, heappush
from typing import Final

MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0
DAY_S: Final = 86400.0
_ROUNDING: Final = 1e-9


@unique
class WarmMode(StrEnum):
    """Rule for the number of warm sessions."""

    FIXED = "fixed"
    """Always `minimum`; `maximum` leaves room for a replacement that starts before the old session ends."""
    LEARNT = "learnt"
    """Follow the demand of the last minutes, between `minimum` and `maximum`."""


@unique
class WarmState(StrEnum):
    """Stage of a warm session. A session that a caller took is warm no more."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    """The session is being stopped, and counts until LiveAvatar has confirmed the end."""


@unique
class RetireReason(StrEnum):
    """Reason for the end of a warm session."""

    OUT_OF_HOURS = "out_of_hours"
    ABOVE_MAXIMUM = "above_maximum"
    IDLE = "idle"
    """Idle for `max_idle_s`, or it would be before the minute that would be charged next is over."""
    SHORT_LIFE = "short_life"
    """Remaining life below `min_remaining_s`."""
    CREDITS = "credits"
    """The next charge of the session would exceed the ceiling."""
    UNWANTED = "unwanted"
    """Demand has fallen, and the minute already paid is nearly over."""
    CALLERS_WAIT = "callers_wait"
    """Callers that cannot use it wait for its permit."""


@unique
class WarmBound(StrEnum):
    """Reason for which fewer sessions are started than wanted."""

    NONE = "none"
    MAXIMUM = "maximum"
    CREDITS = "credits"
    PERMITS = "permits"
    """No permit is free, or callers wait for one."""
    FAILURES = "failures"
    """Pause after failed starts."""
    STARTING = "starting"
    """Enough starts are under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayWindow:
    """Part of each day, seconds since local midnight; a window that ends before it begins crosses midnight."""

    from_s: float
    until_s: float

    def covers(self, time_of_day_s: float) -> bool:
        """Return True if the time is in the window; its end is not."""
        if self.from_s <= self.until_s:
            return self.from_s <= time_of_day_s < self.until_s
        return time_of_day_s >= self.from_s or time_of_day_s < self.until_s


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmProfile:
    """Bounds of the warm sessions of one profile."""

    name: str
    minimum: int = 0
    """Sessions kept warm without demand. Higher serves larger bursts at once and costs every minute."""
    maximum: int = 1
    """Most sessions warm at once, with those that start and those whose end is not confirmed."""
    max_idle_s: float = 240.0
    """Longest time a session stays warm; LiveAvatar ends sessions that nobody watches after about five minutes."""
    min_remaining_s: float = 60.0
    """Least remaining life of a session worth keeping."""
    max_credits_per_hour: float | None = None
    """Most credits that waiting warm sessions cost in any 60 minutes; None for no ceiling."""
    hours: tuple[DayWindow, ...] = ()
    """Parts of the day in which sessions are kept warm; empty for all day."""
    mode: WarmMode = WarmMode.FIXED
    credits_per_minute: float = 1.0
    """Price of a begun minute; 0 for sandbox sessions."""

    def is_open(self, time_of_day_s: float) -> bool:
        """Return True if sessions are kept warm at this time of day."""
        return not self.hours or any(window.covers(time_of_day_s) for window in self.hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmSession:
    """Warm session as the policy sees it."""

    id: str
    state: WarmState
    age_s: float
    """Time since `/start` was sent: LiveAvatar charges the first minute then."""
    idle_s: float = 0.0
    """Time since the session became ready."""
    remaining_s: float | None = None
    """Rest of its duration limit; None without a limit."""
    retiring_s: float = 0.0
    """Time since its retirement; 0 unless it is retiring."""
    in_need: bool = True
    """True if its permit would serve one of the callers that wait, if any do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmSituation:
    """Everything that one decision depends on."""

    sessions: Sequence[WarmSession] = ()
    """Present sessions of the profile: starting, ready and retiring, but none that was taken."""
    time_of_day_s: float = 0.0
    """Seconds since midnight in the profile's time zone."""
    arrival_ages_s: Sequence[float] = ()
    """Ages of the requests that matched the profile, served warm or not; ages above `window_s` are ignored."""
    credits_used: float = 0.0
    """Charged to the profile in the last 60 minutes, see `WarmCredits`."""
    spare_permits: int = 1_000_000
    """Permits that warm sessions may take now."""
    waiting: int = 0
    """Callers that wait for a permit of the same accounts and can use no warm session."""
    is_contended: bool = False
    """True if callers wait for the permits that new sessions would need, `waiting` or not."""
    failed_starts: int = 0
    """Starts that failed one after the other, until now."""
    last_failure_age_s: float = math.inf
    """Time since the last of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmPolicyConfig:
    """Constants of the policy, for all profiles."""

    step_s: float = 1.0
    """Longest time between two decisions. Higher keeps more credits back under a ceiling."""
    stop_s: float = 60.0
    """Longest time from a retirement to its confirmed end. Charges that may come meanwhile are kept back; higher
    holds the ceiling through longer failures of stops, and leaves less of it to use."""
    opening_s: float = 5.0
    """Time from `/start` until a session is ready."""
    window_s: float = 600.0
    """Demand of this time counts in learnt mode. Higher holds warmth longer after a peak."""
    recent_s: float = 120.0
    """Demand of this time, if it is higher, counts instead, so that a rise is followed at once."""
    served_share: float = 0.95
    """Share of callers that learnt mode aims to serve from a warm session. Higher keeps more of them."""
    paid_margin_s: float = 5.0
    """Time before the end of a paid minute at which an unwanted session is retired; covers the stop itself."""
    max_starting: int = 4
    """Starts under way at once, per profile."""
    max_pause_s: float = 60.0
    """Longest pause after failed starts; the first is one second, and each is twice the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """Warm session to stop, and why."""

    session_id: str
    reason: RetireReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmPlan:
    """Decision: number of sessions to start now, and sessions to retire now."""

    start: int = 0
    retire: tuple[Retirement, ...] = ()
    wanted: int = 0
    """Sessions that should be starting or ready."""
    bound: WarmBound = WarmBound.NONE
    """Reason for which `start` leaves fewer than `wanted`."""


def decide(profile: WarmProfile, situation: WarmSituation, config: WarmPolicyConfig | None = None) -> WarmPlan:
    """Return which sessions of a profile to start and to retire now.

    The caller decides again at least every `step_s` and carries out the retirements first. In the next situation,
    what it started is `STARTING`, and what it retired is `RETIRING`.
    """
    return _Decision(profile, situation, config or WarmPolicyConfig()).plan()


def wanted(profile: WarmProfile, situation: WarmSituation, config: WarmPolicyConfig) -> int:
    """Return how many sessions should be starting or ready, before permits, failures and credits bound them."""
    if not profile.is_open(situation.time_of_day_s % DAY_S):
        return 0
    if profile.mode is WarmMode.LEARNT:
        learnt = _learnt(profile, situation.arrival_ages_s, config)
        return min(max(profile.minimum, learnt), profile.maximum)
    return min(profile.minimum, profile.maximum, _steady(profile, config))


def _steady(profile: WarmProfile, config: WarmPolicyConfig) -> int:
    """Return how many sessions the ceiling pays for all the time, at least one.

    More would use the hour's credits up early, and then none would be warm.
    """
    if profile.max_credits_per_hour is None or profile.credits_per_minute == 0:
        return profile.maximum
    return max(1, math.floor(profile.max_credits_per_hour / _hourly_cost(profile, config)))


def _learnt(profile: WarmProfile, ages_s: Sequence[float], config: WarmPolicyConfig) -> int:
    """Return the least number at which `served_share` of the callers find a session ready.

    A caller finds one if fewer callers than sessions came during the last opening; arrivals are taken as
    independent of each other (Poisson). A session that would meet no caller before `max_idle_s` is not worth its
    minutes.
    """
    rate_hz = sum(0 <= age_s < config.window_s for age_s in ages_s) / config.window_s
    # The first of the recent callers opens the interval and says nothing of the rate.
    recent = sum(0 <= age_s < config.recent_s for age_s in ages_s) - 1
    rate_hz = max(rate_hz, recent / config.recent_s)
    if rate_hz * profile.max_idle_s < 1:
        return 0
    mean = rate_hz * config.opening_s
    probability = served = math.exp(-mean)
    number = 1
    while served < config.served_share and number < profile.maximum:
        probability *= mean / number
        served += probability
        number += 1
    return number


def _paid_left_s(session: WarmSession) -> float:
    """Return the rest of the minute that is paid."""
    return MINUTE_S - session.age_s % MINUTE_S


def charges(age_s: float, until_s: float) -> int:
    """Return the number of minutes that begin after the age `age_s`, up to and with the age `until_s`."""
    return max(0, math.floor(until_s / MINUTE_S + _ROUNDING) - math.floor(age_s / MINUTE_S + _ROUNDING))


def credits_per_hour(profile: WarmProfile, config: WarmPolicyConfig | None = None) -> float:
    """Return what `minimum` sessions cost in an hour in which nobody takes one, at most the ceiling."""
    cost = profile.minimum * _hourly_cost(profile, config or WarmPolicyConfig())
    return cost if profile.max_credits_per_hour is None else min(cost, profile.max_credits_per_hour)


def _hourly_cost(profile: WarmProfile, config: WarmPolicyConfig) -> float:
    """Return the cost of one session and its replacements, each of which starts one opening earlier."""
    minutes = max(1, math.floor((profile.max_idle_s + config.opening_s) / MINUTE_S))
    overlap_s = config.paid_margin_s + (config.opening_s if profile.maximum > profile.minimum else 0.0)
    life_s = max(minutes * MINUTE_S - overlap_s, MINUTE_S / 2)
    return minutes * profile.credits_per_minute * HOUR_S / life_s


@dataclass(slots=True)
class _Decision:
    """Decision in the making: retirements first, because they make room for starts."""

    profile: WarmProfile
    situation: WarmSituation
    config: WarmPolicyConfig
    retired: dict[str, RetireReason] = field(default_factory=dict)

    def plan(self) -> WarmPlan:
        number = wanted(self.profile, self.situation, self.config)
        self._retire_worn()
        kept = self._kept()
        self._retire_first(len(kept) - self.profile.maximum, kept, RetireReason.ABOVE_MAXIMUM)
        ready = [session for session in self._kept() if session.state is WarmState.READY and session.in_need]
        self._retire_first(self.situation.waiting - self._retiring, ready, RetireReason.CALLERS_WAIT)
        self._retire_above(number)
        self._hold_ceiling()
        start, bound = self._starts(number)
        return WarmPlan(
            start=start,
            retire=tuple(Retirement(session_id=name, reason=reason) for name, reason in self.retired.items()),
            wanted=number,
            bound=bound,
        )

    @property
    def _retiring(self) -> int:
        return len(self.situation.sessions) - len(self._kept())

    def _kept(self) -> list[WarmSession]:
        """Return the sessions that neither retire already nor do so now, oldest first."""
        left = (
            session
            for session in self.situation.sessions
            if session.state is not WarmState.RETIRING and session.id not in self.retired
        )
        return sorted(left, key=lambda session: -session.age_s)

    def _fresh(self) -> list[WarmSession]:
        """Return the kept sessions that need no replacement yet."""
        return [session for session in self._kept() if self._wear(session, self.config.opening_s) is None]

    def _wear(self, session: WarmSession, ahead_s: float = 0.0) -> RetireReason | None:
        """Return why a session is to be replaced, now or within `ahead_s`; None if it is not."""
        profile = self.profile
        if session.state is not WarmState.READY:
            return None
        if session.remaining_s is not None and session.remaining_s - ahead_s < profile.min_remaining_s:
            return RetireReason.SHORT_LIFE
        if session.idle_s + ahead_s >= profile.max_idle_s:
            return RetireReason.IDLE
        # Another minute is bought only if the session may be used through all of it.
        paid_left_s = _paid_left_s(session)
        buys = paid_left_s <= self.config.paid_margin_s + ahead_s
        buys_in_vain = session.idle_s + paid_left_s + MINUTE_S > profile.max_idle_s
        is_charged = profile.credits_per_minute > 0 and profile.max_idle_s >= MINUTE_S
        return RetireReason.IDLE if is_charged and buys and buys_in_vain else None

    def _retire_worn(self) -> None:
        for session in self._kept():
            reason = self._wear(session)
            if reason is not None:
                self.retired[session.id] = reason

    def _retire_first(self, number: int, sessions: Sequence[WarmSession], reason: RetireReason) -> None:
        for session in sessions[: max(0, number)]:
            self.retired[session.id] = reason

    def _retire_above(self, number: int) -> None:
        """Retire sessions above the wanted number once their paid minute is nearly over.

        Until then they are of use at no further cost.
        """
        is_open = self.profile.is_open(self.situation.time_of_day_s % DAY_S)
        surplus = max(0, len(self._fresh()) - number)
        for session in sorted(self._kept(), key=_paid_left_s)[:surplus]:
            is_free = self.profile.credits_per_minute == 0
            if session.state is WarmState.READY and (
                is_free or _paid_left_s(session) <= self.config.paid_margin_s
            ):
                self.retired[session.id] = RetireReason.UNWANTED if is_open else RetireReason.OUT_OF_HOURS

    def _reserve(self, session: WarmSession, *, is_kept: bool) -> float:
        """Return the charges that may still come before the session can be gone."""
        config = self.config
        left_s = config.stop_s - session.retiring_s if session.state is WarmState.RETIRING else config.stop_s
        until_s = session.age_s + max(0.0, left_s) + (config.step_s if is_kept else 0.0)
        return charges(session.age_s, until_s) * self.profile.credits_per_minute

    def _left_credits(self) -> float:
        """Return the credits below the ceiling that no present session can use up."""
        ceiling = self.profile.max_credits_per_hour
        if ceiling is None:
            return math.inf
        kept = {session.id for session in self._kept()}
        reserved = sum(self._reserve(session, is_kept=session.id in kept) for session in self.situation.sessions)
        return ceiling - self.situation.credits_used - reserved

    def _hold_ceiling(self) -> None:
        """Retire sessions, the next to be charged first, until all charges that may come fit the ceiling."""
        for session in sorted(self._kept(), key=_paid_left_s):
            if self._left_credits() >= -_ROUNDING:
                return
            self.retired[session.id] = RetireReason.CREDITS

    def _starts(self, number: int) -> tuple[int, WarmBound]:
        missing = number - len(self._fresh())
        if missing <= 0:
            return 0, WarmBound.NONE
        situation, config = self.situation, self.config
        starting = sum(session.state is WarmState.STARTING for session in self._kept())
        bounds = (
            (self.profile.maximum - len(situation.sessions), WarmBound.MAXIMUM),
            (0 if situation.waiting or situation.is_contended else situation.spare_permits, WarmBound.PERMITS),
            (0 if self._is_pausing() else missing, WarmBound.FAILURES),
            (self._affordable(missing), WarmBound.CREDITS),
            ((1 if situation.failed_starts else config.max_starting) - starting, WarmBound.STARTING),
        )
        start, bound = min(bounds, key=lambda item: item[0])
        start = max(0, start)
        return (missing, WarmBound.NONE) if start >= missing else (start, bound)

    def _is_pausing(self) -> bool:
        """Return True during the pause after failed starts."""
        failed = self.situation.failed_starts
        pause_s = min(2.0 ** min(failed - 1, 16), self.config.max_pause_s) if failed else 0.0
        return self.situation.last_failure_age_s < pause_s

    def _affordable(self, missing: int) -> int:
        """Return how many sessions can be started so that every charge that may come fits the ceiling.

        A session that could not be kept for one opening and a minute would be of no use.
        """
        left = self._left_credits()
        config, price = self.config, self.profile.credits_per_minute
        if price == 0 or math.isinf(left):
            return missing
        each = (1 + charges(0.0, max(config.step_s, config.opening_s) + config.stop_s)) * price
        return max(0, math.floor(left / each + _ROUNDING))


class WarmCredits:
    """Credits that the waiting of one profile's warm sessions cost, over the last 60 minutes.

    LiveAvatar charges one minute at the start and another for each minute that begins. A session that a caller
    takes costs only the time it waited: the caller needs a begun minute of its own anyway. Sessions that a former
    process started are added with their age.
    """

    def __init__(self, credits_per_minute: float = 1.0) -> None:
        self._price = credits_per_minute
        self._started_at_s: dict[str, float] = {}
        self._charged: list[tuple[float, float]] = []
        """Heap of the charges of sessions that wait no more: time and credits."""
        self._charged_sum = 0.0

    def start(self, session_id: str, started_at_s: float) -> None:
        """Record that `/start` was sent."""
        self._started_at_s[session_id] = started_at_s

    def take(self, session_id: str, now_s: float) -> None:
        """Record that a caller took a session: it is charged for the time it waited."""
        started_at_s = self._started_at_s.pop(session_id, None)
        if started_at_s is not None:
            self._charge(now_s, (now_s - started_at_s) / MINUTE_S * self._price)

    def end(self, session_id: str, now_s: float, *, refunded: bool = False) -> None:
        """Record the confirmed end of a session that nobody took; a start that failed is refunded."""
        started_at_s = self._started_at_s.pop(session_id, None)
        if started_at_s is not None and not refunded:
            for number in range(1 + charges(0.0, now_s - started_at_s)):
                self._charge(started_at_s + MINUTE_S * number, self._price)

    def used(self, now_s: float) -> float:
        """Return the credits of the last 60 minutes, with all that present sessions were charged."""
        since_s = now_s - HOUR_S
        while self._charged and self._charged[0][0] <= since_s:
            self._charged_sum -= heappop(self._charged)[1]
        if not self._charged:
            # No rest of rounding is left.
            self._charged_sum = 0.0
        present = sum(
            charges(max(started_at_s, since_s) - started_at_s, now_s - started_at_s) + (started_at_s > since_s)
            for started_at_s in self._started_at_s.values()
        )
        return self._charged_sum + present * self._price

    def _charge(self, at_s: float, cost: float) -> None:
        heappush(self._charged, (at_s, cost))
        self._charged_sum += cost
