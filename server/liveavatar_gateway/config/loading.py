"""Loading of the settings: defaults, TOML file, environment, flags, and the files of secrets."""

import difflib
import os
import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from liveavatar_gateway.config.secrets import read_secret, require_sendable, split_keys
from liveavatar_gateway.config.settings import PREFIX, SECRETS, ConfigError, Settings
from liveavatar_gateway.guarded_files import UnsafeFile, read_guarded
from liveavatar_gateway.registry.sealing import BadKey, parse_key
from liveavatar_gateway.upstream.proxies import Proxies, UnusableProxy

_SHARED_VARIABLES: Final = {"api_key": "LIVEAVATAR_API_KEY", "api_url": "LIVEAVATAR_API_URL"}
"""Variables that other LiveAvatar programs use too."""
_SECRET_FILES: Final = ("api_key", "retired_api_keys", "registry_key", "livekit_secret")
"""Secrets that can be read from a file."""
_MADE_IF_MISSING: Final = ("registry_key",)
"""Secrets whose file the gateway makes, when the registry is opened."""
_MAX_FILE_BYTES: Final = 1024 * 1024
"""Largest configuration file that is read."""
_SENT: Final = (
    *("api_key", "registry_key", "livekit_key", "livekit_secret"),
    *("api_url", "livekit_url", "advertised_address", "host", "admin_host", "metrics_host"),
)
"""Settings used in headers, addresses and tokens: visible ASCII without spaces."""
_TRUST_VARIABLE: Final = "SSL_CERT_FILE"
"""OpenSSL's variable for trusted certificates; REST and sockets read it themselves."""


def load(
    environment: Mapping[str, str] = os.environ,
    *,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings: defaults, then the file, then the environment, then flags.

    Args:
        environment: Variables `GATEWAY_<SETTING>`, LIVEAVATAR_API_KEY, LIVEAVATAR_API_URL, and proxy variables.
        file: TOML file with settings at its top level; defaults to the file named by GATEWAY_CONFIG.
        flags: Settings by name from the command line; None values are ignored.

    Raises:
        ConfigError: a setting is unknown or out of range, a file cannot be read, or a proxy cannot be used.
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
            is_own = secret in _MADE_IF_MISSING
            if is_own and not os.path.lexists(path):
                continue
            values[secret] = read_secret(secret, Path(path), closes_to_group=is_own)
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
        return Settings.create(values, proxies=Proxies.of(environment), secrets_from_files=from_files)
    except ValidationError as error:
        raise ConfigError(_explain(error, shown)) from None
    except UnusableProxy as error:
        raise ConfigError(str(error)) from None


def _require_usable_trust(environment: Mapping[str, str]) -> None:
    """Refuse a file of trusted certificates that cannot be read: every call to LiveAvatar would fail."""
    file = environment.get(_TRUST_VARIABLE)
    if not file:
        return
    try:
        ssl.create_default_context(cafile=file)
    # ssl.SSLError is an OSError.
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{_TRUST_VARIABLE}: {file} cannot be used: {cause}") from None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = tomllib.loads(read_guarded(file, _MAX_FILE_BYTES, private=False).decode())
        if any(content.get(secret) for secret in SECRETS):
            # Read again, now that it is known to hold secrets.
            read_guarded(file, 0, private=True)
    except UnsafeFile as error:
        raise ConfigError(f"{PREFIX}CONFIG or --config: {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{PREFIX}CONFIG or --config: the configuration file {file} cannot be read: {error}"
        ) from None
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        setting: environment[name]
        for setting, name in _SHARED_VARIABLES.items()
        if environment.get(name, "").strip()
    }
    for name, value in environment.items():
        # An empty variable counts as unset: compose files write ${GATEWAY_PORT:-}.
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
    return own if environment.get(own, "").strip() else _SHARED_VARIABLES.get(name, own)


def _require_all_sendable(values: Mapping[str, Any], shown: Mapping[str, str]) -> None:
    for name in _SENT:
        require_sendable(name, values.get(name), shown.get(name, f"{PREFIX}{name.upper()}"))
    for retired in split_keys(str(values.get("retired_api_keys") or "")):
        require_sendable("api_key", retired, shown.get("retired_api_keys", f"{PREFIX}RETIRED_API_KEYS"))


def _explain(error: ValidationError, variables: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        shown = f"{variables.get(name, PREFIX + name.upper())}: " if name else ""
        lines.append(f"{shown}{problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
