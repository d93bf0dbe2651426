"""`liveavatar-gateway check-config`: check the configuration and print the settings in effect."""

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from liveavatar_gateway.auth import auth_file
from liveavatar_gateway.certificates import read_authorities, read_pair
from liveavatar_gateway.cli.settings import config_option, fail, load_or_exit
from liveavatar_gateway.config import PREFIX, ConfigError, Settings, components, exposure
from liveavatar_gateway.core.errors import GatewayError, RegistryUnavailable
from liveavatar_gateway.registry.factory import fingerprint, orphans_of_other_keys
from liveavatar_gateway.upstream.rest import Rest


def _all_settings() -> str:
    lines = []
    for name, field in Settings.model_fields.items():
        default = f" [{field.default}]" if str(field.default) else ""
        lines.append(f"\b\n{PREFIX}{name.upper()}{default}\n    {field.description}")
    return "\n\n".join(lines)


@click.command(
    "check-config",
    help="Check the configuration and print the settings in effect. Exits 78 if it is unusable.\n\n"
    f"Settings with their defaults:\n\n{_all_settings()}",
)
@config_option
@click.option("--online", is_flag=True, help="Also check the API key with LiveAvatar.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check_config(config_file: Path | None, *, online: bool, as_json: bool) -> None:
    """Print the settings in effect; see `help` above."""
    settings = load_or_exit(config_file, {})
    shown: dict[str, Any] = settings.shown()
    try:
        exposure.check(settings)
        shown |= _about_callers(settings)
    except (ConfigError, auth_file.UnusableAuthFile) as error:
        fail(str(error))
    config = components.registry(settings)
    shown["api_key_fingerprint"] = fingerprint(config.account)
    try:
        left = orphans_of_other_keys(config)
    except RegistryUnavailable as error:
        fail(f"GATEWAY_REGISTRY_FILE: {error}")
    shown["sessions_under_other_keys"] = ", ".join(f"{count} under {name}" for name, count in left.items()) or "0"
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        shown["tls_valid_until"] = _certificate_end(settings.tls_cert_file, settings.tls_key_file)
    if online and settings.api_key.get_secret_value():
        shown["credits_left"] = asyncio.run(_credits_left(settings))
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    else:
        width = max(len(name) for name in shown)
        for name, value in shown.items():
            click.echo(f"{name:<{width}}  {value}")
        if left:
            click.echo(
                "\nDead processes left sessions, which may still be billed, under an API key that is not "
                "configured. Add the key to GATEWAY_RETIRED_API_KEYS, and the next start ends them.",
                err=True,
            )
    if not settings.api_key.get_secret_value():
        fail("no API key: set LIVEAVATAR_API_KEY (make one at app.liveavatar.com/developers)")


def _about_callers(settings: Settings) -> dict[str, int]:
    """Check the files that decide who may call."""
    if settings.tls_client_ca_file is not None:
        read_authorities(settings.tls_client_ca_file)
    if settings.auth_file is None:
        return {}
    has_registry = components.access(settings).has_registry
    return {"tenants": len(auth_file.read(settings.auth_file, has_registry=has_registry).tenants)}


def _certificate_end(cert_file: Path, key_file: Path) -> str:
    try:
        return read_pair(cert_file, key_file).not_after
    except ConfigError as error:
        fail(str(error))


async def _credits_left(settings: Settings) -> str:
    rest = Rest(components.rest(settings), settings.api_key.get_secret_value())
    try:
        return await rest.credits_left()
    except GatewayError as error:
        fail(f"{error.reason}: {error.message}")
    finally:
        await rest.aclose()
