"""Messages about the pool, from what operators see of it."""

from collections.abc import Mapping
from typing import Final

from liveavatar.gateway.v1 import admin_service_pb2 as p
from liveavatar_gateway.pool.breaker import BreakerState
from liveavatar_gateway.pool.overview import AccountStatus, PoolStatus, TenantUse, WarmUse
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.upstream.operations import PoolReload

_STATES: Final[Mapping[str, "p.AccountState.ValueType"]] = {
    "active": p.ACCOUNT_STATE_ACTIVE,
    "paused": p.ACCOUNT_STATE_PAUSED,
    "draining": p.ACCOUNT_STATE_DRAINING,
    "retired": p.ACCOUNT_STATE_RETIRED,
}
_BREAKERS: Final[Mapping[BreakerState, "p.BreakerState.ValueType"]] = {
    BreakerState.CLOSED: p.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: p.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: p.BREAKER_STATE_HALF_OPEN,
}


def pool_message(status: PoolStatus, *, owner: str) -> p.GetPoolResponse:
    """Return the pool."""
    overview = status.overview
    return p.GetPoolResponse(
        accounts=map(account_message, status.accounts),
        tenants=map(_tenant, overview.tenants),
        warm=map(_warm, overview.warm),
        waiting_count=overview.waiting,
        other_tenant_count=overview.other_tenants,
        blocked_for=mapping.duration(overview.blocked_s) if overview.blocked_s else None,
        owner=owner,
    )


def account_message(status: AccountStatus) -> p.PoolAccount:
    """Return an account."""
    use, budget = status.use, status.budget
    return p.PoolAccount(
        name=status.name,
        state=_STATES[status.state],
        drain_left=None if use.drain_left_s is None else mapping.duration(use.drain_left_s),
        configured_limit=status.configured_limit,
        set_limit=use.set_limit,
        learned_limit=use.learned,
        effective_limit=use.limit,
        held_count=use.held,
        settling_count=use.settling,
        suspect_count=use.suspect,
        warm_count=use.warm,
        foreign_session_count=use.foreign,
        set_aside=status.trouble,
        retry_in=None if status.retry_in_s is None else mapping.duration(status.retry_in_s),
        breaker=_BREAKERS[status.breaker],
        last_error=status.last_error,
        credits=status.credits,
        rate_limit=None if budget is None else budget.limit,
        rate_remaining=None if budget is None else budget.remaining,
        cost=status.cost,
    )


def reload_message(reload: PoolReload) -> p.ReloadPoolResponse:
    """Return the result of reading the files of the pool again."""
    return p.ReloadPoolResponse(changed=reload.changed, failed=reload.failed, retried_accounts=reload.retried)


def _tenant(tenant: TenantUse) -> p.PoolTenant:
    return p.PoolTenant(
        name=tenant.name,
        weight=tenant.share.weight,
        reserved=tenant.share.floor,
        ceiling=tenant.share.ceiling,
        used_permit_count=tenant.used,
        waiting_count=tenant.waiting,
        longest_wait=mapping.duration(tenant.longest_wait_s) if tenant.waiting else None,
    )


def _warm(warm: WarmUse) -> p.WarmSessions:
    return p.WarmSessions(
        profile=warm.profile, account=warm.account, warm_count=warm.warm, reserved_count=warm.reserved
    )
