"""Pool of accounts in front of any address, for unit tests."""

from collections.abc import Collection, Sequence

from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream.account import AccountConfig, AccountSpec, open_account
from liveavatar_gateway.upstream.accounts import Accounts, AccountsConfig
from liveavatar_gateway.upstream.egress import EgressConfig
from liveavatar_gateway.upstream.permits import Permits, PermitsConfig
from liveavatar_gateway.upstream.pool import Pool, PoolConfig
from liveavatar_gateway.upstream.rest import Rest, RestConfig


def accounts_at(
    url: str, *specs: AccountSpec, config: AccountConfig | None = None, rest: RestConfig | None = None
) -> Accounts:
    """Return accounts whose REST API is at an address; by default one."""
    rest = rest or RestConfig(base_url=url)

    async def none_known(_: Sequence[str]) -> Collection[str]:
        return ()

    return Accounts(
        specs or (AccountSpec(api_key="key"),),
        AccountsConfig(),
        open_account=lambda spec: open_account(spec, config or AccountConfig(), lambda key, _: Rest(rest, key)),
        ours=none_known,
    )


def pool_at(
    url: str,
    *,
    limit: int = 5,
    config: PoolConfig | None = None,
    accounts: Accounts | None = None,
    **parts: object,
) -> Pool:
    """Return a pool with accounts at an address; by default one, with as many permits, which settle at once."""
    accounts = accounts or accounts_at(url, AccountSpec(api_key="key", max_sessions=limit))
    permits = Permits(PermitsConfig(settle_s=0), accounts=accounts.limits)
    config = config or PoolConfig(egress=EgressConfig(api_url=url))
    return Pool(config, accounts, permits, Metrics(), **parts)  # type: ignore[arg-type]  # parts of the pool
