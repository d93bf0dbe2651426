"""Configurations of the gateway's components, built from the settings."""

from liveavatar_gateway.auditing import AuditConfig
from liveavatar_gateway.auth.access import AccessConfig
from liveavatar_gateway.config.secrets import split_keys
from liveavatar_gateway.config.settings import Settings
from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.rotation_plan import RotationConfig
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.scheduler import SchedulerConfig
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.factory import OFF, RegistryConfig, account_name
from liveavatar_gateway.rooms.tokens import LiveKitConfig
from liveavatar_gateway.rpc.admin_service import AdminConfig
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.peer import networks
from liveavatar_gateway.sessions.adoption import AdoptionConfig
from liveavatar_gateway.sessions.directory import DirectoryConfig
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.sweeper import SweeperConfig
from liveavatar_gateway.upstream.account import AccountConfig
from liveavatar_gateway.upstream.avatar_catalog import CatalogConfig
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import PoolConfig
from liveavatar_gateway.upstream.rest import RestConfig
from liveavatar_gateway.upstream.stopper import StopConfig


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
    """Return the configuration of the LiveAvatar account."""
    return AccountConfig(
        permits=PermitsConfig(
            limit=settings.max_sessions,
            max_waiting=settings.max_waiting,
            wait_s=settings.wait_s,
            settle_s=settings.settle_s,
        ),
        stop=StopConfig(late_start_s=settings.rest_timeout_s),
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
        proxies=settings.proxies,
    )


def registry(settings: Settings) -> RegistryConfig:
    """Return the configuration of the registry."""
    return RegistryConfig(
        file=settings.registry_file,
        key=settings.registry_key.get_secret_value(),
        account=account_name(settings.api_url, settings.api_key.get_secret_value()),
        retired_accounts=tuple(retired_keys(settings)),
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
        ack_interval_s=settings.ack_interval_s,
        heartbeat_s=settings.heartbeat_s,
        first_message_timeout_s=settings.first_message_timeout_s,
        watch_progress_s=settings.watch_progress_s,
    )


def admin(settings: Settings) -> AdminConfig:
    """Return the configuration of AdminService."""
    return AdminConfig(drain_grace_s=settings.drain_grace_s)


def _lease(settings: Settings) -> LeaseConfig:
    return LeaseConfig(ttl_s=settings.lease_s, renew_s=settings.lease_s / 4, grace_s=settings.lease_s / 2)
