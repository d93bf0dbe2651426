"""Settings of the gateway: environment `GATEWAY_*`, an optional TOML file, flags on top."""

import difflib
import os
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.readiness import ReadinessConfig
from liveavatar_gateway.core.rotation_plan import RotationConfig
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.scheduler import SchedulerConfig
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.factory import RegistryConfig, account_name
from liveavatar_gateway.registry.sealing import BadKey, parse_key
from liveavatar_gateway.rooms.tokens import LiveKitConfig
from liveavatar_gateway.rpc.admin_service import AdminConfig
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.sessions.adoption import AdoptionConfig
from liveavatar_gateway.sessions.directory import DirectoryConfig
from liveavatar_gateway.sessions.reconnector import ReconnectConfig
from liveavatar_gateway.sessions.sweeper import SweeperConfig
from liveavatar_gateway.upstream.keepalive import KeepAliveConfig
from liveavatar_gateway.upstream.permits import PermitsConfig
from liveavatar_gateway.upstream.pool import PoolConfig
from liveavatar_gateway.upstream.proxies import Proxies, UnusableProxy
from liveavatar_gateway.upstream.rest import RestConfig
from liveavatar_gateway.upstream.stopper import StopConfig

PREFIX: Final = "GATEWAY_"
_EVERYONES_NAMES: Final = {"api_key": "LIVEAVATAR_API_KEY", "api_url": "LIVEAVATAR_API_URL"}
_SECRETS: Final = ("api_key", "registry_key", "livekit_key", "livekit_secret")
_SECRET_FILES: Final = ("api_key", "retired_api_keys", "registry_key", "livekit_secret")
"""Secrets that a file may hold in place of a variable."""
_SENT: Final = (*_SECRETS, "api_url", "livekit_url", "advertised_address", "host", "admin_host")
"""Settings that go into headers, addresses and tokens: visible ASCII without spaces."""
_SPACED: Final = ("livekit_secret",)
"""Of those, what may have spaces inside: it signs and is never sent."""
_SEVERAL: Final = ("retired_api_keys",)
"""Settings that hold several secrets."""
_MAX_SENT_CHARS: Final = 4096
_MAX_SECRET_BYTES: Final = 64 * 1024
"""Largest file of a secret that is read."""
_TRUST_VARIABLE: Final = "SSL_CERT_FILE"
"""Everybody's variable for certificates of authorities; REST and sockets read it themselves."""
_QUOTES: Final = ("'", '"')


class ConfigError(ValueError):
    """The configuration cannot be used; the message says which setting, why, and what it may be."""


