"""Composition root: builds all components, owns them, and shuts them down in order."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from liveavatar.gateway.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    audio_service_pb2,
    audio_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from liveavatar_gateway.account_reloads import AccountReloads
from liveavatar_gateway.addresses import host_port, listen_refusal
from liveavatar_gateway.auditing import Auditing
from liveavatar_gateway.auth.access import Access
from liveavatar_gateway.auth.auth_file import UnusableAuthFile
from liveavatar_gateway.config import ConfigError, Settings, components, exposure, pool_file
from liveavatar_gateway.config.pool_file import PoolFile
from liveavatar_gateway.core.errors import BudgetExhausted, RegistryUnavailable
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.descriptors import Descriptors, TooFewDescriptors, share_out
from liveavatar_gateway.logs import dropped_line_count
from liveavatar_gateway.pool.account_health import AccountHealth
from liveavatar_gateway.pool.fair_order import Shares
from liveavatar_gateway.ports import Ports, server_options
from liveavatar_gateway.registry.base import Registry
from liveavatar_gateway.registry.factory import make_registry
from liveavatar_gateway.registry.sealing import BadKey
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.rooms.audience import Audience
from liveavatar_gateway.rooms.servers import RoomServers
from liveavatar_gateway.rooms.tokens import LiveKitRooms
from liveavatar_gateway.rpc.admin_service import AdminService
from liveavatar_gateway.rpc.audio_service import AudioService
from liveavatar_gateway.rpc.health import HealthService
from liveavatar_gateway.rpc.interceptors.authentication import AuthenticationInterceptor
from liveavatar_gateway.rpc.interceptors.bounds import BoundsInterceptor
from liveavatar_gateway.rpc.interceptors.calls import CallLimitInterceptor, SilentCalls
from liveavatar_gateway.rpc.interceptors.errors import ErrorInterceptor
from liveavatar_gateway.rpc.interceptors.metrics import MetricsInterceptor
from liveavatar_gateway.rpc.interceptors.quotas import QuotaInterceptor
from liveavatar_gateway.rpc.session_service import SessionService
from liveavatar_gateway.rpc.unread import UnreadAnswers
from liveavatar_gateway.rpc.wishes import Wishes
from liveavatar_gateway.sessions.account_drains import AccountDrains
from liveavatar_gateway.sessions.adoption import Adoption
from liveavatar_gateway.sessions.billing import Billing
from liveavatar_gateway.sessions.budget_ends import BudgetEnds
from liveavatar_gateway.sessions.create_readiness import CreateReadiness
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.drain import Drain
from liveavatar_gateway.sessions.enforcement import Enforcer
from liveavatar_gateway.sessions.inventory import Inventory
from liveavatar_gateway.sessions.journal import JournalWriter, write_journals
from liveavatar_gateway.sessions.reservations import Reservations
from liveavatar_gateway.sessions.sweeper import Sweeper
from liveavatar_gateway.sessions.usage_report import UsageReport
from liveavatar_gateway.sessions.viewer_watch import ViewerWatch
from liveavatar_gateway.sessions.warm_checks import WarmChecks, WarmChecksConfig
from liveavatar_gateway.sessions.warm_pool import WarmPool
from liveavatar_gateway.sessions.warm_session import WarmServices, WarmSession
from liveavatar_gateway.telemetry.audit import AuditLog
from liveavatar_gateway.telemetry.garbage import watch_garbage
from liveavatar_gateway.telemetry.heap import trimmer, watch_heap
from liveavatar_gateway.telemetry.lag import watch_lag
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot
from liveavatar_gateway.upstream.account import Account, AccountSpec, open_account
from liveavatar_gateway.upstream.accounts import Accounts
from liveavatar_gateway.upstream.avatar_catalog import AvatarCatalog
from liveavatar_gateway.upstream.operations import PoolOperations
from liveavatar_gateway.upstream.permits import Permits
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.rest import Rest
from liveavatar_gateway.upstream.stopper import RefusedKey, RetiredKey, StopCall

if TYPE_CHECKING:
    from liveavatar_gateway.telemetry.endpoint import Endpoint

_log = structlog.get_logger(__name__)

SERVICES: Final = (
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
    audio_service_pb2.DESCRIPTOR.services_by_name["AudioService"].full_name,
)
ADMIN_SERVICE: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
CREATE: Final = "create"
"""Health service name for new sessions; the other names report readiness for streams and resumes."""
_STOP_RESERVE_S: Final = 5.0
"""Largest part of the drain's grace that is reserved for stopping sessions upstream."""
_MAX_LOGGED_IDS: Final = 100


