"""Metrics of the pool: names of accounts and tenants as labels, in bounds."""

from prometheus_client import CollectorRegistry

from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.fair_order import TenantShare
from liveavatar_gateway.pool.overview import AccountStatus, AccountUse, PoolOverview, PoolStatus, TenantUse
from liveavatar_gateway.telemetry.pool_metrics import PoolMetrics


def status(*accounts: AccountStatus, tenants: tuple[TenantUse, ...] = ()) -> PoolStatus:
    return PoolStatus(accounts=accounts, overview=PoolOverview(tenants=tenants))


def account(name: str = "main", **changes: object) -> AccountStatus:
    values = {
        "name": name,
        "state": "active",
        "use": AccountUse(name="id", limit=4, allowed=4, held=2, settling=1, foreign=1),
        "configured_limit": 5,
        "trouble": "",
        "retry_in_s": None,
        "breaker": BreakerState.CLOSED,
        "last_error": "",
        "credits": None,
        "budget": None,
        "cost": 1.0,
    }
    return AccountStatus(**{**values, **changes})


class Scrape:
    """Metrics with the values of their last update."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = PoolMetrics(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_an_account_has_its_permits_by_state_and_its_limits():
    scrape = Scrape()
    scrape.metrics.update(status(account(credits=12.5)))
    assert scrape.value("gateway_account_permits", account="main", state="held") == 2
    assert scrape.value("gateway_account_permits", account="main", state="settling") == 1
    assert scrape.value("gateway_account_limit", account="main", kind="configured") == 5
    assert scrape.value("gateway_account_limit", account="main", kind="effective") == 4
    assert scrape.value("gateway_account_foreign_sessions", account="main") == 1
    assert scrape.value("gateway_account_credits", account="main") == 12.5


def test_a_balance_that_is_unknown_has_no_series():
    scrape = Scrape()
    scrape.metrics.update(status(account()))
    assert scrape.value("gateway_account_credits", account="main") is None


def test_the_breaker_and_the_cause_of_an_account_set_aside_are_series_of_their_own():
    scrape = Scrape()
    scrape.metrics.update(status(account(breaker=BreakerState.OPEN, trouble="breaker_open")))
    assert scrape.value("gateway_account_breaker", account="main", state="open") == 1
    assert scrape.value("gateway_account_breaker", account="main", state="closed") == 0
    assert scrape.value("gateway_account_set_aside", account="main", cause="breaker_open") == 1
    scrape.metrics.update(status(account()))
    assert scrape.value("gateway_account_set_aside", account="main", cause="breaker_open") == 0


def test_tenants_have_permits_waiting_callers_and_the_longest_wait():
    scrape = Scrape()
    tenant = TenantUse(name="acme", share=TenantShare(), used=3, waiting=2, longest_wait_s=7.5)
    scrape.metrics.update(status(tenants=(tenant,)))
    assert scrape.value("gateway_tenant_permits", tenant="acme") == 3
    assert scrape.value("gateway_tenant_waiting", tenant="acme") == 2
    assert scrape.value("gateway_tenant_longest_wait_seconds", tenant="acme") == 7.5


def test_labels_are_bounded_and_the_rest_counts_as_other():
    scrape = Scrape()
    for number in range(1200):
        tenant = TenantUse(name=f"t{number}", share=TenantShare(), used=1, waiting=1, longest_wait_s=float(number))
        scrape.metrics.update(status(account(f"a{number}"), tenants=(tenant,)))
    rest = TenantUse(name="late", share=TenantShare(), used=1, waiting=1, longest_wait_s=9.0)
    more = TenantUse(name="later", share=TenantShare(), used=1, waiting=1, longest_wait_s=2.0)
    scrape.metrics.update(status(account("late"), account("later"), tenants=(rest, more)))
    assert scrape.value("gateway_tenant_permits", tenant="other") == 2
    assert scrape.value("gateway_tenant_longest_wait_seconds", tenant="other") == 9.0
    assert scrape.value("gateway_account_permits", account="other", state="held") == 4


def test_waits_and_refusals_are_counted():
    scrape = Scrape()
    scrape.metrics.waited("granted", 0.3)
    scrape.metrics.refused("main", learned=True)
    scrape.metrics.refused("main", learned=False)
    assert scrape.value("gateway_permit_wait_seconds_count", outcome="granted") == 1
    assert scrape.value("gateway_permit_wait_seconds_count", outcome="refused") == 0
    assert scrape.value("gateway_account_refusals_total", account="main", outcome="learned") == 1
    assert scrape.value("gateway_account_refusals_total", account="main", outcome="temporary") == 1
