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
from liveavatar_gateway.config import ConfigError, Settings

_GC_THRESHOLD = (1_000, 5, 5)
"""A session that has ended is a cycle of some hundred objects, old enough for the last generation only. So that
one is collected every 25,000 objects, some hundred sessions: 20 to 40 ms each, well within the lead of speech. At
Python's default of 10 and 10, or higher, garbage grows for longer and the pause with it."""


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
    ended at LiveAvatar. A second signal cuts speech at once; sessions are ended all the same.

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


async def _serve(settings: Settings, ready_file: Path | None) -> None:
    log = structlog.get_logger(__name__)
    stop = asyncio.Event()
    apps: list[App] = []

    def on_signal(name: str) -> None:
        if stop.is_set():
            log.warning("serve.hurry", signal=name)
            for app in apps:
                app.hurry()
        else:
            log.info("serve.drain", signal=name, grace_s=settings.drain_grace_s)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number.name)

    def on_ready(app: App) -> None:
        apps.append(app)
        # What start-up made stays: collections need not walk it again and again while people talk.
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLD)
        click.echo(_banner(app, settings))
        log.info("serve.config", **settings.shown())
        if ready_file is not None:
            _write_ready(ready_file, app)

    await serve_app(settings, stop, on_ready)


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
