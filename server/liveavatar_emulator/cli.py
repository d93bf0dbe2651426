"""The `liveavatar-emulator` command."""

import liveavatar_emulator.without_rich  # noqa: F401  before anything else imports structlog

# isort: split
import gc
import importlib
import logging
import os
import secrets
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import structlog
from pydantic.fields import FieldInfo

from liveavatar_emulator.account_limits import BadAccountLimits, parse_limits
from liveavatar_emulator.config import (
    InvalidLiveKit,
    InvalidSetting,
    ServerConfig,
    Settings,
    UnknownSetting,
    changed,
    check_room_clock,
    livekit_server,
)
from liveavatar_emulator.escaping import escaped
from liveavatar_emulator.scenario import BadScenario, Scenario, check_rooms, parse

EX_CONFIG = 78
"""Exit status for a configuration error, as in sysexits.h."""

_TOKEN_VARIABLE = "EMULATOR_CONTROL_TOKEN"  # noqa: S105 - a name, no secret
_LEVELS = ("debug", "info", "warning", "error")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="liveavatar-emulator", message="%(version)s")
def main() -> None:
    """Emulate HeyGen LiveAvatar (LITE mode): the same REST API and socket, without an account or a bill.

    Point a client at it by replacing https://api.liveavatar.com with the address it prints. Then read what it
    received: GET /_emulator/sessions.
    """


def _knob_options(command: Any) -> Any:
    """Add one option per knob of `Settings`, so that options and knobs always agree."""
    for name, field in reversed(Settings.model_fields.items()):
        command = _knob_option(name, field)(command)
    return command


def _knob_option(name: str, field: FieldInfo) -> Any:
    flag = "--" + name.replace("_", "-")
    text = " ".join((field.description or "").split())
    bounds = {type(bound).__name__: getattr(bound, type(bound).__name__.lower()) for bound in field.metadata}
    low, high = bounds.get("Ge", bounds.get("Gt")), bounds.get("Le")
    kind: Any
    if field.annotation is bool:
        flag, kind = f"{flag}/--no-{flag[2:]}", None
    elif get_origin(field.annotation) is Literal:
        kind = click.Choice(list(get_args(field.annotation)))
    else:
        kind = field.annotation
        above = "more than " if "Gt" in bounds else ""
        text += f" Range: {above}{low:,} to {high:,}."
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return click.option(
        flag,
        name,
        type=kind,
        default=None,
        envvar=f"EMULATOR_{name.upper()}",
        help=f"{text} [default: {default}]",
    )


