"""Configurations of the gateway's components, built from the settings."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from liveavatar_gateway.auditing import AuditConfig
from liveavatar_gateway.auth.access import AccessConfig
from liveavatar_gateway.auth.auth_file import PoolShare
from liveavatar_gateway.config.pool_file import AccountEntry, PoolFile
from liveavatar_gateway.config.secrets import split_keys
from liveavatar_gateway.config.settings import Settings
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.rotation_plan import RotationConfig
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.scheduler import SchedulerConfig
from liveavatar_gateway.pool.account_health import AccountState, HealthConfig
from liveavatar_gateway.pool.breaker import BreakerConfig
from liveavatar_gateway.pool.fair_order import Shares, TenantShare
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.factory import OFF, RegistryConfig, account_name, fingerprint
from liveavatar_gateway.rooms.tokens import LiveKitConfig
from liveavatar_gateway.rpc.admin_service import AdminConfig
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.interceptors.calls import CallLimits
from liveavatar_gateway.rpc.peer import networks
from liveavatar_gateway.sessions.adoption import AdoptionConfig
from liveavatar_gateway.sessions.directory import DirectoryConfig
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.sweeper import SweeperConfig
from liveavatar_gateway.upstream.account import AccountConfig, AccountSpec
from liveavatar_gateway.upstream.accounts import AccountsConfig
from liveavatar_gateway.upstream.avatar_catalog import CatalogConfig
from liveavatar_gateway.upstream.egress import EgressConfig, read_patterns
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import PoolConfig
from liveavatar_gateway.upstream.rest import RestConfig
from liveavatar_gateway.upstream.stopper import StopConfig

_POOL: Final = "pool"
"""Account under which sessions of a gateway with a file of accounts are in the registry."""
_CALLS: Final = 1000
"""Calls that do not belong to sessions, at once."""
_CALLS_PER_SESSION: Final = 4
"""Two streams, and their successors while a caller resumes them."""


def livekit(settings: Settings) -> LiveKitConfig | None:
    """Return the configuration of the callers' own rooms; None without a LiveKit server."""
    if not settings.livekit_url:
        return None
    return LiveKitConfig(
        url=settings.livekit_url,
        api_key=settings.livekit_key.get_secret_value(),
        api_secret=settings.livekit_secret.get_secret_value(),
    )


def speech(settings: Settings) -> SpeechConfig:
    """Return the configuration of speech."""
    return SpeechConfig(
        scheduler=SchedulerConfig(
            first_packet_s=settings.first_packet_s,
            margin_s=settings.margin_s,
            min_packet_s=settings.min_packet_s,
            max_packet_s=settings.max_packet_s,
            max_lead_s=settings.max_lead_s,
            flush_s=settings.flush_s,
            queue_lead_s=settings.queue_lead_s,
        ),
        max_buffered_s=settings.max_buffered_s,
        interrupt_timeout_s=settings.interrupt_timeout_s,
    )


def directory(settings: Settings) -> DirectoryConfig:
    """Return the configuration of sessions."""
    return DirectoryConfig(
        session=SessionConfig(
            speech=speech(settings),
            readiness=ReadinessConfig(
                ready_timeout_s=settings.ready_timeout_s, probe_after_s=settings.probe_after_s
            ),
            rotation=RotationConfig(lead_s=settings.rotation_lead_s),
            expiring_notice_s=settings.expiring_notice_s,
            end_tail_s=settings.end_tail_s,
            hosted_poll_s=settings.hosted_poll_s,
        ),
        reconnect=ReconnectConfig(budget_s=settings.reconnect_budget_s),
        retention_s=settings.retention_s,
        max_chunk_bytes=settings.max_chunk_bytes,
        usage_label=settings.usage_label,
    )


def sweeper(settings: Settings) -> SweeperConfig:
    """Return the configuration of the search for sessions of dead processes."""
    return SweeperConfig(sweep_s=settings.sweep_s)


def adoption(settings: Settings) -> AdoptionConfig:
    """Return the configuration of the adoption of sessions of dead processes."""
    return AdoptionConfig(renew_s=_lease(settings).renew_s, retention_s=settings.retention_s)


def account(settings: Settings) -> AccountConfig:
    """Return the configuration that all accounts share."""
    return AccountConfig(
        health=HealthConfig(
            breaker=BreakerConfig(failures=settings.breaker_failures, interval_s=settings.breaker_s),
            starts_per_s=settings.starts_per_s,
            credits_retry_s=settings.credits_poll_s,
        ),
        stop=StopConfig(late_start_s=2 * settings.rest_timeout_s),
    )


def accounts(settings: Settings) -> AccountsConfig:
    """Return the periods at which accounts are looked at."""
    return AccountsConfig(
        credits_s=settings.credits_poll_s,
        broke_s=min(settings.breaker_s, settings.credits_poll_s),
        foreign_s=settings.foreign_poll_s,
    )


def shares(of_tenants: Mapping[str, PoolShare], specs: Collection[AccountSpec]) -> Shares:
    """Return the parts of the pool that tenants have; floors are kept on the accounts that the tenant may use."""
    active = [spec for spec in specs if spec.state is not AccountState.RETIRED]
    found = {}
    for name, share in of_tenants.items():
        usable = tuple(spec.id for spec in active if spec.tenants is None or name in spec.tenants)
        # Without any account, nothing can be kept for the tenant; an empty list would stand for all accounts.
        floor = share.reserved if usable else 0
        found[name] = TenantShare(weight=share.weight, floor=floor, ceiling=share.ceiling, accounts=usable)
    return Shares(by_tenant=found)


