"""`liveavatar-gateway check-config`: check the configuration and print the settings in effect."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click

from liveavatar_gateway import logs
from liveavatar_gateway.auth import auth_file
from liveavatar_gateway.certificates import read_authorities, read_pair
from liveavatar_gateway.cli.output import print_json, print_line
from liveavatar_gateway.cli.settings import config_option, fail, load_or_exit
from liveavatar_gateway.config import PREFIX, ConfigError, Settings, components, exposure, pool_file
from liveavatar_gateway.config.pool_file import PoolFile
from liveavatar_gateway.core.errors import GatewayError, RegistryUnavailable
from liveavatar_gateway.pool.account_health import AccountState
from liveavatar_gateway.registry.factory import fingerprint, orphans_of_other_keys
from liveavatar_gateway.upstream.account import AccountSpec
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
        tenants = _tenants(settings)
        shown |= {} if tenants is None else {"tenants": len(tenants)}
        content = None if settings.pool_file is None else pool_file.read(settings.pool_file, tenants=tenants)
        shown |= _about_warm_sessions(content)
    except (ConfigError, auth_file.UnusableAuthFile, pool_file.UnusablePoolFile) as error:
        fail(str(error))
    config = components.registry(settings, content)
    specs = components.account_specs(settings, content)
    if content is None:
        shown["api_key_fingerprint"] = fingerprint(config.account)
    else:
        shown["accounts"] = ", ".join(map(_about_account, specs))
        shown["max_sessions"] = content.max_sessions
    try:
        left = orphans_of_other_keys(config)
    except RegistryUnavailable as error:
        fail(f"GATEWAY_REGISTRY_FILE: {error}")
    shown["sessions_under_other_keys"] = ", ".join(f"{count} under {name}" for name, count in left.items()) or "0"
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        shown["tls_valid_until"] = _certificate_end(settings.tls_cert_file, settings.tls_key_file)
    used = [spec for spec in specs if spec.api_key and spec.state is AccountState.ACTIVE]
    if online and used:
        # Without this, log lines would go to standard output, among the settings.
        logs.configure("warning", settings.log_format)
        balances = asyncio.run(_credits_left(settings, used))
        shown["credits_left"] = balances[0] if content is None else _named(used, balances)
    if as_json:
        print_json(shown)
    else:
        width = max(len(name) for name in shown)
        for name, value in shown.items():
            print_line(f"{name:<{width}}  {value}")
        if left:
            print_line(err=True)
            print_line(
                "Dead processes left sessions, which may still be billed, under an API key that is not "
                "configured. Add the key to GATEWAY_RETIRED_API_KEYS, and the next start ends them.",
                err=True,
            )
    if not settings.api_key.get_secret_value() and content is None:
        fail("no API key: set LIVEAVATAR_API_KEY (make one at app.liveavatar.com/developers)")


def _about_account(spec: AccountSpec) -> str:
    state = "" if spec.state is AccountState.ACTIVE else f", {spec.state.value}"
    return f"{spec.name} ({spec.max_sessions} sessions{state}, cost {spec.cost:g})"


def _named(specs: Sequence[AccountSpec], values: Sequence[str]) -> str:
    return ", ".join(f"{spec.name}: {value}" for spec, value in zip(specs, values, strict=True))


def _tenants(settings: Settings) -> Collection[str] | None:
    """Check the files that decide who may call; return the tenants, None without a file of them."""
    if settings.tls_client_ca_file is not None:
        read_authorities(settings.tls_client_ca_file)
    if settings.auth_file is None:
        return None
    has_registry = components.access(settings).has_registry
    return auth_file.read(settings.auth_file, has_registry=has_registry).tenants


def _about_warm_sessions(content: PoolFile | None) -> dict[str, str]:
    """Say what the warm sessions of each profile cost."""
    found: dict[str, str] = {}
    for name, profile in ({} if content is None else content.profiles).items():
        most = profile.policy(name).maximum
        payer = f", paid by {profile.paying_tenant}" if profile.paying_tenant else ""
        found[f"warm_{name}"] = (
            f"{profile.min} sessions in each process, at most {most} in all together{payer}: about "
            f"{profile.credits_per_hour():.0f} credits per hour and process if nobody takes one"
        )
    return found


def _certificate_end(cert_file: Path, key_file: Path) -> str:
    try:
        return read_pair(cert_file, key_file).not_after
    except ConfigError as error:
        fail(str(error))


async def _credits_left(settings: Settings, specs: Sequence[AccountSpec]) -> Sequence[str]:
    """Return the balance of each account, which proves its key."""
    balances = []
    for spec in specs:
        rest = Rest(components.rest(settings), spec.api_key)
        try:
            balances.append(await rest.credits_left())
        except GatewayError as error:
            where = "" if settings.pool_file is None else f"accounts.{spec.name}: "
            fail(f"{where}{error.reason}: {error.message}")
        finally:
            await rest.aclose()
    return balances