class Settings(BaseSettings):
    """Everything that can be set. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    _from_files: frozenset[str] = PrivateAttr(default=frozenset())

    host: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 for all of IPv4, :: for all of IPv6 and IPv4."
    )
    port: int = Field(50051, ge=0, le=65535, description="Port for gRPC; 0 takes a free one.")
    advertised_address: str | None = Field(
        None,
        pattern=r"^(\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\s/\[\]:]+):\d{1,5}$",
        description='Where callers reach this very process, "host:port", an IPv6 address in brackets: OWNER_MOVED '
        "sends them here. The address it listens on unless set; to be set for each process where that is 0.0.0.0 "
        "or ::, or behind a load balancer.",
    )
    admin_host: str = Field(
        "127.0.0.1",
        description="Address of AdminService. Whoever reaches it may end any session.",
    )
    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of AdminService: drain, undrain, status, eject. None unless set; 0 takes a free one.",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="PEM certificate chain; with it and a key the gateway speaks TLS, without them plaintext.",
    )
    tls_key_file: Path | None = Field(None, description="PEM private key of the certificate.")
    reflection: bool = Field(
        default=False,
        description="Serve gRPC reflection, for grpcurl and the like. Off: it tells all that is there.",
    )
    so_reuseport: bool = Field(default=False, description="Let several processes share the port.")

    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port for HTTP on the same address: /metrics for Prometheus, /healthz, /readyz. 0 takes a "
        "free one; not set, there is none. 9464 is the usual one.",
    )

    api_url: str = Field(
        "https://api.liveavatar.com",
        pattern=r"^https?://[^\s/@?#]+$",
        description="LiveAvatar's API, without a path. Also read from LIVEAVATAR_API_URL.",
    )
    api_key: SecretStr = Field(
        SecretStr(""), description="LiveAvatar's API key. Also read from LIVEAVATAR_API_KEY."
    )
    api_key_file: Path | None = Field(None, description="File that holds the API key, instead of the key itself.")
    retired_api_keys: SecretStr = Field(
        SecretStr(""),
        description="API keys that were used before, separated by spaces, commas or lines. Sessions that a dead "
        "process left in the registry under one of them are ended; without it they are only named in the log.",
    )
    retired_api_keys_file: Path | None = Field(
        None, description="File that holds the retired API keys, instead of the keys themselves."
    )
    max_sessions: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Sessions at once: the account's concurrency limit. Too high gets refusals from LiveAvatar "
        "(code 4032), too low lets callers wait in vain.",
    )
    max_waiting: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Callers that may wait for a session. Higher hides longer peaks; lower refuses sooner.",
    )
    wait_s: float = Field(
        30.0,
        ge=0,
        le=600,
        description="Longest wait for a free session of callers without a deadline of their own.",
    )
    settle_s: float = Field(
        1.0,
        ge=0,
        le=60,
        description="How long a place stays taken after a stop, at least; LiveAvatar frees it within about a "
        "second. While LiveAvatar takes longer (code 4032 though a session has ended) the gateway waits longer by "
        "itself, up to 8 s. Lower risks refusals, higher wastes capacity.",
    )
    rest_timeout_s: float = Field(
        15.0, gt=0, le=120, description="Longest wait for one whole answer of LiveAvatar's API."
    )
    connect_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Longest wait for the command socket to open."
    )
    ready_timeout_s: float = Field(
        20.0, gt=0, le=120, description="Longest wait, from the open socket, for the avatar to be ready."
    )
    probe_after_s: float = Field(
        5.0,
        gt=0,
        le=120,
        description="When and how often to ask a socket that never says `connected` whether it listens.",
    )
    reconnect_budget_s: float = Field(
        30.0,
        ge=0,
        le=300,
        description="How long a lost command socket is opened again, also where it opens and does not last, "
        "before the avatar is given up: the session ends, or in a room of the caller's own a fresh avatar goes "
        "on. Higher survives longer outages of LiveAvatar and pays for them; 0 gives up with the socket.",
    )
    keep_alive_s: float = Field(
        60.0,
        ge=1,
        le=240,
        description="Keep-alive after this long without a command. LiveAvatar ends idle sessions "
        "after 5 minutes, some saw 2 to 3.",
    )
    expiring_notice_s: float = Field(
        15.0, ge=0, le=600, description="How long before a session's limit the `expiring` event is sent."
    )

    rotation_lead_s: float = Field(
        30.0,
        ge=10,
        le=300,
        description="How long before the limit the fresh avatar of a session that rotates is started. Both are "
        "billed until the next border between two utterances. Higher finds a place and a border more surely.",
    )

    detach_grace_s: float = Field(
        30.0,
        ge=0,
        le=300,
        description="How long a session outlives its last stream. Higher forgives longer outages of "
        "the caller and pays for them.",
    )
    registry_file: str = Field(
        "",
        description="SQLite file that remembers sessions through a crash. Processes that share it take over from "
        "each other. Default: `liveavatar-gateway/registry.db` in the user's state folder (XDG_STATE_HOME or "
        "~/.local/state). `off` remembers nothing: a killed process then leaves its sessions to LiveAvatar's own "
        "clean-up, which bills minutes.",
    )
    registry_key: SecretStr = Field(
        SecretStr(""),
        description="Seals tokens in the registry: 64 hexadecimal digits or 32 bytes in base64. Without it a key "
        "is made beside the file.",
    )
    registry_key_file: Path | None = Field(
        None, description="File that holds the registry's key, instead of the key itself."
    )
    lease_s: float = Field(
        10.0,
        ge=1,
        le=300,
        description="After how long without renewal another process takes sessions over, where it cannot see "
        "whether their owner lives. Lower is sooner, higher forgives longer pauses.",
    )
    sweep_s: float = Field(
        2.0, ge=0.1, le=60, description="How often to look for sessions that dead processes left."
    )
    drain_grace_s: float = Field(
        30.0,
        ge=0,
        le=600,
        description="How long speech may go on after SIGTERM before it is cut and sessions are ended.",
    )
    retention_s: float = Field(600.0, ge=0, le=86_400, description="How long an ended session stays readable.")

    livekit_url: str = Field(
        "",
        pattern=r"^(wss?://[^\s/@?#]+/?)?$",
        description="LiveKit server for rooms of the callers' own, `wss://...`: LiveAvatar and the end users' "
        "browsers must both reach it. With a key and a secret; without them such rooms are refused.",
    )
    livekit_key: SecretStr = Field(SecretStr(""), description="API key of the LiveKit server.")
    livekit_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret of that key: signs the tokens of avatars and viewers.",
    )
    livekit_secret_file: Path | None = Field(
        None, description="File that holds the secret, instead of the secret itself."
    )

    first_packet_s: float = Field(
        0.4,
        ge=0.1,
        le=1.0,
        description="First packet of an utterance. Lower speaks sooner, higher survives a rougher source.",
    )
    margin_s: float = Field(
        0.2,
        ge=0.02,
        le=2.0,
        description="Lead at which the next packet must go. Lower makes fewer packets, higher "
        "survives longer pauses of process and network.",
    )
    min_packet_s: float = Field(
        0.1, ge=0.02, le=1.0, description="Packets are not made shorter than this while there is time."
    )
    max_packet_s: float = Field(
        1.0, ge=0.2, le=10.0, description="Longest packet. Above 1 s the avatar's server has more to chew at once."
    )
    max_lead_s: float = Field(
        3.0,
        ge=0.5,
        le=10.0,
        description="How far to send ahead of playback. Higher hides longer outages, lower wastes "
        "less on a barge-in.",
    )
    flush_s: float = Field(
        0.25,
        ge=0.02,
        le=5.0,
        description="Pause of the source after which less than a first packet is sent all the same.",
    )
    queue_lead_s: float = Field(
        0.4, ge=0.0, le=3.0, description="How long before the end of an utterance the next one is sent."
    )
    max_buffered_s: float = Field(
        30.0,
        ge=1,
        le=600,
        description="Audio that may wait per session: the credit. Costs 48 kB per second, at most 384.",
    )
    max_chunk_bytes: int = Field(
        256 * 1024, ge=1024, le=4 * 1024 * 1024, description="Largest chunk of audio in one message."
    )
    interrupt_timeout_s: float = Field(
        1.0, ge=0.1, le=10, description="How long new speech waits for LiveAvatar's answer to an interrupt."
    )
    end_tail_s: float = Field(
        0.5,
        ge=0,
        le=5,
        description="How long after the last end of speech LiveAvatar is told to stop, when the caller ends the "
        "session right after that. Lower may cut the last sound in the room, higher is paid for.",
    )
    ack_interval_s: float = Field(
        1.0,
        ge=0.05,
        le=10,
        description="How often progress is told on StreamAudio. Lower is smoother, each costs a message.",
    )
    heartbeat_s: float = Field(
        20.0,
        ge=0,
        le=600,
        description="Longest silence on Attach and StreamAudio: a heartbeat is sent then. Lower passes proxies "
        "with shorter time-outs, each costs a message; 0 sends none.",
    )
    first_message_timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="How long a call may be open before its first message has come. Lower frees what silent calls "
        "hold sooner, higher forgives slower networks.",
    )
    watch_progress_s: float = Field(
        15.0,
        ge=0.1,
        le=600,
        description="How often WatchSessions tells its progress. Lower notices a dead gateway sooner, each names "
        "every session that is watched.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Lines for people, or JSON for machines."
    )

    _proxies: Proxies = PrivateAttr(default_factory=Proxies)
    """No setting: everybody's variables, such as HTTPS_PROXY."""

    def use_proxies(self, environment: Mapping[str, str]) -> None:
        """Reach LiveAvatar through the proxies that the environment names.

        Raises:
            UnusableProxy: one of them cannot be used.
        """
        self._proxies = Proxies.of(environment)
        self._proxies.check(self.api_url)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library calls by these names
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """`load` reads all sources itself, so that each error can name where a value came from."""
        return (init_settings,)

    @field_validator("host", "admin_host", mode="before")
    @classmethod
    def _without_brackets(cls, host: object) -> object:
        if isinstance(host, str) and host.startswith("[") and host.endswith("]"):
            return host[1:-1]
        return host

    @field_validator("api_url", "livekit_url")
    @classmethod
    def _with_a_host(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            is_usable = bool(parts.hostname) and parts.port != 0
            # Stricter about hosts, and the one that calls it.
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as error:
            raise ValueError(f"is no address with a host and a port: {error}") from None
        if not is_usable:
            raise ValueError("is no address with a host and a port")
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
            raise ValueError("GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE go together")
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
            raise ValueError(f"a LiveKit server needs its URL, key and secret; missing: {', '.join(missing)}")

    def livekit(self) -> LiveKitConfig | None:
        """The part for rooms of the callers' own; None without."""
        if not self.livekit_url:
            return None
        return LiveKitConfig(
            url=self.livekit_url,
            api_key=self.livekit_key.get_secret_value(),
            api_secret=self.livekit_secret.get_secret_value(),
        )

    def speech(self) -> SpeechConfig:
        """The part for speech."""
        return SpeechConfig(
            scheduler=SchedulerConfig(
                first_packet_s=self.first_packet_s,
                margin_s=self.margin_s,
                min_packet_s=self.min_packet_s,
                max_packet_s=self.max_packet_s,
                max_lead_s=self.max_lead_s,
                flush_s=self.flush_s,
                queue_lead_s=self.queue_lead_s,
            ),
            max_buffered_s=self.max_buffered_s,
            interrupt_timeout_s=self.interrupt_timeout_s,
        )

    def directory(self) -> DirectoryConfig:
        """The part for sessions."""
        return DirectoryConfig(
            session=SessionConfig(
                speech=self.speech(),
                readiness=ReadinessConfig(ready_timeout_s=self.ready_timeout_s, probe_after_s=self.probe_after_s),
                rotation=RotationConfig(lead_s=self.rotation_lead_s),
                expiring_notice_s=self.expiring_notice_s,
                end_tail_s=self.end_tail_s,
            ),
            reconnect=ReconnectConfig(budget_s=self.reconnect_budget_s),
            retention_s=self.retention_s,
            max_chunk_bytes=self.max_chunk_bytes,
        )

    def sweeper(self) -> SweeperConfig:
        """Return the settings of the search for sessions of dead processes."""
        return SweeperConfig(sweep_s=self.sweep_s)

    def adoption(self) -> AdoptionConfig:
        """Return the settings for sessions of dead processes."""
        return AdoptionConfig(renew_s=self.registry().lease.renew_s, retention_s=self.retention_s)

    def pool(self) -> PoolConfig:
        """The part for the account."""
        return PoolConfig(
            places=PermitsConfig(
                limit=self.max_sessions, max_waiting=self.max_waiting, wait_s=self.wait_s, settle_s=self.settle_s
            ),
            keep_alive=KeepAliveConfig(interval_s=self.keep_alive_s),
            stops=StopConfig(late_start_s=self.rest_timeout_s),
            connect_timeout_s=self.connect_timeout_s,
            proxies=self._proxies,
        )

    def registry(self) -> RegistryConfig:
        """The part for the registry."""
        return RegistryConfig(
            file=self.registry_file,
            key=self.registry_key.get_secret_value(),
            account=account_name(self.api_url, self.api_key.get_secret_value()),
            retired_accounts=tuple(self.retired_keys()),
            lease=LeaseConfig(ttl_s=self.lease_s, renew_s=self.lease_s / 4, grace_s=self.lease_s / 2),
        )

    def retired_keys(self) -> dict[str, str]:
        """API keys that were used before, by the names that the registry has for them."""
        keys = _split(self.retired_api_keys.get_secret_value())
        found = {account_name(self.api_url, key): key for key in keys}
        found.pop(account_name(self.api_url, self.api_key.get_secret_value()), None)
        return found

    def rest(self) -> RestConfig:
        """The part for LiveAvatar's REST API."""
        return RestConfig(base_url=self.api_url, timeout_s=self.rest_timeout_s, proxies=self._proxies)

    def rpc(self) -> RpcConfig:
        """The part for the servicers."""
        return RpcConfig(
            speech=self.speech(),
            max_chunk_bytes=self.max_chunk_bytes,
            detach_grace_s=self.detach_grace_s,
            own_rooms=bool(self.livekit_url),
            ack_interval_s=self.ack_interval_s,
            heartbeat_s=self.heartbeat_s,
            first_message_timeout_s=self.first_message_timeout_s,
            watch_progress_s=self.watch_progress_s,
        )

    def admin(self) -> AdminConfig:
        """The part for operators."""
        return AdminConfig(drain_grace_s=self.drain_grace_s)

    def uses_file(self, secret: str) -> bool:
        """Return whether a secret came from its file; a variable goes before that."""
        return secret in self._from_files

    def shown(self) -> dict[str, Any]:
        """Return all settings for people and logs, with the types of JSON; a secret only as set or not set."""
        values = self.model_dump()
        for secret in (*_SECRETS, "retired_api_keys"):
            values[secret] = "set" if values[secret].get_secret_value() else "not set"
        for name, proxy in (
            ("rest_proxy", self._proxies.of_url(self.api_url)),
            ("socket_proxy", self._proxies.socket_proxy(self.api_url)),
        ):
            values[name] = proxy.shown if proxy is not None else "none"
        values["no_proxy"] = ", ".join(self._proxies.exempt) or "none"
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def load(
    environment: Mapping[str, str] = os.environ,
    *,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings: defaults, then the file, then the environment, then flags.

    Args:
        environment: Variables `GATEWAY_<SETTING>`, LIVEAVATAR_API_KEY, LIVEAVATAR_API_URL, and those for proxies.
        file: TOML file with settings at its top level; also taken from GATEWAY_CONFIG.
        flags: Settings by name from the command line; None values are left out.

    Raises:
        ConfigError: a setting is unknown or out of its range, a file cannot be read, or a proxy cannot be used.
    """
    file = file or (Path(environment[f"{PREFIX}CONFIG"]) if environment.get(f"{PREFIX}CONFIG") else None)
    values: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for origin, found in (("file", _from_file(file)), ("environment", _from_environment(environment))):
        for name in found:
            _require_known(name, origin)
            shown[name] = _variable(name, environment) if origin == "environment" else f"{PREFIX}{name.upper()}"
        values |= found
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    values = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
    from_files = set()
    for secret in _SECRET_FILES:
        if (path := values.get(f"{secret}_file")) and not values.get(secret):
            values[secret] = read_secret(secret, Path(path))
            shown[secret] = f"{PREFIX}{secret.upper()}_FILE"
            from_files.add(secret)
    _require_all_sendable(values, shown)
    if key := values.get("registry_key"):
        try:
            parse_key(key)
        except BadKey as error:
            raise ConfigError(f"{shown['registry_key']}: {error}") from None
    _require_usable_trust(environment)
    try:
        settings = Settings(**values)
        settings.use_proxies(environment)
    except ValidationError as error:
        raise ConfigError(_explain(error, shown)) from None
    except UnusableProxy as error:
        raise ConfigError(str(error)) from None
    settings._from_files = frozenset(from_files)  # noqa: SLF001 - this function is the only way in
    return settings


def _require_usable_trust(environment: Mapping[str, str]) -> None:
    """Refuse certificates of authorities that cannot be read: no call to LiveAvatar could be made."""
    file = environment.get(_TRUST_VARIABLE)
    if not file:
        return
    try:
        ssl.create_default_context(cafile=file)
    # An OSError too, as ssl.SSLError is.
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{_TRUST_VARIABLE}: {file} cannot be used: {why}") from None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{PREFIX}CONFIG or --config: the configuration file {file} cannot be read: {error}"
        ) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        setting: environment[name]
        for setting, name in _EVERYONES_NAMES.items()
        if environment.get(name, "").strip()
    }
    for name, value in environment.items():
        # An empty variable is an unset one: compose files write ${GATEWAY_PORT:-}.
        if name.startswith(PREFIX) and name != f"{PREFIX}CONFIG" and value.strip():
            found[name.removeprefix(PREFIX).lower()] = value
    return found


def _require_known(name: str, origin: str) -> None:
    if name in Settings.model_fields:
        return
    shown = f"{PREFIX}{name.upper()}" if origin == "environment" else name
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {PREFIX + near[0].upper() if origin == 'environment' else near[0]}?" if near else ""
    raise ConfigError(f"unknown setting {shown} in the {origin}{hint}")


def _variable(name: str, environment: Mapping[str, str]) -> str:
    """Return the name of the variable that a setting came from."""
    own = f"{PREFIX}{name.upper()}"
    return own if environment.get(own, "").strip() else _EVERYONES_NAMES.get(name, own)


def _require_all_sendable(values: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    for name in _SENT:
        _require_sendable(name, values.get(name), shown.get(name, f"{PREFIX}{name.upper()}"))
    for retired in _split(str(values.get("retired_api_keys") or "")):
        _require_sendable("api_key", retired, shown.get("retired_api_keys", f"{PREFIX}RETIRED_API_KEYS"))


def _split(keys: str) -> list[str]:
    return keys.replace(",", " ").split()


def read_secret(secret: str, path: Path) -> str:
    """Read the file of a secret, `api_key` for instance.

    Raises:
        ConfigError: it cannot be read, is empty, or holds what no secret is.
    """
    variable = f"{PREFIX}{secret.upper()}_FILE"
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        # Editors on Windows begin a file with a byte order mark.
        value = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: {path} cannot be read: it is no text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{variable}: {path} cannot be read: {error}") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ConfigError(f"{variable}: {path} is larger than {_MAX_SECRET_BYTES} bytes and cannot be a secret")
    if not value:
        raise ConfigError(f"{variable}: {path} is empty")
    for one in _split(value) if secret in _SEVERAL else [value]:
        _require_sendable(secret, one, variable)
    return value


def _require_sendable(name: str, value: object, shown: str) -> None:
    """Refuse what cannot go into a header, an address or a token; the value itself is not repeated."""
    if not isinstance(value, str):
        return
    if len(value) > _MAX_SENT_CHARS:
        raise ConfigError(f"{shown}: {len(value)} characters are too many; at most {_MAX_SENT_CHARS}")
    if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
        raise ConfigError(f"{shown}: the value is in quotes; leave them out")
    for position, character in enumerate(value, start=1):
        if not ("!" <= character <= "~" or (character == " " and name in _SPACED)):
            raise ConfigError(
                f"{shown}: character {position} is U+{ord(character):04X}, "
                "which cannot be sent; only visible ASCII without spaces can"
            )


def _explain(error: ValidationError, variables: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        shown = f"{variables.get(name, PREFIX + name.upper())}: " if name else ""
        lines.append(f"{shown}{problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
