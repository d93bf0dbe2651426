"""`liveavatar-gateway serve`: run the service until SIGTERM or Ctrl-C."""

import asyncio
import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from liveavatar_gateway import logs
from liveavatar_gateway.app import App
from liveavatar_gateway.app import serve as serve_app
from liveavatar_gateway.cli.settings import config_option, fail, load_or_exit, settings_options
from liveavatar_gateway.cli.terminal import ControllingTerminal
from liveavatar_gateway.config import ConfigError, Settings

_log = structlog.get_logger(__name__)

_GC_THRESHOLD = (1_000, 5, 5)
"""A session that has ended is a cycle of some hundred objects, old enough for the last generation only. So that
one is collected every 25,000 objects, some hundred sessions: 20 to 40 ms each, well within the lead of speech. At
Python's default of 10 and 10, or higher, garbage grows for longer and the pause with it."""

_LOOK_AGAIN_S = 1.0
"""How long after a SIGHUP the terminal is looked at once more."""


@click.command()
@settings_options
@config_option
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write where it listens and its pid to, as JSON, once it serves; for scripts with --port 0.",
)
def serve(config_file: Path | None, ready_file: Path | None, **flags: Any) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    The first signal drains: no new sessions, speech may end within GATEWAY_DRAIN_GRACE_S, then every session is
    ended at LiveAvatar. A second signal cuts speech at once; sessions are ended all the same. SIGHUP reads the
    files of the TLS certificate and of keys again; when the terminal was closed, it drains.

    Needs LIVEAVATAR_API_KEY (or GATEWAY_API_KEY_FILE). All other settings have defaults, which
    `check-config --help` lists.
    """
    settings = load_or_exit(config_file, flags)
    if not settings.api_key.get_secret_value():
        fail("no API key: set LIVEAVATAR_API_KEY, or run `liveavatar-gateway demo` which needs none")
    logs.configure(settings.log_level, settings.log_format)
    try:
        _run(settings, ready_file)
    except ConfigError as error:
        fail(str(error))


def _run(settings: Settings, ready_file: Path | None) -> None:
    if sys.platform == "win32":
        asyncio.run(_serve(settings, ready_file))
    else:
        import uvloop  # noqa: PLC0415 - it is not there on Windows

        uvloop.run(_serve(settings, ready_file))


class _Signals:
    """Reacts to the signals of the process: drain, hurry, and reading files again."""

    def __init__(self, grace_s: float) -> None:
        self.stop = asyncio.Event()
        """Set when the process is to drain and exit."""
        self.app: App | None = None
        """Set once it serves."""
        self._grace_s = grace_s
        self._loop = asyncio.get_running_loop()
        self._terminal = ControllingTerminal()
        self._reloading: set[asyncio.Task[None]] = set()

    def install(self) -> None:
        """Take the signals over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop, number.name)
        if hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_stop(self, name: str) -> None:
        if not self.stop.is_set():
            self._drain(name)
            return
        _log.warning("serve.hurry", signal=name)
        if self.app is not None:
            self.app.hurry()

    def _drain(self, name: str) -> None:
        _log.info("serve.drain", signal=name, grace_s=self._grace_s)
        self.stop.set()

    def _on_hangup(self) -> None:
        if self._drain_without_terminal():
            return
        _log.info("serve.reload", signal="SIGHUP")
        if self.app is not None:
            task = self._loop.create_task(self.app.reloads.reload(), name="reload")
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)
        # Some shells tell their jobs first and let go of the terminal then.
        self._loop.call_later(_LOOK_AGAIN_S, self._drain_without_terminal)

    def _drain_without_terminal(self) -> bool:
        """Drain when the terminal was closed; told so twice, it does not hurry."""
        if not self._terminal.is_gone:
            return False
        if not self.stop.is_set():
            self._drain("SIGHUP")
        return True


async def _serve(settings: Settings, ready_file: Path | None) -> None:
    signals = _Signals(settings.drain_grace_s)
    signals.install()

    def on_ready(app: App) -> None:
        signals.app = app
        # What start-up made stays: collections need not walk it again and again while people talk.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        click.echo(_banner(app, settings))
        _log.info("serve.config", **settings.shown())
        if ready_file is not None:
            _write_ready(ready_file, app)

    await serve_app(settings, signals.stop, on_ready)


def _banner(app: App, settings: Settings) -> str:
    tls = "TLS" if settings.tls_cert_file else "plaintext; set GATEWAY_TLS_CERT_FILE and _KEY_FILE for TLS"
    metrics = app.metrics_url or "off; GATEWAY_METRICS_PORT=9464 for Prometheus"
    reflection = "on" if settings.reflection else "off; GATEWAY_REFLECTION=true for grpcurl"
    return (
        f"LiveAvatar Gateway listens on {app.address} ({tls})\n"
        f"  upstream    {settings.api_url}, up to {settings.max_sessions} session(s) at once\n"
        f"  reflection  {reflection}\n"
        f"  own rooms   {settings.livekit_url or 'off; GATEWAY_LIVEKIT_URL, _KEY and _SECRET'}\n"
        f"  metrics     {metrics}\n"
        f"  operators   {app.admin_address or 'nowhere; GATEWAY_ADMIN_PORT=50052 for drain, status and eject'}"
    )


def _write_ready(path: Path, app: App) -> None:
    """Written under another name first, so that nobody reads half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    ready = {
        "address": app.address,
        "admin_address": app.admin_address,
        "metrics": app.metrics_url,
        "pid": os.getpid(),
    }
    try:
        draft.write_text(json.dumps(ready), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"--ready-file: {path} cannot be written: {error.strerror}") from None
