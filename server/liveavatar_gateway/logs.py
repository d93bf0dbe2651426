"""Log lines: fixed event names with fields, as text or JSON. No audio, no tokens, no secret addresses.

Logging never raises into the code that logs and never waits for the reader of the lines: a thread writes them, and
lines that cannot be written are dropped and counted.
"""

import atexit
import contextlib
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO

import structlog

from liveavatar_gateway import library_logs
from liveavatar_gateway.escaping import escaped, json_text

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_MAX_WAITING_BYTES: Final = 1024 * 1024
"""Limit of buffered lines. Higher bridges a longer pause of a log collector and costs memory."""
_BATCH_BYTES: Final = 64 * 1024
_FULL_WAIT_S: Final = 0.05
"""Pause before a retry if a non-blocking descriptor is full."""
_MAX_MESSAGE_CHARS: Final = 500
"""Limit of the message of an exception, which may quote a text from outside."""
_MAX_FRAMES: Final = 40
"""Limit of the frames of an exception; the innermost are kept."""
_MAX_CAUSES: Final = 5
"""Limit of the exceptions of one traceback: causes, and members of groups."""
_EXIT_WAIT_S: Final = 1.0
"""Longest wait for a slow reader at the exit of the process."""


class LineWriter(io.RawIOBase):
    """Raw stream under a text stream that buffers lines and writes them from its own thread.

    Invariant: `write` neither blocks nor raises. Lines above the bound, and lines that the operating system
    refuses (no reader, full disk, closed descriptor), are dropped and counted in `dropped_count`. A line that was
    written in part is followed by a line break, so that it spoils no other line.
    """

    def __init__(
        self,
        fd: int,
        *,
        max_waiting_bytes: int = _MAX_WAITING_BYTES,
        on_recovery: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare; the thread starts with the first line.

        Args:
            fd: File descriptor to write to, which stays open until `use` replaces it.
            max_waiting_bytes: Bound of the buffered lines.
            on_recovery: Called from the thread with the number of dropped lines, once a line could be written
            again.
        """
        super().__init__()
        self.dropped_count = 0
        """Number of lines that were never written."""
        self._on_recovery = on_recovery
        self._fd = fd
        self._next_fd: int | None = None
        self._is_torn = False
        """True if the last line was written in part."""
        self._max_waiting_bytes = max_waiting_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._busy = False
        self._reported_count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def writable(self) -> bool:  # noqa: D102 - documented in io
        return True

    def fileno(self) -> int:  # noqa: D102 - documented in io
        return self._fd

    def isatty(self) -> bool:  # noqa: D102 - documented in io
        return os.isatty(self._fd)

    def write(self, data: Any, /) -> int:
        """Buffer a line; never blocks and never raises."""
        line = bytes(data)
        with self._changed:
            if self._waiting_bytes + len(line) > self._max_waiting_bytes:
                self.dropped_count += 1
                return len(line)
            self._lines.append(line)
            self._waiting_bytes += len(line)
            if self._thread is None:
                # A daemon thread: a stuck reader must not keep the process from exiting.
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return len(line)

    def use(self, fd: int) -> None:
        """Write to another descriptor from now on, and close the previous one."""
        with self._changed:
            if self._next_fd is not None:
                os.close(self._next_fd)
            self._next_fd = fd
            if self._thread is None:
                self._replace()
            self._changed.notify_all()

    def _replace(self) -> None:
        if self._next_fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd, self._next_fd, self._is_torn = self._next_fd, None, False

    def drain(self, timeout_s: float) -> bool:
        """Wait until every line is written or dropped; return False on time-out."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._busy, timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._next_fd is not None)
                self._replace()
                if not self._lines:
                    continue
                self._busy = True
                lines = self._next_lines()
            refused = self._refused(lines)
            if refused:
                with self._changed:
                    self.dropped_count += refused
            elif self.dropped_count > self._reported_count:
                count, self._reported_count = self.dropped_count - self._reported_count, self.dropped_count
                self._on_recovery(count)

    def _next_lines(self) -> list[bytes]:
        lines = [self._lines.popleft()]
        size = len(lines[0])
        while self._lines and size + len(self._lines[0]) <= _BATCH_BYTES:
            lines.append(self._lines.popleft())
            size += len(lines[-1])
        self._waiting_bytes -= size
        return lines

    def _refused(self, lines: list[bytes]) -> int:
        """Write lines, and return the number of those that were not written in whole."""
        if self._is_torn:
            lines[0] = b"\n" + lines[0]
        left = self._write(b"".join(lines))
        refused = 0
        while left > 0:
            refused += 1
            left -= len(lines[-refused])
        # What was written ends inside a line.
        self._is_torn = left < 0 or (self._is_torn and refused == len(lines))
        return refused

    def _write(self, data: bytes) -> int:
        """Return the number of bytes that the operating system refused."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                # Another process that shares the descriptor made it non-blocking.
                time.sleep(_FULL_WAIT_S)
            except OSError:
                break
        return len(rest)


_writers: list[LineWriter] = []


def dropped_line_count() -> int:
    """Return the number of lines that could not be written."""
    return sum(writer.dropped_count for writer in _writers)


def drain(timeout_s: float = _EXIT_WAIT_S) -> None:
    """Wait, within bounds, until all log lines and output are written."""
    for writer in _writers:
        writer.drain(timeout_s)


def configure(level: str, form: str) -> None:
    """Log to standard error from `level` on, as `console` lines or `json`.

    Replaces standard output and standard error by streams that never block and never raise, so that a library
    which prints cannot stop the process.
    """
    if not _writers:
        _replace_streams()
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_json_line)
    else:
        # The default formatter shows the variables of each frame, including tokens and audio.
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_print_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _traceback_as_text if form == "json" else _escape,
            renderer,
        ],
        wrapper_class=_never_raising(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    library_logs.route()


def _replace_streams() -> None:
    """Put `LineWriter`s under standard output and standard error."""

    def replaced(stream: TextIO | None, fd: int, **options: Any) -> TextIO:
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        writer = LineWriter(fd, **options)
        _writers.append(writer)
        # With write_through a text stream uses only those methods of its buffer that a raw stream has.
        return io.TextIOWrapper(writer, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]

    sys.stdout = replaced(sys.stdout, 1)
    sys.stderr = replaced(sys.stderr, 2, on_recovery=_report_dropped)
    atexit.register(drain)


def _report_dropped(count: int) -> None:
    structlog.get_logger(__name__).warning("log.lines_dropped", count=count)


def _never_raising(level: int) -> Any:
    """Return a logger class whose methods never raise, even if a field or a renderer fails."""
    base: Any = structlog.make_filtering_bound_logger(level)

    class NeverRaising(base):  # type: ignore[misc]
        """Logger that writes a plain line in place of a line that cannot be rendered."""

        def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, **fields)
            except Exception as fault:  # noqa: BLE001 - a log line must never end the work that it reports
                with contextlib.suppress(Exception):
                    sys.stderr.write(f"{method_name} {event} (fields not shown: {type(fault).__name__})\n")
                return None

    return NeverRaising


def _escape(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape all texts of a line, so that none acts on the terminal or begins another line."""
    return {escaped(name): value if name == "exc_info" else _shown(value) for name, value in event.items()}


def _shown(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return escaped(value if isinstance(value, str) else repr(value))


def _traceback_as_text(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    exc_info = event.pop("exc_info", None)
    if exc_info:
        event["exception"] = "\n".join(_traceback_lines(exc_info))
    return event


def _print_traceback(target: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    # Indented, so that no line of it can pass for a line of the log.
    target.writelines(f"\n    {line}" for line in _traceback_lines(exc_info))


def _traceback_lines(exc_info: object) -> list[str]:
    """Return a traceback, with the messages of its exceptions cut and escaped."""
    match exc_info:
        case BaseException() as error:
            pass
        case (_, BaseException() as error, _):
            pass
        case _:
            found = sys.exc_info()[1]
            if found is None:
                return []
            error = found
    lines: list[str] = []
    for number, (relation, part) in enumerate(_parts(error, "")):
        if number == _MAX_CAUSES:
            lines.append("(more exceptions are not shown)")
            break
        lines += [f"{relation}Traceback (most recent call last):"]
        lines += [
            escaped(line)
            for frame in traceback.format_tb(part.__traceback__, -_MAX_FRAMES)
            for line in frame.rstrip("\n").split("\n")
        ]
        message = escaped(str(part)[:_MAX_MESSAGE_CHARS])
        lines.append(f"{type(part).__name__}: {message}" if message else type(part).__name__)
    return lines


def _parts(error: BaseException, relation: str) -> Iterator[tuple[str, BaseException]]:
    """Yield an exception, the members of a group, and its causes, each with its relation to the one before."""
    yield relation, error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _parts(member, "in the group: ")
    if error.__cause__ is not None:
        yield from _parts(error.__cause__, "caused by: ")
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _parts(error.__context__, "while handling: ")


def _json_line(event: structlog.typing.EventDict, **options: Any) -> str:
    return json_text(event, **options)
