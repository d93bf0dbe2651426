"""Metrics of the pool: accounts, permits and waiting callers.

Labels are names of accounts and tenants, which operators choose; what is beyond the first ones counts as `other`.
"""

from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from liveavatar_gateway.pool.account_health import Trouble
from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.overview import AccountStatus, PoolStatus, TenantUse
from liveavatar_gateway.telemetry.guard import never_raises

_WAIT_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_MAX_ACCOUNTS: Final = 200
_MAX_TENANTS: Final = 1000
OTHER: Final = "other"
"""Label of what is beyond the bound of a label's values."""
CREDITS_PER_MINUTE: Final = 1.0
"""Price of a begun minute of a session in LITE mode. Source: LiveAvatar API reference, credits."""


class PoolMetrics:
    """Metrics of the pool in a Prometheus registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._permits = Gauge(
            "gateway_account_permits",
            "Permits in use by all processes on the registry, by account and state: held, settling, suspect.",
            ["account", "state"],
            registry=registry,
        )
        self._limit = Gauge(
            "gateway_account_limit",
            "Sessions that may run on an account: as configured, and effective now.",
            ["account", "kind"],
            registry=registry,
        )
        self._foreign = Gauge(
            "gateway_account_foreign_sessions",
            "Sessions of other programs, by account.",
            ["account"],
            registry=registry,
        )
        self._credits = Gauge(
            "gateway_account_credits",
            "Balance of an account as last read; no series before.",
            ["account"],
            registry=registry,
        )
        self._breaker = Gauge(
            "gateway_account_breaker",
            "1 for the state of the circuit breaker of an account: closed, open, half_open.",
            ["account", "state"],
            registry=registry,
        )
        self._set_aside = Gauge(
            "gateway_account_set_aside",
            "1 for the cause for which this process starts no session on an account now.",
            ["account", "cause"],
            registry=registry,
        )
        self._refusals = Counter(
            "gateway_account_refusals",
            "Starts that LiveAvatar refused because the account was full: temporary, or a limit was learned.",
            ["account", "outcome"],
            registry=registry,
        )
        self._wait = Histogram(
            "gateway_permit_wait_seconds",
            "Wait for a permit, by outcome: granted, refused, or left by a caller that gave up.",
            ["outcome"],
            buckets=_WAIT_BUCKETS_S,
            registry=registry,
        )
        self._tenant_permits = Gauge(
            "gateway_tenant_permits",
            "Permits in use by all processes on the registry, by tenant.",
            ["tenant"],
            registry=registry,
        )
        self._tenant_waiting = Gauge(
            "gateway_tenant_waiting",
            "Callers that wait for a permit, of all processes on the registry, by tenant.",
            ["tenant"],
            registry=registry,
        )
        self._tenant_wait = Gauge(
            "gateway_tenant_longest_wait_seconds",
            "Time for which the first waiting caller of a tenant has waited.",
            ["tenant"],
            registry=registry,
        )
        self._accounts: set[str] = set()
        self._tenants: set[str] = set()
        for outcome in ("granted", "refused", "left"):
            self._wait.labels(outcome)

    @never_raises
    def update(self, now: PoolStatus) -> None:
        """Set the values that are read at each scrape."""
        gauges = (
            self._permits,
            self._limit,
            self._foreign,
            self._credits,
            self._breaker,
            self._set_aside,
            self._tenant_permits,
            self._tenant_waiting,
            self._tenant_wait,
        )
        for gauge in gauges:
            gauge.clear()
        for account in now.accounts:
            self._show_account(account)
        # The tenant that has waited longest comes last, so that several under one label show its wait.
        for tenant in reversed(now.overview.tenants):
            self._show_tenant(tenant)

    def _show_account(self, account: AccountStatus) -> None:
        name, use = self._account_label(account.name), account.use
        states: Mapping[str, int] = {"held": use.held, "settling": use.settling, "suspect": use.suspect}
        for state, count in states.items():
            self._permits.labels(name, state).inc(count)
        self._limit.labels(name, "configured").inc(account.configured_limit)
        self._limit.labels(name, "effective").inc(use.limit)
        self._foreign.labels(name).inc(use.foreign)
        if account.credits is not None:
            self._credits.labels(name).inc(account.credits)
        for breaker in BreakerState:
            self._breaker.labels(name, breaker.value).inc(breaker is account.breaker)
        for trouble in Trouble:
            self._set_aside.labels(name, trouble.value).inc(trouble.value == account.trouble)
        for outcome in ("temporary", "learned"):
            # rate() and increase() miss the first event of a series that did not exist before.
            self._refusals.labels(name, outcome)

    def _show_tenant(self, tenant: TenantUse) -> None:
        name = _bounded(tenant.name, self._tenants, _MAX_TENANTS)
        self._tenant_permits.labels(name).inc(tenant.used)
        self._tenant_waiting.labels(name).inc(tenant.waiting)
        self._tenant_wait.labels(name).set(tenant.longest_wait_s)

    @never_raises
    def waited(self, outcome: str, seconds: float) -> None:
        """Record the end of a wait for a permit: granted, refused or left."""
        self._wait.labels(outcome).observe(seconds)

    @never_raises
    def refused(self, account: str, *, learned: bool) -> None:
        """Record that LiveAvatar refused a start because the account was full."""
        self._refusals.labels(self._account_label(account), "learned" if learned else "temporary").inc()

    def _account_label(self, name: str) -> str:
        return _bounded(name, self._accounts, _MAX_ACCOUNTS)


def _bounded(name: str, known: set[str], most: int) -> str:
    if len(known) < most:
        known.add(name)
    return name if name in known else OTHER