def account_specs(settings: Settings, content: PoolFile | None) -> Sequence[AccountSpec]:
    """Return the accounts: those of the file, or the one of the API key; and those of retired keys."""
    if content is None:
        key = settings.api_key.get_secret_value()
        only = AccountSpec(id=account_name(settings.api_url, key), api_key=key, max_sessions=settings.max_sessions)
        own = [only]
    else:
        own = [_account_spec(settings, name, entry) for name, entry in content.accounts.items()]
    known = {name for spec in own for name in (spec.id, *spec.former_ids)}
    retired = [
        AccountSpec(
            name=f"retired-{fingerprint(name)}",
            id=name,
            api_key=key,
            state=AccountState.RETIRED,
            is_former=True,
        )
        for name, key in retired_keys(settings).items()
        if name not in known
    ]
    return [*own, *retired]


def _account_spec(settings: Settings, name: str, entry: AccountEntry) -> AccountSpec:
    return AccountSpec(
        name=name,
        id=name,
        # Sessions of a gateway that had this key before there was a file of accounts.
        former_ids=frozenset({account_name(settings.api_url, entry.api_key)}),
        api_key=entry.api_key,
        max_sessions=entry.max_sessions,
        cost=entry.cost,
        avatars=None if entry.avatars is None else frozenset(entry.avatars),
        tenants=None if entry.tenants is None else frozenset(entry.tenants),
        state=entry.state,
    )


def permits(settings: Settings) -> PermitsConfig:
    """Return the bounds of the queue for permits."""
    return PermitsConfig(
        limit=settings.max_sessions,
        max_waiting=settings.max_waiting,
        wait_s=settings.wait_s,
        settle_s=settings.settle_s,
    )


def avatars(settings: Settings) -> CatalogConfig:
    """Return the configuration of the list of avatars."""
    return CatalogConfig(ttl_s=settings.avatars_ttl_s)


def audit(settings: Settings) -> AuditConfig:
    """Return the configuration of the audit log."""
    return AuditConfig(target=settings.audit_file, trusted_proxies=networks(settings.trusted_proxies))


def pool(settings: Settings) -> PoolConfig:
    """Return the configuration of command sockets and keep-alives."""
    return PoolConfig(
        keep_alive=KeepAliveConfig(interval_s=settings.keep_alive_s),
        connect_timeout_s=settings.connect_timeout_s,
        wait_s=settings.wait_s,
        egress=EgressConfig(
            api_url=settings.api_url,
            hosts=read_patterns(settings.upstream_hosts),
            proxies=settings.proxies,
        ),
    )


def registry(settings: Settings, content: PoolFile | None = None) -> RegistryConfig:
    """Return the configuration of the registry."""
    retired = list(retired_keys(settings))
    if content is not None:
        # The names of accounts, and those of their keys from before there was a file of accounts.
        retired += content.accounts
        retired += [account_name(settings.api_url, entry.api_key) for entry in content.accounts.values()]
    return RegistryConfig(
        file=settings.registry_file,
        key=settings.registry_key.get_secret_value(),
        key_file=settings.registry_key_file,
        account=_POOL
        if settings.pool_file
        else account_name(settings.api_url, settings.api_key.get_secret_value()),
        retired_accounts=tuple(retired),
        lease=_lease(settings),
    )


def retired_keys(settings: Settings) -> dict[str, str]:
    """Return the retired API keys by the registry's names of their accounts."""
    keys = split_keys(settings.retired_api_keys.get_secret_value())
    found = {account_name(settings.api_url, key): key for key in keys}
    found.pop(account_name(settings.api_url, settings.api_key.get_secret_value()), None)
    return found


def rest(settings: Settings) -> RestConfig:
    """Return the configuration of LiveAvatar's REST API."""
    return RestConfig(base_url=settings.api_url, timeout_s=settings.rest_timeout_s, proxies=settings.proxies)


def access(settings: Settings) -> AccessConfig:
    """Return the configuration of access control."""
    return AccessConfig(
        file=settings.auth_file,
        has_registry=settings.registry_file != OFF,
        credential_grace_s=settings.credential_grace_s,
        proxies=settings.proxies,
    )


def rpc(settings: Settings) -> RpcConfig:
    """Return the configuration of the callers' services."""
    return RpcConfig(
        speech=speech(settings),
        max_chunk_bytes=settings.max_chunk_bytes,
        detach_grace_s=settings.detach_grace_s,
        livekit_rooms=bool(settings.livekit_url),
        viewer_absence_s=settings.viewer_absence_s,
        ack_interval_s=settings.ack_interval_s,
        heartbeat_s=settings.heartbeat_s,
        first_message_timeout_s=settings.first_message_timeout_s,
        watch_progress_s=settings.watch_progress_s,
    )


def max_sessions(settings: Settings, content: PoolFile | None) -> int:
    """Return the concurrent sessions of all accounts together."""
    return settings.max_sessions if content is None else content.max_sessions


def call_limits(settings: Settings, content: PoolFile | None = None) -> CallLimits:
    """Return the limits of calls at once."""
    return CallLimits(
        calls=_CALLS + _CALLS_PER_SESSION * max_sessions(settings, content)
        if settings.max_calls is None
        else settings.max_calls,
        watches=settings.max_watches,
        health_calls=settings.max_health_calls,
    )


def admin(settings: Settings) -> AdminConfig:
    """Return the configuration of AdminService."""
    return AdminConfig(drain_grace_s=settings.drain_grace_s)


def _lease(settings: Settings) -> LeaseConfig:
    return LeaseConfig(ttl_s=settings.lease_s, renew_s=settings.lease_s / 4, grace_s=settings.lease_s / 2)
