"""Ports of the gRPC servers: options, addresses, and certificates, which are renewed at run time."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from liveavatar_gateway.addresses import host_port, listen_problem, listen_refusal
from liveavatar_gateway.config import ConfigError, Settings, exposure
from liveavatar_gateway.reloading import FileReloads
from liveavatar_gateway.rpc.interceptors.bounds import TRANSPORT_METADATA_BYTES
from liveavatar_gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from liveavatar_gateway.certificates import ClientAuthorities, KeyPair, ServerCertificate

_log = structlog.get_logger(__name__)

_CHUNK_HEADROOM_BYTES: Final = 4 * 1024 * 1024
"""Difference between the largest accepted chunk and the largest message that gRPC reads."""
_READ_BYTES: Final = 16 * 1024
"""Most bytes of a connection that gRPC reads at once."""
_SETTLE_S: Final = 0.3
"""Time for which a watched file must be unchanged before it is read."""


def _max_message_bytes(max_chunk_bytes: int) -> int:
    """Return the size limit of incoming gRPC messages.

    gRPC ends the stream of a larger message without one of our reasons. Chunks far above their own limit therefore
    still fit: they are refused as CHUNK_TOO_LARGE, and only their utterance fails. Each stream holds one message.
    """
    return max(4 * max_chunk_bytes, max_chunk_bytes + _CHUNK_HEADROOM_BYTES)


def server_options(settings: Settings, *, max_connections: int) -> Sequence[tuple[str, Any]]:
    """Return the options of every gRPC server.

    Args:
        settings: Limits of connections and messages.
        max_connections: Most connections on each port.
    """
    return (
        ("grpc.so_reuseport", int(settings.so_reuseport)),
        # With the probe, C-core's bandwidth estimator buffers seconds of speech and hundreds of MB.
        ("grpc.http2.bdp_probe", 0),
        # By default a connection is read in pieces of megabytes, which a flood of small frames keeps in memory.
        ("grpc.experimental.tcp_read_chunk_size", _READ_BYTES // 2),
        ("grpc.experimental.tcp_max_read_chunk_size", _READ_BYTES),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_connection_idle_ms", round(settings.connection_idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", round(settings.handshake_timeout_s * 1000)),
        # What lies above is refused by the transport, before it costs the event loop anything.
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        ("grpc.max_receive_message_length", _max_message_bytes(settings.max_chunk_bytes)),
        # Between two different limits C-core refuses at random.
        ("grpc.max_metadata_size", TRANSPORT_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", TRANSPORT_METADATA_BYTES),
        # Detects a dead caller within half a minute, so that the grace of its session can begin.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Without this option gRPC waits 60 s for a ping's answer, regardless of the keepalive timeout.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Strictly below the interval of our clients, or they would get GOAWAY for too many pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 9_000),
    )


class Ports:
    """Ports of one process. Numbers are those that the operating system gave, once they are bound."""

    def __init__(self, settings: Settings, reloads: FileReloads, metrics: Metrics) -> None:
        """Prepare.

        Args:
            settings: Hosts, ports and files.
            reloads: Takes the files of certificates, which are read again when they change.
            metrics: Takes note of protections that are off.
        """
        self._settings = settings
        self._reloads = reloads
        self._metrics = metrics
        self._certificate: ServerCertificate | None = None
        self._client_ca: ClientAuthorities | None = None
        self._port = 0
        self._mtls_port: int | None = None
        self._admin_port: int | None = None

    @property
    def address(self) -> str:
        """Address for callers, `host:port`."""
        return host_port(self._settings.host, self._port)

    @property
    def mtls_address(self) -> str:
        """Address for callers with certificates, `host:port`; empty without such a port."""
        return "" if self._mtls_port is None else host_port(self._settings.host, self._mtls_port)

    @property
    def admin_address(self) -> str:
        """Address of AdminService, `host:port`; empty when it is off."""
        return "" if self._admin_port is None else host_port(self._settings.admin_host, self._admin_port)

    def read_certificates(self) -> None:
        """Read the files of certificates, and register them for reloads.

        Raises:
            ConfigError: a file cannot be used.
        """
        self._read_client_ca()
        cert, key = self._settings.tls_cert_file, self._settings.tls_key_file
        if cert is None or key is None:
            return
        from liveavatar_gateway.certificates import ServerCertificate, read_pair  # noqa: PLC0415 - for TLS alone

        pair = read_pair(cert, key)
        certificate = self._certificate = ServerCertificate(pair)
        _log.info("tls.certificate", not_after=pair.not_after)

        def use(renewed: "KeyPair") -> bool:
            changed = certificate.replace(renewed)
            if changed:
                _log.info("tls.certificate", not_after=renewed.not_after)
            return changed

        self._reloads.add("TLS certificate", (cert, key), lambda: read_pair(cert, key), use, watched=True)

    def _read_client_ca(self) -> None:
        file = self._settings.tls_client_ca_file
        if file is None:
            return
        from liveavatar_gateway.certificates import ClientAuthorities, read_authorities  # noqa: PLC0415 - for TLS

        self._client_ca = authorities = ClientAuthorities(read_authorities(file))
        self._reloads.add(
            "client authorities",
            (file,),
            lambda: read_authorities(file),
            authorities.replace,
            watched=True,
            settle_s=_SETTLE_S,
        )

    def bind_callers(self, server: grpc.aio.Server) -> None:
        """Bind a server to the ports for callers.

        Raises:
            ConfigError: a port cannot be bound.
        """
        settings = self._settings
        for protection in exposure.exceptions(settings):
            _log.warning("serve.protection_off", protection=protection, host=settings.host)
            self._metrics.protection_off(protection)
        client_ca = self._client_ca if settings.mtls_port is None else None
        self._port = self._bind(server, settings.host, settings.port, "GATEWAY_PORT", client_ca)
        if settings.mtls_port is not None:
            self._mtls_port = self._bind(
                server, settings.host, settings.mtls_port, "GATEWAY_MTLS_PORT", self._client_ca
            )

    def bind_operators(self, server: grpc.aio.Server, port: int) -> None:
        """Bind a server to the port for operators, who need a certificate from other machines.

        Raises:
            ConfigError: the port cannot be bound.
        """
        host = self._settings.admin_host
        client_ca = None if exposure.is_local(host) else self._client_ca
        self._admin_port = self._bind(
            server, host, port, "GATEWAY_ADMIN_PORT", client_ca, host_setting="GATEWAY_ADMIN_HOST"
        )

    def _bind(
        self,
        server: grpc.aio.Server,
        host: str,
        port: int,
        port_setting: str,
        client_ca: "ClientAuthorities | None",
        *,
        host_setting: str = "GATEWAY_HOST",
    ) -> int:
        where = host_port(host, port)
        bound = 0
        with contextlib.suppress(RuntimeError):
            if self._certificate is None:
                bound = server.add_insecure_port(where)
            else:
                bound = server.add_secure_port(where, self._certificate.credentials(client_ca))
        if bound == 0:
            # gRPC does not report the cause; a plain socket does.
            problem = listen_problem(host, port)
            raise ConfigError(
                listen_refusal(problem, host, port, host_setting=host_setting, port_setting=port_setting)
            )
        return bound
