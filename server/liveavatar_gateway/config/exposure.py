"""Refusal to serve other machines without authentication and TLS, unless settings name the exception."""

import ipaddress
from typing import Final

from liveavatar_gateway.config.settings import ConfigError, Settings

BEHIND_PROXY: Final = "behind-proxy"


def is_local(host: str) -> bool:
    """Return True for a listen address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def exceptions(settings: Settings) -> list[str]:
    """Return the protections that settings have switched off where other machines can call."""
    if is_local(settings.host):
        return []
    found = []
    if settings.auth_file is None:
        found.append("anonymous")
    if settings.tls_cert_file is None:
        found.append("plaintext")
    return found


def check(settings: Settings) -> None:
    """Refuse settings that would serve other machines without protection.

    Raises:
        ConfigError: a protection is missing; the message names the settings that help.
    """
    if not is_local(settings.host):
        if settings.auth_file is None and not settings.anonymous:
            raise ConfigError(
                f"GATEWAY_HOST={settings.host} can be reached from other machines, and callers would need no "
                "credential: set GATEWAY_AUTH_FILE (see `liveavatar-gateway keys --help`), or GATEWAY_ANONYMOUS=1 "
                "to let everybody who reaches the port spend the account's money"
            )
        if settings.tls_cert_file is None and settings.plaintext != BEHIND_PROXY:
            raise ConfigError(
                f"GATEWAY_HOST={settings.host} can be reached from other machines, and calls would not be "
                "encrypted: set GATEWAY_TLS_CERT_FILE and GATEWAY_TLS_KEY_FILE, or GATEWAY_PLAINTEXT=behind-proxy "
                "if a proxy in front of the gateway ends TLS"
            )
    if settings.admin_port is not None and not is_local(settings.admin_host) and not settings.tls_client_ca_file:
        raise ConfigError(
            f"GATEWAY_ADMIN_HOST={settings.admin_host} can be reached from other machines, and operators must "
            "then show a certificate: set GATEWAY_TLS_CLIENT_CA_FILE to the authority that signs theirs"
        )