class App:
    """Complete gateway. `async with App(settings) as app` serves; leaving the context stops everything, undrained.

    Order of shutdown: `drain` (no new sessions, go_away, wait for speech, end and stop sessions), then on exit end
    the remaining sessions, wait for their stops, close the gRPC servers, write the journals, leave the registry,
    close REST, close the metrics port, and finally write the last lines of the audit log.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self._descriptors = Descriptors()
        self._audit = _audit(settings)
        self._access = _access(settings, self._audit.log, self.metrics)
        self._pool_content = _pool_content(settings, self._access)
        max_sessions = components.max_sessions(settings, self._pool_content)
        self._options = server_options(
            settings, max_connections=_max_connections(settings, self._descriptors, max_sessions)
        )
        self._unread = UnreadAnswers(
            self.metrics, limit_bytes=settings.max_unread_bytes, timeout_s=settings.write_timeout_s
        )
        self._registry = _registry(settings, self._pool_content)
        lease = components.registry(settings).lease
        self.accounts = Accounts(
            components.account_specs(settings, self._pool_content),
            components.accounts(settings),
            open_account=self._open_account,
            ours=self._known_upstreams,
            on_foreign=lambda account, count: self.permits.count_foreign(account, count),  # noqa: PLW0108 - built below
            free_shares=lambda: self.permits.book.free_shares(self.accounts.limits(), time.monotonic()),
        )
        self._registry.use_accounts(self.accounts.own_ids, self.accounts.former_ids)
        self.permits = Permits(
            components.permits(settings),
            self._registry,
            accounts=self.accounts.limits,
            shares=self._shares,
            loss_pause_s=lease.ttl_s,
            meter=self.metrics.pool,
            name_of=self.accounts.name_of,
            former_names=lambda: {name: self.accounts.of_session(name).id for name in self.accounts.own_ids},
        )
        self._avatars = AvatarCatalog(components.avatars(settings), self.accounts.avatars)
        livekit = components.livekit(settings)
        self._rooms = None if livekit is None else LiveKitRooms(livekit)
        rooms = RoomServers(
            self._rooms,
            self._access.authenticator.livekit,
            allows=self._access.authenticator.may_use_room,
        )
        self.pool = Pool(
            components.pool(settings),
            self.accounts,
            self.permits,
            self.metrics,
            stop_orphans=self._stop_orphans,
            may_connect=lambda: self._descriptors.suffice,
            rooms=rooms,
        )
        self._journals = JournalWriter(
            self._registry,
            self.metrics,
            renew_s=lease.renew_s,
            lease_s=lease.ttl_s,
            address=lambda: settings.advertised_address or self.address,
        )
        self._billing = Billing(
            self._registry,
            self.metrics,
            budget_of=self._access.authenticator.budget,
            on_exhausted=self._end_for_budget,
            is_running=lambda upstream_session_id: upstream_session_id in self.accounts.session_ids,
        )
        self._adoption = Adoption(
            components.adoption(settings),
            self._journals,
            self.pool,
            listener=self._audit.ends,
            billing=self._billing,
        )
        self.warm, self.reservations = self._keepers_of_warm_sessions()
        self._create_readiness = CreateReadiness(
            self._journals,
            self.permits,
            is_draining=lambda: self.directory.draining,
            credits_left=self.accounts.probe,
            accounts_trouble=self.accounts.trouble,
            publish=self._set_create_readiness,
        )
        self.directory = Directory(
            components.directory(settings),
            self.pool,
            self._journals,
            self.metrics,
            adoption=self._adoption,
            billing=self._billing,
            create_listener=self._create_readiness,
            limiter=self._access.limiter,
            warm=self.warm,
            reservations=self.reservations,
        )
        if (ends := self._audit.ends) is not None:
            self.directory.observers.add(ends)
        self._budget_ends = BudgetEnds(lambda session_id: self.directory.local(session_id, tenant=None))
        self.directory.observers.add(self._budget_ends)
        self.reloads = FileReloads()
        """Files that are read again on SIGHUP."""
        self._account_reloads = AccountReloads(
            settings,
            self.reloads,
            self.accounts,
            self._registry,
            self.warm,
            on_change=self._create_readiness.probe_again,
        )
        self.operations = PoolOperations(self.accounts, self.permits, read_files=self._account_reloads.read_again)
        self._audience = Audience(rooms)
        self._viewers = ViewerWatch(self.directory.living, self._audience, self.metrics)
        self.sweeper = Sweeper(
            components.sweeper(settings),
            self._journals,
            self.pool,
            directory=self.directory,
            adoption=self._adoption,
        )
        self._sweep_task: asyncio.Task[None] | None = None
        self._journal_task: asyncio.Task[None] | None = None
        self._billing_task: asyncio.Task[None] | None = None
        self._grace_until_s = 0.0
        """End of the drain's grace in the loop's time; 0 without a drain."""
        self._health = HealthService()
        self._drain = Drain(self.directory, self._set_serving, warm=(self.warm, self.reservations))
        self._ports = Ports(settings, self.reloads, self.metrics)
        self._auxiliary: list[asyncio.Task[None]] = []
        """Tasks that no session needs; cancelled first."""
        self._server: grpc.aio.Server | None = None
        self._endpoint: Endpoint | None = None
        self._lag: asyncio.Task[None] | None = None
        self._admin_server: grpc.aio.Server | None = None

    def _keepers_of_warm_sessions(self) -> tuple[WarmPool, Reservations]:
        services = WarmServices(
            pool=self.pool,
            journals=self._journals,
            billing=self._billing,
            readiness=components.directory(self._settings).session.readiness,
        )
        warm = WarmPool(services, self.metrics, may_pay=self._access.authenticator.is_active)
        if self._pool_content is not None:
            warm.use(self._pool_content.profiles)
        return warm, Reservations(services, self._access.limiter, self.metrics)

    def _unused(self) -> Mapping[str, Iterable[WarmSession]]:
        """Return the sessions without a caller by profile, reservations under an empty name."""
        return {**{stock.name: stock.ready for stock in self.warm.stocks}, "": self.reservations.sessions}

    def _end_for_budget(self, session_id: str, error: BudgetExhausted) -> None:
        # The directory, in which sessions are found, is built after the billing that they use.
        if not (
            self.warm.end_for_budget(session_id, error) or self.reservations.end_for_budget(session_id, error)
        ):
            self._budget_ends.request(session_id, error)

    async def _stop_orphans(self) -> int:
        # The sweeper is built after the pool, in which adopted sessions run.
        return await self.sweeper.find_orphans()

    @property
    def address(self) -> str:
        """Address of the gRPC port, `host:port`."""
        return self._ports.address

    @property
    def mtls_address(self) -> str:
        """Address of the port for callers with certificates, `host:port`; empty without one."""
        return self._ports.mtls_address

    @property
    def admin_address(self) -> str:
        """Address of AdminService, `host:port`; empty when it is off."""
        return self._ports.admin_address

    @property
    def metrics_url(self) -> str | None:
        """URL of the metrics; None when they are off."""
        if self._endpoint is None:
            return None
        return f"http://{host_port(self._endpoint.host, self._endpoint.port)}/metrics"

    async def __aenter__(self) -> Self:
        exposure.check(self._settings)
        try:
            await self._registry.__aenter__()
        except RegistryUnavailable as error:
            raise ConfigError(f"GATEWAY_REGISTRY_FILE: {error}") from None
        await self.directory.__aenter__()
        await self._open_endpoint()
        server = grpc.aio.server(
            interceptors=[MetricsInterceptor(self.metrics), *self._interceptors()],
            options=self._options,
        )
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(
            SessionService(
                components.rpc(self._settings),
                self.directory,
                self.permits,
                Wishes(
                    components.rpc(self._settings),
                    self._access.authenticator,
                    may_use_room_url=self.pool.egress.may_show_room,
                ),
                avatars=self._avatars,
                reservations=self.reservations,
                rooms=self._audience,
            ),
            server,
        )
        audio_service_pb2_grpc.add_AudioServiceServicer_to_server(
            AudioService(components.rpc(self._settings), self.directory, self._access.limiter, self.metrics),
            server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            reflection.enable_server_reflection((*SERVICES, reflection.SERVICE_NAME), server)
        self._ports.read_certificates()
        self._ports.bind_callers(server)
        await self._serve_operators()
        # Before the first call, which may be for a session that is adopted here. After every step that can fail: a
        # start that fails must leave these sessions to a process that works.
        await self.sweeper.sweep()
        await server.start()
        self._server = server
        self._journal_task = asyncio.create_task(write_journals(self._journals), name="registry/journals")
        self._billing_task = asyncio.create_task(self._billing.run(), name="registry/billing")
        self._sweep_task = asyncio.create_task(self.sweeper.run(), name="registry/sweep")
        self._account_reloads.watch(
            self._pool_content, self._rooms, tenants=lambda: self._access.authenticator.tenants
        )
        self._audit.add_to(self.reloads)
        self._access.add_to(self.reloads)
        living = self.directory.living
        enforcer = Enforcer(living, self._access.authenticator, reservations=self.reservations)
        drains = AccountDrains(self.accounts, self.permits, living, warm=self.warm, reserved=self.reservations)
        self._auxiliary = [
            asyncio.create_task(self.reloads.watch(), name="reload/watch"),
            asyncio.create_task(
                self.permits.run(components.registry(self._settings).lease.renew_s), name="permits/renew"
            ),
            asyncio.create_task(self._access.open_calls.watch(), name="access/watch"),
            asyncio.create_task(watch_heap(trimmer()), name="heap/watch"),
            asyncio.create_task(watch_garbage(), name="garbage/watch"),
            asyncio.create_task(enforcer.watch(), name="enforcement/watch"),
            asyncio.create_task(self.warm.run(), name="warm/run"),
            asyncio.create_task(WarmChecks(WarmChecksConfig(), self.pool, self._unused).run(), name="warm/check"),
            asyncio.create_task(self.accounts.run(), name="accounts/watch"),
            asyncio.create_task(drains.watch(), name="accounts/drains"),
            asyncio.create_task(self._viewers.run(), name="viewers/watch"),
            asyncio.create_task(self._create_readiness.watch(), name="create-readiness/watch"),
            asyncio.create_task(self._create_readiness.probe(), name="create-readiness/probe"),
        ]
        await self._set_serving(True)
        return self

    async def _open_endpoint(self) -> None:
        settings = self._settings
        host, port = settings.metrics_host or settings.host, settings.metrics_port
        host_setting = "GATEWAY_METRICS_HOST" if settings.metrics_host else "GATEWAY_HOST"
        if port is None:
            return
        from liveavatar_gateway.telemetry.endpoint import Endpoint  # noqa: PLC0415 - no port, no web framework

        endpoint = Endpoint(
            self.metrics, self._snapshot, lambda: self._create_readiness.refusal, host=host, port=port
        )
        try:
            self._endpoint = await endpoint.__aenter__()
        except OSError as error:
            raise ConfigError(
                listen_refusal(error, host, port, host_setting=host_setting, port_setting="GATEWAY_METRICS_PORT")
            ) from None
        self._lag = asyncio.create_task(watch_lag(self.metrics), name="event-loop-lag")

    def _snapshot(self) -> Snapshot:
        permits, living = self.permits, self.directory.living()
        return Snapshot(
            sessions=Counter(session.state for session in living),
            tenants=Counter(session.tenant for session in living if session.tenant),
            used_permits=permits.used,
            permits=permits.limit,
            waiting=permits.waiting,
            stops_pending=self.accounts.pending_stops,
            draining=self.directory.draining,
            warm={stock.name: stock.counts() for stock in self.warm.stocks},
            reservations=self.reservations.count,
            tasks=len(asyncio.all_tasks()),
            dropped_log_lines=dropped_line_count(),
            dropped_audit_lines=self._audit.dropped_count,
            pool=self.operations.status(),
        )

    async def _serve_operators(self) -> None:
        """Serve AdminService on its own port, if configured."""
        settings = self._settings
        if settings.admin_port is None:
            return
        server = grpc.aio.server(interceptors=self._interceptors(), options=self._options)
        lease_s = components.registry(settings).lease.ttl_s
        inventory = Inventory(self._registry, self.directory, self._adoption, lease_s=lease_s)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminService(
                components.admin(settings),
                self.directory,
                self._drain,
                self.permits,
                inventory,
                usage=UsageReport(self._registry),
                pool=self.operations,
            ),
            server,
        )
        if settings.reflection:
            reflection.enable_server_reflection((ADMIN_SERVICE, reflection.SERVICE_NAME), server)
        self._ports.bind_operators(server, settings.admin_port)
        await server.start()
        self._admin_server = server

    def _open_account(self, spec: AccountSpec) -> Account:
        return open_account(
            spec,
            components.account(self._settings),
            self._rest_of,
            # A newer key of the same account can stop what a revoked key started.
            make_stop_call=(lambda rest: RetiredKey(rest, self._stop_calls)) if spec.is_former else None,
        )

    def _shares(self) -> Shares:
        return components.shares(self._access.authenticator.pool_shares(), [one.spec for one in self.accounts])

    def _stop_calls(self) -> Sequence[StopCall]:
        """Return the stop calls of all accounts that are configured, also of those that start no sessions now."""
        now_s = time.monotonic()
        return [
            RefusedKey(one.refusal(now_s, sandbox=True)) if one.health.has_bad_key else one.rest
            for one in self.accounts
            if not one.spec.is_former
        ]

    def _rest_of(self, api_key: str, health: AccountHealth) -> Rest:
        return Rest(
            components.rest(self._settings),
            api_key,
            metrics=self.metrics,
            on_budget=lambda budget: health.note_budget(budget, time.monotonic()),
        )

    async def _known_upstreams(self, upstream_session_ids: Sequence[str]) -> Collection[str]:
        return (await self._registry.session_ids(upstream_session_ids)).keys()

    def _interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        timeout_s = self._settings.first_message_timeout_s
        silent_calls = SilentCalls(self._settings.max_silent_calls)
        return [
            ErrorInterceptor(),
            *self._audit.interceptors(),
            CallLimitInterceptor(
                components.call_limits(self._settings, self._pool_content), self.metrics, silent_calls
            ),
            AuthenticationInterceptor(self._access.authenticator, self._access.open_calls),
            QuotaInterceptor(self._access.limiter),
            BoundsInterceptor(
                self.metrics,
                first_message_timeout_s=timeout_s,
                silent_calls=silent_calls,
                unread=self._unread,
            ),
        ]

    async def _set_serving(self, serving: bool) -> None:  # noqa: FBT001 - the only argument
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        for service in ("", *SERVICES):
            self._health.set(service, status)
        await self._create_readiness.announce()

    async def _set_create_readiness(self, ready: bool) -> None:  # noqa: FBT001 - the only argument
        answer = health_pb2.HealthCheckResponse
        self._health.set(CREATE, answer.SERVING if ready else answer.NOT_SERVING)

    async def drain(self) -> None:
        """Refuse new sessions, let speech end within the grace, then end all sessions."""
        grace_s = self._settings.drain_grace_s
        self._grace_until_s = asyncio.get_running_loop().time() + grace_s
        self._audit.drained(grace_s)
        await self._drain.finish(grace_s, min(_STOP_RESERVE_S, grace_s / 4))

    def hurry(self) -> None:
        """End all sessions now instead of waiting for the drain's grace."""
        self.directory.end_all(EndReason.DRAINED)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A step that fails must not keep the later steps from stopping sessions.
        for step in (
            self._stop_searching,
            self._end_sessions,
            self._await_stops,
            self._stop_servers,
            self._leave_registry,
            self._stop_metrics,
            self._audit.aclose,
        ):
            try:
                await step()
            except Exception:  # noqa: BLE001 - the remaining steps matter more than a clean exit
                _log.exception("shutdown.step_failed", step=step.__name__)

    async def _stop_searching(self) -> None:
        # The stops of sessions adopted after this point would not be awaited.
        await _cancelled(self._sweep_task)
        for task in self._auxiliary:
            await _cancelled(task)

    async def _end_sessions(self) -> None:
        self.warm.close()
        self.reservations.close()
        await self.directory.__aexit__(None, None, None)

    async def _await_stops(self) -> None:
        now_s = asyncio.get_running_loop().time()
        left = await self.pool.close(max(self._grace_until_s - now_s, 0.0) + _STOP_RESERVE_S)
        if left:
            _log.error(
                "shutdown.sessions_may_still_run", count=len(left), upstream_sessions=left[:_MAX_LOGGED_IDS]
            )

    async def _stop_servers(self) -> None:
        if self._server is not None:
            # Handlers of a session return when the session ends; the timeout is for all other handlers.
            await self._server.stop(1.0)
        if self._admin_server is not None:
            await self._admin_server.stop(1.0)

    async def _leave_registry(self) -> None:
        await _cancelled(self._journal_task)
        await _cancelled(self._billing_task)
        await self.permits.close()
        await self._registry.__aexit__(None, None, None)
        await self._avatars.aclose()
        await self._audience.aclose()
        await self.accounts.aclose()
        await self._access.aclose()

    async def _stop_metrics(self) -> None:
        await _cancelled(self._lag)
        if self._endpoint is not None:
            await self._endpoint.__aexit__(None, None, None)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end; the task logs its own faults."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _pool_content(settings: Settings, access: Access) -> PoolFile | None:
    if settings.pool_file is None:
        return None
    try:
        return pool_file.read(settings.pool_file, tenants=access.authenticator.tenants)
    except pool_file.UnusablePoolFile as error:
        raise ConfigError(str(error)) from None


