"""Output and end of commands: lines, error messages, exit codes, and signals that let clean-up run."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

import click

from liveavatar_gateway.escaping import escaped, json_text

EX_FAILED: Final = 1
"""Exit code of refusals, failures and failed checks."""

_SIGNALLED: Final = 128
_AS_CTRL_C: Final = ("SIGTERM", "SIGHUP")


def print_line(text: str = "", *, err: bool = False) -> None:
    """Print one line, escaped. All commands print by this function, as texts from outside may be in any line."""
    click.echo(escaped(text), err=err)


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print a JSON value, in ASCII alone."""
    click.echo(json_text(value, indent=indent))


def fail(message: str, code: int = EX_FAILED) -> NoReturn:
    """Print an error and exit."""
    print_line(f"liveavatar-gateway: {message}", err=True)
    sys.exit(code)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let clean-up run on Ctrl-C, SIGTERM and SIGHUP, then exit with 128 plus the signal's number.

    Inside `asyncio.run` the first signal cancels the main task; elsewhere it raises KeyboardInterrupt.
    """
    received: int = signal.SIGINT

    def as_ctrl_c(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = number
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # ignored, as in a shell's background job
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    numbers = [getattr(signal, name) for name in _AS_CTRL_C if hasattr(signal, name)]
    before = {number: signal.signal(number, as_ctrl_c) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(_SIGNALLED + received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
