"""Model of all settings: names, defaults, ranges, descriptions, and rules between settings."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import httpx
from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from liveavatar_gateway.core.abandonment import LEAST_VIEWER_ABSENCE_S
from liveavatar_gateway.rpc.peer import networks
from liveavatar_gateway.upstream.egress import read_patterns
from liveavatar_gateway.upstream.proxies import Proxies

PREFIX: Final = "GATEWAY_"
SECRETS: Final = ("api_key", "retired_api_keys", "registry_key", "livekit_key", "livekit_secret")


class ConfigError(ValueError):
    """Unusable configuration; the message names the setting, the cause and the allowed values."""


class Settings(BaseSettings):
    """All settings. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    host: str = Field(
        "127.0.0.1",
        description="Listen address; on the gRPC ports 0.0.0.0 and :: both mean every address, IPv4 and IPv6.",
    )
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 selects a free port.")
    advertised_address: str | None = Field(
        None,
        pattern=r"^(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s/\[\]:]+):\d{1,5}$",
        description='Address at which callers reach this process, "host:port", with IPv6 addresses in brackets. '
        "OWNER_MOVED redirects callers to it. Defaults to the listen address. Set it for each process if the "
        "listen address is 0.0.0.0 or ::, or behind a load balancer.",
    )
    admin_host: str = Field(
        "127.0.0.1",
        description="Listen address of AdminService. Without GATEWAY_AUTH_FILE, every client that reaches it can "
        "end any session.",
    )
    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of AdminService (drain, undrain, status, eject); 0 selects a free port. Off unless set.",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="PEM certificate chain. With certificate and key the gateway serves TLS, otherwise plaintext.",
    )
    tls_key_file: Path | None = Field(None, description="PEM private key of the certificate.")
    tls_client_ca_file: Path | None = Field(
        None,
        description="PEM certificates of the authorities that sign callers' certificates. Callers must then show "
        "one, on GATEWAY_MTLS_PORT if that is set, else on the gRPC port; operators too, off loopback.",
    )
    mtls_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Second gRPC port, for callers with certificates; the first then asks for none. 0 selects a "
        "free port.",
    )
    plaintext: Literal["", "behind-proxy"] = Field(
        "",
        description="`behind-proxy` serves other machines without TLS, because a proxy in front ends it. Without "
        "it, a gateway that other machines can reach needs a certificate.",
    )
    auth_file: Path | None = Field(
        None,
        description="TOML file of tenants with their keys, tokens, certificates and quotas; read again when it "
        "changes. Without it, callers need no credential.",
    )
    anonymous: bool = Field(
        default=False,
        description="Serve other machines without GATEWAY_AUTH_FILE: everybody who reaches the port may call.",
    )
    credential_grace_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Time for which a stream outlives its expired credential, after a `go_away`. A revoked key "
        "ends its streams at once.",
    )
    trusted_proxies: str = Field(
        "",
        description="Networks of the proxies in front, separated by commas, such as `10.0.0.0/8, ::1`. From them, "
        "`x-forwarded-for` names the caller's address in the audit log. Trusts none unless set.",
    )
    reflection: bool = Field(
        default=False,
        description="Serve gRPC reflection, for example for grpcurl. Off by default because it exposes the API.",
    )
    so_reuseport: bool = Field(default=False, description="Let several processes share the gRPC port.")
    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Most connections on each gRPC port; more are closed at once. Fewer if the process may not "
        "open so many descriptors beside those of its sessions; the log then reports it.",
    )
    connection_idle_s: float = Field(
        300.0,
        ge=1,
        le=86_400,
        description="Time after which a connection without a call is closed; clients connect again by themselves. "
        "A connection with a stream is never closed for its age.",
    )
    handshake_timeout_s: float = Field(
        20.0,
        gt=0,
        le=120,
        description="Longest time from the start of a connection to the end of its TLS and HTTP/2 greetings.",
    )
    max_streams_per_connection: int = Field(
        1000,
        ge=100,
        le=100_000,
        description="Most calls at once on a connection. A session takes two; clients keep further calls back "
        "until one ends, without an error.",
    )

    metrics_host: str = Field(
        "",
        description="Listen address of the metrics port, which has no authentication. Default: GATEWAY_HOST.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="HTTP port for /metrics (Prometheus), /healthz and /readyz; usually 9464. 0 selects a free "
        "port. Off unless set.",
    )

    api_url: str = Field(
        "https://api.liveavatar.com",
        pattern=r"^https?://[^\s/@?#]+$",
        description="URL of LiveAvatar's API, without a path. Also read from LIVEAVATAR_API_URL.",
    )
    upstream_hosts: str = Field(
        "",
        description="Hosts that LiveAvatar may name for command sockets and rooms, separated by commas: names, "
        "and `*.` with a domain for its subdomains, such as `*.liveavatar.com, *.livekit.cloud`. Sessions with "
        "other hosts are stopped and refused. Unless set, every public host is allowed. Hosts of the local "
        "network are allowed only if the API is there too.",
    )
    api_key: SecretStr = Field(SecretStr(""), description="LiveAvatar API key. Also read from LIVEAVATAR_API_KEY.")
    api_key_file: Path | None = Field(None, description="File with the API key, as an alternative to the key.")
    retired_api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys used earlier, separated by spaces, commas or newlines. Sessions that a dead process "
        "left in the registry under a retired key are ended; without the key, the log only lists them.",
    )
    retired_api_keys_file: Path | None = Field(
        None, description="File with the retired API keys, as an alternative to the keys."
    )
    pool_file: Path | None = Field(
        None,
        description="TOML file of LiveAvatar accounts, each with an API key and a number of permits; read again "
        "when it or a file of a key changes. Takes the place of the API key and of GATEWAY_MAX_SESSIONS.",
    )
    breaker_failures: int = Field(
        3,
        ge=1,
        le=100,
        description="Failures of LiveAvatar in a row after which an account starts nothing for a while. Lower "
        "spares callers sooner, higher tolerates single failures.",
    )
    breaker_s: float = Field(
        5.0,
        ge=0.1,
        le=300,
        description="Time after which such an account is tried again, with a single start. Lower notices a "
        "recovery sooner, higher calls a failing LiveAvatar less often.",
    )
    starts_per_s: float = Field(
        200.0,
        ge=0.1,
        le=10_000,
        description="Starts in a second on each account, by this process. Lower is kinder to LiveAvatar, higher "
        "opens more sessions at once.",
    )
    credits_poll_s: float = Field(
        60.0,
        ge=1,
        le=86_400,
        description="Interval at which the balance of each account is read. Lower notices added credits sooner.",
    )
    foreign_poll_s: float = Field(
        30.0,
        ge=1,
        le=60,
        description="Interval at which sessions of other programs on the accounts are counted; they take permits. "
        "Lower notices them sooner, higher calls LiveAvatar less often.",
    )
    max_sessions: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Number of permits: concurrent sessions of all processes on the registry, usually the "
        "account's concurrency limit. Too high causes refusals by LiveAvatar (code 4032), too low makes callers "
        "wait without need.",
    )
    max_waiting: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Number of callers that may wait for a permit, in all processes on the registry. Higher "
        "bridges longer peaks; lower refuses sooner.",
    )
    wait_s: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Longest wait for a permit, for callers without a deadline.",
    )
    settle_s: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Minimum time for which a permit stays in use after a stop, because LiveAvatar needs about a "
        "second to free the session. While LiveAvatar takes longer (code 4032 although a session has ended), the "
        "time grows automatically, up to 8 s. Lower risks refusals, higher wastes capacity.",
    )
    rest_timeout_s: float = Field(
        15.0, gt=0, le=120, description="Longest wait for a complete response of LiveAvatar's API."
    )
    avatars_ttl_s: float = Field(
        300.0,
        ge=1,
        le=86_400,
        description="Age at which the list of avatars is fetched again from LiveAvatar, when a caller needs it. "
        "Lower shows new avatars sooner, higher calls LiveAvatar less often.",
    )
    connect_timeout_s: float = Field(
        10.0,
        gt=0,
        le=120,
        description="Longest wait for the command socket to open, including the resolution of its host.",
    )
    ready_timeout_s: float = Field(
        20.0, gt=0, le=120, description="Longest wait, after the socket has opened, for the avatar to be ready."
    )
    probe_after_s: float = Field(
        5.0,
        gt=0,
        le=120,
        description="Delay and interval of the probes sent on a socket that does not report `connected`.",
    )
    reconnect_budget_s: float = Field(
        30.0,
        ge=0,
        le=300,
        description="Time for which a lost command socket is reopened, including sockets that open but do not "
        "last. Then the avatar is given up: the session ends, or, in a LiveKit room of the caller, a new avatar "
        "takes over. Higher survives longer outages of LiveAvatar and is billed for them; 0 never reconnects.",
    )
    keep_alive_s: float = Field(
        60.0,
        ge=1,
        le=240,
        description="Time without a command after which a keep-alive is sent. LiveAvatar ends idle sessions after "
        "5 minutes; some users observed 2 to 3.",
    )
    hosted_poll_s: float = Field(
        5.0,
        ge=1,
        le=60,
        description="Interval at which LiveAvatar's list of active sessions is read while sessions have a hosted "
        "agent (a connector), once per account. Lower notices sooner that an agent hung up, and takes more of "
        "LiveAvatar's rate limit.",
    )
    expiring_notice_s: float = Field(
        15.0,
        ge=0,
        le=600,
        description="Time before a session's limit at which the `expiring` event is sent; also before the end of "
        "a session that nobody uses, at most half of its time without use.",
    )

    rotation_lead_s: float = Field(
        30.0,
        ge=10,
        le=300,
        description="Time before the limit at which the standby avatar of a rotating session is started. Both "
        "avatars are billed until the next pause between two utterances. Higher makes it more likely that a "
        "permit and a pause are found.",
    )

    detach_grace_s: float = Field(
        30.0,
        ge=0,
        le=300,
        description="Time for which a session without an attached stream is kept. Higher survives longer outages "
        "of the caller and is billed for them.",
    )
    registry_file: str = Field(
        "",
        description="SQLite file that keeps sessions across crashes. Processes that share the file take over each "
        "other's sessions. Default: `liveavatar-gateway/registry.db` in the user's state directory "
        "(XDG_STATE_HOME or ~/.local/state). `off` keeps nothing: LiveAvatar then cleans up the sessions of a "
        "killed process and bills minutes for them.",
    )
    registry_key: SecretStr = Field(
        SecretStr(""),
        description="Key that encrypts tokens in the registry: 64 hexadecimal digits, or 32 bytes in base64. "
        "Without it a key file is created beside the registry.",
    )
    registry_key_file: Path | None = Field(
        None,
        description="File with the registry key, as an alternative to the key; created if it is missing. Keep it "
        "on another volume than the registry, so that a copy of one alone reveals nothing.",
    )
    lease_s: float = Field(
        10.0,
        ge=1,
        le=300,
        description="Time without a lease renewal after which another process takes over sessions, if it cannot "
        "check whether their owner lives. Lower takes over sooner, higher tolerates longer pauses.",
    )
    sweep_s: float = Field(
        2.0,
        ge=0.1,
        le=60,
        description="Interval at which the registry is searched for sessions of dead processes.",
    )
    drain_grace_s: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Time for which speech may continue after SIGTERM before sessions are ended.",
    )
    retention_s: float = Field(
        600.0, ge=0, le=86_400, description="Time for which an ended session stays readable."
    )

    livekit_url: str = Field(
        "",
        pattern=r"^(wss?://[^\s/@?#]+/?)?$",
        description="URL of the LiveKit server for the callers' own rooms, `wss://...`. LiveAvatar and the end "
        "users' browsers must be able to reach it. Requires a key and a secret; without a LiveKit server, "
        "sessions in own rooms are refused.",
    )
    livekit_key: SecretStr = Field(SecretStr(""), description="API key of the LiveKit server.")
    livekit_secret: SecretStr = Field(
        SecretStr(""),
        description="API secret of the LiveKit server; signs the tokens of avatars and viewers.",
    )
    livekit_secret_file: Path | None = Field(
        None, description="File with the LiveKit secret, as an alternative to the secret."
    )
    viewer_absence_s: float = Field(
        0.0,
        ge=0,
        le=86_400,
        description="Time after which a session in a LiveKit room of the caller is ended if nobody in the room "
        "can see the avatar, for callers that set no `viewer_absence_timeout`; at least 5, or 0 for never. Lower "
        "saves minutes, higher lets viewers return. Never by default, because an audience may be outside of the "
        "room.",
    )

    usage_label: str = Field(
        "",
        max_length=100,
        description="Key of the session label by whose value usage is broken down, beside day and tenant. Values "
        "beyond 1000 of a tenant and day are counted together.",
    )

    first_packet_s: float = Field(
        0.4,
        ge=0.1,
        le=1.0,
        description="Length of an utterance's first packet. Lower starts to speak sooner, higher tolerates a less "
        "regular source.",
    )
    margin_s: float = Field(
        0.2,
        ge=0.02,
        le=2.0,
        description="Remaining lead at which the next packet is sent. Lower makes fewer packets, higher survives "
        "longer pauses of process and network.",
    )
    min_packet_s: float = Field(
        0.1, ge=0.02, le=1.0, description="Shortest packet, as long as waiting for more audio causes no underrun."
    )
    max_packet_s: float = Field(
        1.0,
        ge=0.2,
        le=10.0,
        description="Longest packet. Packets above 1 s load the avatar's server unevenly.",
    )
    max_lead_s: float = Field(
        3.0,
        ge=0.5,
        le=10.0,
        description="Longest lead of sent audio over playback. Higher bridges longer outages, lower discards less "
        "audio on an interrupt.",
    )
    flush_s: float = Field(
        0.25,
        ge=0.02,
        le=5.0,
        description="Pause of the source after which audio shorter than a first packet is sent.",
    )
    queue_lead_s: float = Field(
        0.4,
        ge=0.0,
        le=3.0,
        description="Time before the end of an utterance at which the next utterance is sent.",
    )
    max_buffered_s: float = Field(
        30.0,
        ge=1,
        le=600,
        description="Audio that a session may buffer, which is the caller's credit. Takes 48 to 384 kB of memory "
        "per second, depending on the format.",
    )
    max_chunk_bytes: int = Field(
        256 * 1024, ge=1024, le=4 * 1024 * 1024, description="Largest audio chunk in one message."
    )
    interrupt_timeout_s: float = Field(
        1.0,
        ge=0.1,
        le=10,
        description="Longest time for which new speech waits for LiveAvatar's answer to an interrupt.",
    )
    end_tail_s: float = Field(
        0.5,
        ge=0,
        le=5,
        description="Delay between the end of speech and the stop of its avatar, when a caller, a drain or a "
        "rotation ends it right after speech. Lower may cut the last sound in the room, higher is billed.",
    )
    ack_interval_s: float = Field(
        1.0,
        ge=0.05,
        le=10,
        description="Interval of playback progress on StreamAudio. Lower is smoother; each report is a message.",
    )
    heartbeat_s: float = Field(
        20.0,
        ge=0,
        le=600,
        description="Time without a message on Attach, StreamAudio and ListenAudio after which a heartbeat is "
        "sent. Lower passes proxies with shorter idle time-outs; each heartbeat is a message. 0 sends none.",
    )
    first_message_timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="Longest time for which a call may be open without its first message. Lower frees the "
        "resources of silent calls sooner, higher tolerates slower networks.",
    )
    max_silent_calls: int = Field(
        64,
        ge=8,
        le=100_000,
        description="Calls that may be open without their first message. Above that, the oldest end with "
        "FIRST_MESSAGE_TIMEOUT, a second after their start at the earliest; a tenth of a second above four times "
        "that number, or at the limit of calls, watches or health calls. Each may hold 4 MiB of a message.",
    )
    max_calls: int | None = Field(
        None,
        ge=16,
        le=1_000_000,
        description="Calls and streams at once, except watches and health; more are refused with "
        "TOO_MANY_CALLS. A session uses two. Default: 1000, and four for each of GATEWAY_MAX_SESSIONS.",
    )
    max_watches: int = Field(
        128,
        ge=1,
        le=100_000,
        description="Streams of WatchSessions and of reflection at once. Each may hold 0.5 MB for its caller.",
    )
    max_health_calls: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Calls and streams of gRPC health at once, which need no credential. A client with health "
        "checks keeps one stream for each connection.",
    )
    write_timeout_s: float = Field(
        60.0,
        ge=1,
        le=600,
        description="Time within which a caller must have read each answer, up to 256 KiB of a list; then the "
        "call ends with ANSWERS_UNREAD. Its session lives for the detach grace. Higher tolerates longer pauses "
        "and slower networks of callers, which can also ask for a smaller page_size.",
    )
    max_unread_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024 * 1024,
        le=16 * 1024**3,
        description="Answers that may wait for their callers, all calls together. Above that, large answers are "
        "refused with TOO_MANY_CALLS, and the connections that hold most are closed if they have read no answer "
        "for 5 s.",
    )
    watch_progress_s: float = Field(
        15.0,
        ge=0.1,
        le=600,
        description="Interval of `progress` on WatchSessions. Lower detects a dead gateway sooner; each message "
        "lists all watched sessions.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level to log.")
    log_format: Literal["console", "json"] = Field(
        "console", description="Log lines for people (console), or for machines (json)."
    )

    audit_file: str = Field(
        "",
        description="File of the audit log, JSON lines; `-` for standard output. Off unless set. SIGHUP opens the "
        "file again, after a rotation.",
    )

    _proxies: Proxies = PrivateAttr(default_factory=Proxies)
    _secrets_from_files: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def create(
        cls, values: Mapping[str, Any], *, proxies: Proxies, secrets_from_files: Collection[str] = ()
    ) -> Self:
        """Build settings with facts of the environment that are no settings.

        Args:
            values: Settings by name.
            proxies: Proxies named by the usual variables, such as HTTPS_PROXY.
            secrets_from_files: Names of the secrets that were read from files.

        Raises:
            pydantic.ValidationError: a value is out of range, or settings contradict each other.
            UnusableProxy: a proxy on the way to LiveAvatar cannot be used.
        """
        settings = cls(**values)
        proxies.check(settings.api_url)
        settings._proxies = proxies
        settings._secrets_from_files = frozenset(secrets_from_files)
        return settings

    @property
    def proxies(self) -> Proxies:
        """Proxies between the gateway and LiveAvatar."""
        return self._proxies

    def uses_file(self, secret: str) -> bool:
        """Return True if a secret was read from its file; a variable takes precedence over the file."""
        return secret in self._secrets_from_files

    def shown(self) -> dict[str, Any]:
        """Return all settings for output, with JSON types; secrets only as "set" or "not set"."""
        values = self.model_dump()
        for secret in SECRETS:
            values[secret] = "set" if values[secret].get_secret_value() else "not set"
        for name, proxy in (
            ("rest_proxy", self._proxies.of_url(self.api_url)),
            ("socket_proxy", self._proxies.socket_proxy(self.api_url)),
        ):
            values[name] = proxy.shown if proxy is not None else "none"
        values["no_proxy"] = ", ".join(self._proxies.exempt) or "none"
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes these arguments by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Disable pydantic's own sources: `load` reads them, so that each error can name the source of a value."""
        return (init_settings,)

    @field_validator("host", "admin_host", "metrics_host", mode="before")
    @classmethod
    def _without_brackets(cls, host: object) -> object:
        if isinstance(host, str) and host.startswith("[") and host.endswith("]"):
            return host[1:-1]
        return host

    @field_validator("viewer_absence_s")
    @classmethod
    def _of_a_usable_length(cls, seconds: float) -> float:
        if 0 < seconds < LEAST_VIEWER_ABSENCE_S:
            raise ValueError(f"must be 0 or at least {LEAST_VIEWER_ABSENCE_S:g}")
        return seconds

    @field_validator("trusted_proxies")
    @classmethod
    def _of_networks(cls, text: str) -> str:
        try:
            networks(text)
        except ValueError as error:
            raise ValueError(f"is not a list of networks: {error}") from None
        return text

    @field_validator("api_url", "livekit_url", mode="before")
    @classmethod
    def _without_credentials(cls, url: object) -> object:
        if isinstance(url, str) and "@" in url:
            raise ValueError("must have no user name and no password")
        return url

    @field_validator("upstream_hosts")
    @classmethod
    def _of_patterns(cls, text: str) -> str:
        read_patterns(text)
        return text

    @field_validator("api_url", "livekit_url")
    @classmethod
    def _with_a_host(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            is_usable = bool(parts.hostname) and parts.port != 0
            # httpx, which makes the calls, is stricter about hosts.
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as error:
            raise ValueError(f"is not an address with a host and a port: {error}") from None
        if not is_usable:
            raise ValueError("is not an address with a host and a port")
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.margin_s > self.first_packet_s:
            raise ValueError(
                "GATEWAY_MARGIN_S must not be above GATEWAY_FIRST_PACKET_S, or every packet would be late"
            )
        if self.max_packet_s > self.max_lead_s:
            raise ValueError(
                "GATEWAY_MAX_PACKET_S must not be above GATEWAY_MAX_LEAD_S, or no full packet could be sent ahead"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE must be set together")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("GATEWAY_TLS_CLIENT_CA_FILE needs GATEWAY_TLS_CERT_FILE: certificates come with TLS")
        if self.mtls_port is not None and self.tls_client_ca_file is None:
            raise ValueError("GATEWAY_MTLS_PORT needs GATEWAY_TLS_CLIENT_CA_FILE")
        if self.anonymous and self.auth_file is not None:
            raise ValueError("GATEWAY_ANONYMOUS and GATEWAY_AUTH_FILE contradict each other; set one of them")
        if self.pool_file is not None and self.api_key.get_secret_value():
            raise ValueError(
                "GATEWAY_POOL_FILE and the API key (LIVEAVATAR_API_KEY, GATEWAY_API_KEY or its file) exclude each "
                "other; make the key an account of the file"
            )
        if self.pool_file is not None and not self.pool_file.is_absolute():
            raise ValueError("GATEWAY_POOL_FILE must be an absolute path")
        self._require_whole_livekit()
        return self

    def _require_whole_livekit(self) -> None:
        given = {
            "LIVEKIT_URL": self.livekit_url,
            "LIVEKIT_KEY": self.livekit_key.get_secret_value(),
            "LIVEKIT_SECRET": self.livekit_secret.get_secret_value(),
        }
        missing = [f"{PREFIX}{name}" for name, value in given.items() if not value]
        if missing and len(missing) < len(given):
            raise ValueError(f"a LiveKit server needs a URL, a key and a secret; missing: {', '.join(missing)}")
