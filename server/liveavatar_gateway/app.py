"""Wiring: builds everything, owns it, and takes it down in order."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from liveavatar.gateway.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    audio_service_pb2,
    audio_service_pb2_grpc,
    session_service_pb2,
    session_service_pb2_grpc,
)
from liveavatar_gateway.addresses import host_port, listen_problem, listen_refusal
from liveavatar_gateway.certificates import KeyPair, ServerCertificate, read_pair
from liveavatar_gateway.config import ConfigError, Settings, read_secret
from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.logs import dropped_line_count
from liveavatar_gateway.registry.base import Registry
from liveavatar_gateway.registry.factory import make_registry
from liveavatar_gateway.registry.sealing import BadKey
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.rooms.tokens import LiveKitRooms
from liveavatar_gateway.rpc.admin_service import AdminService
from liveavatar_gateway.rpc.audio_service import AudioService
from liveavatar_gateway.rpc.interceptors.bounds import TRANSPORT_METADATA_BYTES, BoundsInterceptor
from liveavatar_gateway.rpc.interceptors.errors import ErrorInterceptor
from liveavatar_gateway.rpc.interceptors.metrics import MetricsInterceptor
from liveavatar_gateway.rpc.session_service import SessionService
from liveavatar_gateway.sessions.adoption import Adoption
from liveavatar_gateway.sessions.create_readiness import CreateReadiness
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.drain import Drain
from liveavatar_gateway.sessions.inventory import Inventory
from liveavatar_gateway.sessions.journal import JournalWriter, write_journals
from liveavatar_gateway.sessions.sweeper import Sweeper
from liveavatar_gateway.telemetry.endpoint import Endpoint
from liveavatar_gateway.telemetry.lag import watch_lag
from liveavatar_gateway.telemetry.metrics import Metrics, Snapshot
from liveavatar_gateway.upstream.pool import Pool
from liveavatar_gateway.upstream.rest import Rest
from liveavatar_gateway.upstream.stopper import RetiredKey, Stopper

_log = structlog.get_logger(__name__)

SERVICES: Final = (
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
    audio_service_pb2.DESCRIPTOR.services_by_name["AudioService"].full_name,
)
ADMIN_SERVICE: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
CREATE: Final = "create"
"""Health service that says whether a create can succeed; the others say whether streams and resumes are taken."""
_CHUNK_HEADROOM_BYTES: Final = 4 * 1024 * 1024
"""Room between the largest chunk that is taken and the largest message that is read."""
_STOP_RESERVE_S: Final = 5.0
"""Share of the drain's grace that is kept for stopping sessions upstream, at most."""
_MOST_IDS_LOGGED: Final = 100


def _max_message_bytes(max_chunk_bytes: int) -> int:
    """Return the largest message that is read.

    gRPC ends the stream of a larger one without a reason of ours, so chunks far above their limit still fit: they
    are refused as CHUNK_TOO_LARGE, and only their utterance is lost. Each stream holds one message at a time.
    """
    return max(4 * max_chunk_bytes, max_chunk_bytes + _CHUNK_HEADROOM_BYTES)