def _max_connections(settings: Settings, descriptors: Descriptors, max_sessions: int) -> int:
    """Return how many connections each port may have."""
    ports = 1 + (settings.mtls_port is not None) + (settings.admin_port is not None)
    try:
        shares = share_out(
            descriptors.limit,
            max_connections=settings.max_connections,
            max_sessions=max_sessions,
            ports=ports,
        )
    except TooFewDescriptors as error:
        raise ConfigError(str(error)) from None
    if shares.connections < settings.max_connections:
        _log.warning("serve.few_descriptors", limit=shares.limit, max_connections=shares.connections)
    return shares.connections


def _access(settings: Settings, audit: AuditLog | None, metrics: Metrics) -> Access:
    try:
        return Access(components.access(settings), audit, refused=metrics.quota_refused)
    except UnusableAuthFile as error:
        raise ConfigError(str(error)) from None


def _audit(settings: Settings) -> Auditing:
    try:
        return Auditing(components.audit(settings))
    except ValueError as error:
        raise ConfigError(f"GATEWAY_AUDIT_FILE: {error}") from None


def _registry(settings: Settings, content: PoolFile | None) -> Registry:
    try:
        return make_registry(components.registry(settings, content))
    except BadKey as error:
        raise ConfigError(f"GATEWAY_REGISTRY_KEY: {error}") from None
    except RegistryUnavailable as error:
        raise ConfigError(f"GATEWAY_REGISTRY_FILE: {error}") from None


async def serve(settings: Settings, stop: asyncio.Event, on_ready: Callable[[App], None]) -> None:
    """Serve until `stop` is set, then drain and shut down.

    Raises:
        ConfigError: the gateway cannot listen.
    """
    async with App(settings) as app:
        on_ready(app)
        await stop.wait()
        await app.drain()
