"""`liveavatar-gateway serve`: run the service until SIGTERM or Ctrl-C."""

import liveavatar_gateway.without_rich  # noqa: F401  before anything else imports structlog or httpx

# isort: split
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import structlog

from liveavatar_gateway import logs
from liveavatar_gateway.app import App
from liveavatar_gateway.app import serve as serve_app
from liveavatar_gateway.cli.output import print_line
from liveavatar_gateway.cli.settings import config_option, fail, load_or_exit, settings_options
from liveavatar_gateway.cli.terminal import ControllingTerminal
from liveavatar_gateway.config import ConfigError, Settings, exposure
from liveavatar_gateway.core_dumps import forbid_core_dumps
from liveavatar_gateway.reloading import Reloaded
from liveavatar_gateway.telemetry.garbage import defer_full_collections

_log = structlog.get_logger(__name__)

_SECOND_CHECK_S = 1.0
"""Delay after a SIGHUP before the terminal is checked again."""


@click.command()
@settings_options
@config_option
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write once the gateway serves, with addresses and pid as JSON; for scripts with --port 0.",
)
def serve(config_file: Path | None, ready_file: Path | None, **flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    The first signal drains: new sessions are refused, speech may end within GATEWAY_DRAIN_GRACE_S, then all
    sessions are ended at LiveAvatar. A second signal ends all sessions at once. SIGHUP reloads the files of
    TLS, tenants and keys; if the terminal was closed, SIGHUP drains.

    Requires LIVEAVATAR_API_KEY (or GATEWAY_API_KEY_FILE, or GATEWAY_POOL_FILE for several accounts). All other
    settings have defaults, which `check-config --help` lists.
    """
    # First, since the settings hold secrets.
    forbid_core_dumps()
    settings = load_or_exit(config_file, flags)
    if not settings.api_key.get_secret_value() and settings.pool_file is None:
        fail(
            "no API key: set LIVEAVATAR_API_KEY or GATEWAY_POOL_FILE, or run `liveavatar-gateway demo`, which "
            "needs none"
        )
    logs.configure(settings.log_level, settings.log_format)
    try:
        _run(settings, ready_file)
    except ConfigError as error:
        fail(str(error))


def _run(settings: Settings, ready_file: Path | None) -> None:
    if sys.platform == "win32":
        asyncio.run(_serve(settings, ready_file))
    else:
        import uvloop  # noqa: PLC0415 - not available on Windows

        uvloop.run(_serve(settings, ready_file))


class _Signals:
    """Signal handlers of the process: drain, end at once, and reload files."""

    def __init__(self, grace_s: float) -> None:
        self.stop = asyncio.Event()
        """Set when the process should drain and exit."""
        self._app: App | None = None
        self._grace_s = grace_s
        self._loop = asyncio.get_running_loop()
        self._terminal = ControllingTerminal()
        self._reloading: set[asyncio.Task[Sequence[Reloaded]]] = set()

    def install(self) -> None:
        """Install the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop, number.name)
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def use(self, app: App) -> None:
        """Apply signals to an app that serves."""
        self._app = app

    def _on_stop(self, name: str) -> None:
        if not self.stop.is_set():
            self._drain(name)
            return
        _log.warning("serve.hurry", signal=name)
        if self._app is not None:
            self._app.hurry()

    def _drain(self, name: str) -> None:
        _log.info("serve.drain", signal=name, grace_s=self._grace_s)
        self.stop.set()

    def _on_hangup(self) -> None:
        if self._drain_without_terminal():
            return
        _log.info("serve.reload", signal="SIGHUP")
        if self._app is not None:
            task = self._loop.create_task(self._app.reloads.reload(), name="reload")
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)
        # Some shells signal their jobs before they release the terminal.
        self._loop.call_later(_SECOND_CHECK_S, self._drain_without_terminal)

    def _drain_without_terminal(self) -> bool:
        """Drain if the terminal was closed; a second call does not count as a second signal."""
        if not self._terminal.is_gone:
            return False
        if not self.stop.is_set():
            self._drain("SIGHUP")
        return True


async def _serve(settings: Settings, ready_file: Path | None) -> None:
    signals = _Signals(settings.drain_grace_s)
    signals.install()

    def on_ready(app: App) -> None:
        signals.use(app)
        # Objects of the start-up stay, so later collections need not visit them.
        defer_full_collections()
        for line in _banner(app, settings):
            print_line(line)
        _log.info("serve.config", **settings.shown())
        if ready_file is not None:
            _write_ready(ready_file, app)

    await serve_app(settings, signals.stop, on_ready)


def _banner(app: App, settings: Settings) -> list[str]:
    tls = "TLS" if settings.tls_cert_file else "plaintext; set GATEWAY_TLS_CERT_FILE and _KEY_FILE for TLS"
    callers = (
        str(settings.auth_file)
        if settings.auth_file
        else "anonymous; GATEWAY_AUTH_FILE for keys, roles and quotas"
    )
    if app.mtls_address:
        callers += f"; with certificates at {app.mtls_address}"
    warnings = [
        f"  WARNING     other machines can call, and the protection is off: {protection}"
        for protection in exposure.exceptions(settings)
    ]
    metrics = app.metrics_url or "off; GATEWAY_METRICS_PORT=9464 for Prometheus"
    reflection = "on" if settings.reflection else "off; GATEWAY_REFLECTION=true for grpcurl"
    return [
        f"LiveAvatar Gateway listens on {app.address} ({tls})",
        f"  callers     {callers}",
        *warnings,
        f"  upstream    {settings.api_url}, up to {settings.max_sessions} session(s) at once",
        f"  reflection  {reflection}",
        f"  own rooms   {settings.livekit_url or 'off; GATEWAY_LIVEKIT_URL, _KEY and _SECRET'}",
        f"  metrics     {metrics}",
        f"  operators   {app.admin_address or 'nowhere; GATEWAY_ADMIN_PORT=50052 for drain, status and eject'}",
    ]


def _write_ready(path: Path, app: App) -> None:
    """Write the file under another name first, so that no reader sees half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    ready = {
        "address": app.address,
        "admin_address": app.admin_address,
        "mtls_address": app.mtls_address,
        "metrics": app.metrics_url,
        "pid": os.getpid(),
    }
    try:
        draft.write_text(json.dumps(ready), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"--ready-file: {path} cannot be written: {error.strerror}") from None