class App:
    """A whole gateway. `async with App(settings) as app` serves; leaving it drains nothing, but stops everything.

    Order of shutdown: `drain` (no new sessions, go_away, wait for speech, end and stop sessions), then on exit
    end what is left, wait for its stops, close the gRPC server, write the books, leave the registry, close REST,
    and last the port for metrics.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self._rest = Rest(settings.rest(), settings.api_key.get_secret_value(), metrics=self.metrics)
        livekit = settings.livekit()
        rooms = None if livekit is None else LiveKitRooms(livekit)
        self.pool = Pool(settings.pool(), self._rest, self.metrics, rooms=rooms)
        self._registry = _registry(settings)
        lease = settings.registry().lease
        self._journals = JournalWriter(
            self._registry,
            self.metrics,
            renew_s=lease.renew_s,
            lease_s=lease.ttl_s,
            address=lambda: settings.advertised_address or self.address,
        )
        self._retired = {
            account: Rest(settings.rest(), key, metrics=self.metrics)
            for account, key in settings.retired_keys().items()
        }
        stops = settings.pool().stops
        self._retired_stops = {
            account: Stopper(stops, RetiredKey(rest, self._rest)) for account, rest in self._retired.items()
        }
        self._adoption = Adoption(settings.adoption(), self._journals, self.pool, retired=self._retired_stops)
        self._create_readiness = CreateReadiness(
            self._journals,
            self.pool.places,
            is_draining=lambda: self.directory.draining,
            credits_left=self._rest.credits_left,
            publish=self._set_create_readiness,
        )
        self.directory = Directory(
            settings.directory(),
            self.pool,
            self._journals,
            self.metrics,
            adoption=self._adoption,
            create_listener=self._create_readiness,
        )
        self.sweeper = Sweeper(
            settings.sweeper(),
            self._journals,
            self.pool,
            rest=self._rest,
            directory=self.directory,
            adoption=self._adoption,
        )
        self.pool.find_orphans = self.sweeper.find_orphans
        self._sweep: asyncio.Task[None] | None = None
        self._keep: asyncio.Task[None] | None = None
        self._grace_until_s = 0.0
        """Until when a drain may go on, in the loop's time; 0 without one."""
        self._health = HealthServicer()
        self._drain = Drain(self.directory, self._set_serving)
        self.reloads = FileReloads()
        """Files that are read again; whoever has another one adds it."""
        self._certificate: ServerCertificate | None = None
        self._beside: list[asyncio.Task[None]] = []
        """Tasks that no session needs; they end first."""
        self._server: grpc.aio.Server | None = None
        self._endpoint: Endpoint | None = None
        self._lag: asyncio.Task[None] | None = None
        self._admin_server: grpc.aio.Server | None = None
        self.port = 0
        self.admin_port: int | None = None

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        return host_port(self._settings.host, self.port)

    @property
    def metrics_url(self) -> str | None:
        """Where metrics are; None when they are off."""
        if self._endpoint is None:
            return None
        return f"http://{host_port(self._settings.host, self._endpoint.port)}/metrics"

    @property
    def admin_address(self) -> str:
        """Where operators reach it, `host:port`; empty when they do not."""
        return "" if self.admin_port is None else host_port(self._settings.admin_host, self.admin_port)

    async def __aenter__(self) -> Self:
        try:
            await self._registry.__aenter__()
        except RegistryUnavailable as error:
            raise ConfigError(f"GATEWAY_REGISTRY_FILE: {error}") from None
        await self.directory.__aenter__()
        await self._open_endpoint()
        server = grpc.aio.server(
            interceptors=[MetricsInterceptor(self.metrics), *self._interceptors()], options=self._options()
        )
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(
            SessionService(self._settings.rpc(), self.directory, self.pool.places), server
        )
        audio_service_pb2_grpc.add_AudioServiceServicer_to_server(
            AudioService(self._settings.rpc(), self.directory), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            reflection.enable_server_reflection((*SERVICES, reflection.SERVICE_NAME), server)
        self._read_certificate()
        self.port = self._bind(server, self._settings.host, self._settings.port, "GATEWAY")
        await self._serve_operators()
        # Before the first caller is heard: it may be one of those whose sessions are taken over here. Behind all
        # that can fail: a start that fails has to leave them to one that works.
        await self.sweeper.sweep()
        await server.start()
        self._server = server
        self._keep = asyncio.create_task(write_journals(self._journals), name="registry/journals")
        self._sweep = asyncio.create_task(self.sweeper.run(), name="registry/sweep")
        self._reload_secrets()
        self._beside = [
            asyncio.create_task(self.reloads.watch(), name="reload/watch"),
            asyncio.create_task(self._create_readiness.watch(), name="create-readiness/watch"),
            asyncio.create_task(self._create_readiness.probe(), name="create-readiness/probe"),
        ]
        await self._set_serving(True)
        return self

    async def _open_endpoint(self) -> None:
        host, port = self._settings.host, self._settings.metrics_port
        if port is None:
            return
        endpoint = Endpoint(
            self.metrics, self._snapshot, lambda: self._create_readiness.refusal, host=host, port=port
        )
        try:
            self._endpoint = await endpoint.__aenter__()
        except OSError as error:
            raise ConfigError(
                listen_refusal(error, host, port, host_setting="GATEWAY_HOST", port_setting="GATEWAY_METRICS_PORT")
            ) from None
        self._lag = asyncio.create_task(watch_lag(self.metrics), name="event-loop-lag")

    def _snapshot(self) -> Snapshot:
        places = self.pool.places
        return Snapshot(
            sessions=Counter(session.state for session in self.directory.living()),
            places_used=places.used,
            places_limit=places.limit,
            waiting=places.waiting,
            stops_pending=self.pool.stops.pending,
            draining=self.directory.draining,
            tasks=len(asyncio.all_tasks()),
            dropped_log_lines=dropped_line_count(),
        )

    async def _serve_operators(self) -> None:
        """On a port of their own, if they have one."""
        settings = self._settings
        if settings.admin_port is None:
            return
        server = grpc.aio.server(interceptors=self._interceptors(), options=self._options())
        lease_s = settings.registry().lease.ttl_s
        ownership = Inventory(self._registry, self.directory, self._adoption, lease_s=lease_s)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminService(settings.admin(), self.directory, self._drain, self.pool.places, ownership), server
        )
        if settings.reflection:
            reflection.enable_server_reflection((ADMIN_SERVICE, reflection.SERVICE_NAME), server)
        self.admin_port = self._bind(server, settings.admin_host, settings.admin_port, "GATEWAY_ADMIN")
        await server.start()
        self._admin_server = server

    def _bind(self, server: grpc.aio.Server, host: str, port: int, setting: str) -> int:
        where = host_port(host, port)
        bound = 0
        with contextlib.suppress(RuntimeError):
            if self._certificate is None:
                bound = server.add_insecure_port(where)
            else:
                bound = server.add_secure_port(where, self._certificate.credentials())
        if bound == 0:
            # gRPC does not say why; the operating system does.
            raise ConfigError(
                listen_refusal(
                    listen_problem(host, port),
                    host,
                    port,
                    host_setting=f"{setting}_HOST",
                    port_setting=f"{setting}_PORT",
                )
            )
        return bound

    def _read_certificate(self) -> None:
        cert, key = self._settings.tls_cert_file, self._settings.tls_key_file
        if cert is None or key is None:
            return
        pair = read_pair(cert, key)
        certificate = self._certificate = ServerCertificate(pair)
        _log.info("tls.certificate", not_after=pair.not_after)

        def use(fresh: KeyPair) -> bool:
            if fresh == certificate.pair:
                return False
            certificate.pair = fresh
            _log.info("tls.certificate", not_after=fresh.not_after)
            return True

        self.reloads.add("TLS certificate", (cert, key), lambda: read_pair(cert, key), use, watched=True)

    def _reload_secrets(self) -> None:
        """Have the files of secrets read again on SIGHUP, but for those that a variable goes before."""
        settings = self._settings
        if (file := settings.api_key_file) and settings.uses_file("api_key"):
            self.reloads.add("LiveAvatar API key", (file,), lambda: read_secret("api_key", file), self._use_key)
        rooms, secret_file = self.pool.rooms, settings.livekit_secret_file
        if rooms is not None and secret_file and settings.uses_file("livekit_secret"):
            self.reloads.add(
                "LiveKit secret",
                (secret_file,),
                lambda: read_secret("livekit_secret", secret_file),
                rooms.use_secret,
            )

    def _use_key(self, api_key: str) -> bool:
        changed = self._rest.use_key(api_key)
        if changed:
            self._create_readiness.probe_again()
        return changed

    def _interceptors(self) -> Sequence[grpc.aio.ServerInterceptor]:
        timeout_s = self._settings.first_message_timeout_s
        return [ErrorInterceptor(), BoundsInterceptor(self.metrics, first_message_timeout_s=timeout_s)]

    def _options(self) -> Sequence[tuple[str, Any]]:
        return (
            ("grpc.so_reuseport", int(self._settings.so_reuseport)),
            # Without it C-core's bandwidth estimator hides seconds of speech and hundreds of MB in its windows.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_receive_message_length", _max_message_bytes(self._settings.max_chunk_bytes)),
            # Between two different values C-core refuses at random.
            ("grpc.max_metadata_size", TRANSPORT_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", TRANSPORT_METADATA_BYTES),
            # A dead caller is noticed within half a minute, so that its session can be given its grace and ended.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # gRPC waits its own 60 s for a ping's answer where this is not set, whatever keepalive's timeout says.
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # Strictly below what our clients send, or they would be told to go away for pinging too much.
            ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 9_000),
        )

    async def _set_serving(self, serving: bool) -> None:  # noqa: FBT001 - the one thing it says
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)
        await self._create_readiness.announce()

    async def _set_create_readiness(self, ready: bool) -> None:  # noqa: FBT001 - the one thing it says
        answer = health_pb2.HealthCheckResponse
        await self._health.set(CREATE, answer.SERVING if ready else answer.NOT_SERVING)

    async def drain(self) -> None:
        """Finish: no new sessions, speech may end within the grace, then all sessions are ended."""
        grace_s = self._settings.drain_grace_s
        self._grace_until_s = asyncio.get_running_loop().time() + grace_s
        await self._drain.finish(grace_s, min(_STOP_RESERVE_S, grace_s / 4))

    def hurry(self) -> None:
        """Cut what a drain still waits for: all sessions begin to end now."""
        self.directory.end_all(EndReason.DRAINED)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Each step for itself: whatever fails in one, the sessions of the others are stopped.
        for step in (
            self._stop_looking,
            self._end_sessions,
            self._await_stops,
            self._stop_servers,
            self._leave_registry,
            self._stop_metrics,
        ):
            try:
                await step()
            except Exception:  # noqa: BLE001 - what is left to do is worth more than an exit that is in order
                _log.exception("shutdown.step_failed", step=step.__name__)

    async def _stop_looking(self) -> None:
        # Nobody else's sessions are looked for from here on: their stops would not be waited for.
        await _cancelled(self._sweep)
        for task in self._beside:
            await _cancelled(task)

    async def _end_sessions(self) -> None:
        await self.directory.__aexit__(None, None, None)

    async def _await_stops(self) -> None:
        now_s = asyncio.get_running_loop().time()
        left = await self.pool.close(max(self._grace_until_s - now_s, 0.0) + _STOP_RESERVE_S)
        for stops in self._retired_stops.values():
            left = [*left, *stops.pending_ids]
            await stops.give_up()
        if left:
            _log.error(
                "shutdown.sessions_may_still_run", count=len(left), upstream_sessions=left[:_MOST_IDS_LOGGED]
            )

    async def _stop_servers(self) -> None:
        if self._server is not None:
            # Handlers return by themselves once their session has ended; this is for those of no session.
            await self._server.stop(1.0)
        if self._admin_server is not None:
            await self._admin_server.stop(1.0)

    async def _leave_registry(self) -> None:
        await _cancelled(self._keep)
        await self._registry.__aexit__(None, None, None)
        for rest in (self._rest, *self._retired.values()):
            await rest.aclose()

    async def _stop_metrics(self) -> None:
        await _cancelled(self._lag)
        if self._endpoint is not None:
            await self._endpoint.__aexit__(None, None, None)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end; a fault in it was logged by itself."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _registry(settings: Settings) -> Registry:
    try:
        return make_registry(settings.registry())
    except BadKey as error:
        raise ConfigError(f"GATEWAY_REGISTRY_KEY: {error}") from None
    except RegistryUnavailable as error:
        raise ConfigError(f"GATEWAY_REGISTRY_FILE: {error}") from None


async def serve(settings: Settings, stop: asyncio.Event, on_ready: Callable[[App], None]) -> None:
    """Serve until `stop` is set, then drain and take everything down.

    Raises:
        ConfigError: it cannot listen.
    """
    async with App(settings) as app:
        on_ready(app)
        await stop.wait()
        await app.drain()