@main.command(epilog="Every option is also an environment variable: --ready-delay-ms is EMULATOR_READY_DELAY_MS.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, envvar="EMULATOR_HOST", help="Address to listen on."
)
@click.option(
    "--port",
    default=8787,
    show_default=True,
    envvar="EMULATOR_PORT",
    help="TCP port; 0 picks a free one.",
    type=click.IntRange(0, 65535),
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    default=("emulator-key",),
    show_default=True,
    envvar="EMULATOR_API_KEYS",
    help="Accepted API key; repeat for more (in the environment: separated by spaces). KEY is an account of "
    "its own; keys given as ACCOUNT=KEY share that account's slots and credits.",
)
@click.option(
    "--account-limits",
    multiple=True,
    envvar="EMULATOR_ACCOUNT_LIMITS",
    help="Limits of one account, NAME:concurrency=25,rate=5,credits=100; repeat for more (in the environment: "
    "separated by spaces). What it leaves out follows the knobs.",
)
@click.option(
    "--public-url",
    default=None,
    envvar="EMULATOR_PUBLIC_URL",
    help="Base of the ws_url in responses, e.g. ws://emulator:8787. By default the host of the request.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="EMULATOR_READY_FILE",
    help='File for {"url", "pid"}, written once connections are accepted.',
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="info",
    show_default=True,
    envvar="EMULATOR_LOG_LEVEL",
    help="Lowest level of the log lines on stderr.",
)
@click.option(
    "--clock",
    type=click.Choice(("real", "manual")),
    default="real",
    show_default=True,
    envvar="EMULATOR_CLOCK",
    help="manual: time stands still and moves only by POST /_emulator/clock/advance.",
)
@click.option(
    "--clock-speed",
    type=float,
    default=1.0,
    show_default=True,
    envvar="EMULATOR_CLOCK_SPEED",
    help="Emulator seconds per real second, for everything that takes time. Range: 0.01 to 1,000.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=None,
    envvar="EMULATOR_SEED",
    help="Seed of ids, jitter and chance; the same seed repeats them. By default a new random seed.",
)
@click.option(
    "--event-log",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="EMULATOR_EVENT_LOG",
    help="File for all events, one JSON line each.",
)
@click.option(
    "--scenario",
    "scenario_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="EMULATOR_SCENARIO",
    help="TOML file with knobs, a timeline and faults; knobs given as options override those of the file.",
)
@click.option(
    "--control-token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="EMULATOR_CONTROL_TOKEN_FILE",
    help="File with the token that callers of /_emulator must send as `Authorization: Bearer TOKEN`; made if it "
    "is missing. EMULATOR_CONTROL_TOKEN may hold the token itself. Without a token, /_emulator is closed unless "
    "the emulator listens on loopback alone.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    envvar="EMULATOR_ALLOWED_HOSTS",
    help="Further name of this emulator, which the header Host may have outside /v1; repeat for more (in the "
    "environment: separated by spaces). Loopback addresses, localhost, and the hosts of --host and --public-url "
    "need none.",
)
@click.option(
    "--livekit-url",
    default=None,
    envvar=["EMULATOR_LIVEKIT_URL", "LIVEKIT_URL"],
    help="LiveKit server whose rooms the avatar joins, e.g. ws://127.0.0.1:7880. Needs the next two as well; "
    "without them room tokens lead nowhere.",
)
@click.option(
    "--livekit-key",
    default=None,
    envvar=["EMULATOR_LIVEKIT_KEY", "LIVEKIT_API_KEY"],
    help="API key of the LiveKit server.",
)
@click.option(
    "--livekit-secret",
    default=None,
    envvar=["EMULATOR_LIVEKIT_SECRET", "LIVEKIT_API_SECRET"],
    help="Secret of the API key. Set it in the environment, where other users of the machine cannot read it.",
)
@_knob_options
def serve(
    *,
    host: str,
    port: int,
    api_keys: tuple[str, ...],
    account_limits: tuple[str, ...],
    public_url: str | None,
    ready_file: Path | None,
    log_level: str,
    clock: Literal["real", "manual"],
    clock_speed: float,
    seed: int | None,
    event_log: Path | None,
    scenario_file: Path | None,
    control_token_file: Path | None,
    allowed_hosts: tuple[str, ...],
    livekit_url: str | None,
    livekit_key: str | None,
    livekit_secret: str | None,
    **knobs: Any,
) -> None:
    r"""Serve until Ctrl-C or SIGTERM.

    \b
    Examples:
      liveavatar-emulator serve                                   as strict and slow as the real service
      liveavatar-emulator serve --ready-delay-ms 0 --speed 20     fast, for tests
      liveavatar-emulator serve --concurrency 500 --rate 0        for load tests
      liveavatar-emulator serve --port 0 --ready-file ready.json  for scripts
      liveavatar-emulator serve --livekit-url ws://127.0.0.1:7880 --livekit-key devkey --livekit-secret ...
                                                                  with a face and a voice in real rooms
    """
    try:
        scenario = _scenario(scenario_file)
        given = {name: value for name, value in knobs.items() if value is not None}
        settings = changed(Settings(), {**scenario.settings, **given})
        config = ServerConfig(
            host=host,
            port=port,
            api_keys=api_keys,
            account_limits=dict(map(parse_limits, account_limits)),
            public_url=public_url,
            ready_file=ready_file,
            log_level=log_level,
            clock=clock,
            clock_speed=clock_speed,
            seed=secrets.randbits(32) if seed is None else seed,
            event_log=event_log,
            control_token=_control_token(control_token_file),
            allowed_hosts=allowed_hosts,
            livekit=livekit_server(livekit_url, livekit_key, livekit_secret),
        )
        if config.livekit is not None:
            check_room_clock(settings)
            check_rooms(scenario)
    except (UnknownSetting, InvalidSetting) as error:
        origin = f"option --{error.name.replace('_', '-')} or EMULATOR_{error.name.upper()}"
        _print_error(f"{error} ({origin})")
        sys.exit(EX_CONFIG)
    except (InvalidLiveKit, BadScenario, BadAccountLimits) as error:
        _print_error(str(error))
        sys.exit(EX_CONFIG)
    _configure_logs(log_level)
    server = _load_server()
    try:
        server.run(config, settings, scenario, _print_line)
        _leave_native_threads(config)
    except InvalidSetting as error:
        _print_error(str(error))
        sys.exit(EX_CONFIG)
    except OSError as error:
        _print_error(f"cannot listen on {host}:{port}: {error.strerror or error}")
        sys.exit(1)


def _load_server() -> Any:
    """Import the web framework with the server, which `--help` and a wrong option need not wait for."""
    # Modules are never garbage: collections during their import, and later ones among them, find nothing.
    gc.disable()
    try:
        return importlib.import_module("liveavatar_emulator.server")
    finally:
        gc.freeze()
        gc.enable()


def _control_token(path: Path | None) -> str | None:
    # No option takes the token itself: command lines are visible to other users.
    token = os.environ.get(_TOKEN_VARIABLE, "")
    if token and path is not None:
        raise InvalidSetting("control_token_file", f"{_TOKEN_VARIABLE} is set too; leave out one of the two")
    if path is None and not token:
        return None
    from liveavatar_emulator.guard import read_or_make_token, require_token  # noqa: PLC0415 - the web framework

    return require_token(token, "control_token") if path is None else read_or_make_token(path)


def _leave_native_threads(config: ServerConfig) -> None:
    """End the process at once if rooms were on.

    The LiveKit SDK's native threads may still be joining a room for an avatar, and abort the process when the
    interpreter unloads the library at exit. All other resources are closed by then.
    """
    if config.livekit is not None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _scenario(path: Path | None) -> Scenario:
    if path is None:
        return Scenario()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario(f"--scenario {path}: cannot be read: {error}") from error
    except BadScenario as error:
        raise BadScenario(f"--scenario {path}: {error}") from error


def _print_line(text: str) -> None:
    click.echo(escaped(text))


def _print_error(text: str) -> None:
    click.echo(escaped(f"liveavatar-emulator: {text}"), err=True)


class _LibraryFormatter(logging.Formatter):
    """Formatter of libraries' lines, whose messages and tracebacks may quote a caller."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = super().format(record).split("\n")
        # Indented, so that no line of a message can pass for a line of the log.
        return "\n".join([escaped(first), *(f"    {escaped(line)}" for line in others)])


def _escape(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {
        escaped(name): value if isinstance(value, bool | int | float | None) else escaped(str(value))
        for name, value in event.items()
    }


def _configure_logs(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LibraryFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escape,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
