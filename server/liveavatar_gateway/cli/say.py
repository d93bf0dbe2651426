"""`liveavatar-gateway say`: speak a file, or audio from standard input, through a running gateway."""

import asyncio
import functools
import io
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from liveavatar_gateway.cli.connection import Target, connection_options, explanation, print_error
from liveavatar_gateway.cli.output import EX_FAILED, fail, print_json, print_line, stoppable

if TYPE_CHECKING:
    # For type checking only; imported when a command runs.
    from rich.console import Console

    from liveavatar.gateway import AsyncClient, AsyncSession, AsyncUtterance, Outcome, SessionOptions
    from liveavatar.gateway.audio import AudioFormat

SANDBOX_AVATAR: Final = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
"""LiveAvatar's test avatar, the only avatar in its sandbox."""

ENCODINGS: Final = ("pcm_s16le", "pcm_f32le", "mulaw", "alaw")
"""Encodings of raw audio: the values of the client's `AudioEncoding`."""

_TIMEOUT_S: Final = 10.0
_INTERRUPT_S: Final = 5.0
"""Longest wait of Ctrl-C for the outcome: a session without its gateway would wait until the gateway returns."""
_END_S: Final = 5.0
"""Longest wait of Ctrl-C for the end of the session: without the gateway, the client retries for its grace."""
_READ_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """Audio to speak, and the session to speak in."""

    audio: "Path | Iterator[bytes]"
    """WAV file, or audio from a pipe."""
    pipe_format: "AudioFormat | None"
    """Format of the audio from a pipe; None for a file, which has a header."""
    total_s: float | None
    options: "SessionOptions | None"
    """Options of the session to open; None to speak in the session of `handle`."""
    handle: str
    show_room: bool


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@connection_options
@click.option("--avatar", help="Avatar of the new session, a UUID.")
@click.option(
    "--sandbox",
    is_flag=True,
    help="Use LiveAvatar's sandbox: free, at most 60 s, with the sandbox avatar by default.",
)
@click.option(
    "--livekit-room", metavar="NAME", help="Room on the gateway's LiveKit server in which the avatar appears."
)
@click.option("--auto-rotate", is_flag=True, help="Rotate to a standby avatar before the avatar's limit.")
@click.option("--handle", help="Speak in this existing session and keep it alive; see above.")
@click.option("--rate", type=click.IntRange(8000, 48_000), help="Raw audio: sample rate in Hz.  [default: 24000]")
@click.option("--encoding", type=click.Choice(ENCODINGS), help="Raw audio: encoding.  [default: pcm_s16le]")
@click.option("--channels", type=click.IntRange(1, 2), help="Raw audio: number of channels.  [default: 1]")
@click.option(
    "--show-room", is_flag=True, help="Print a link to watch the avatar; it contains a token, which is a secret."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object at the end instead of progress.")
def say(
    *,
    file: str,
    target: Target,
    avatar: str | None,
    livekit_room: str | None,
    handle: str | None,
    rate: int | None,
    encoding: str | None,
    channels: int | None,
    sandbox: bool,
    auto_rotate: bool,
    show_room: bool,
    as_json: bool,
) -> None:
    """Speak FILE, a WAV file of any rate, or audio from a pipe; "-" is standard input.

    A pipe may hold a WAV file or raw audio, which is spoken as it arrives. Audio without a WAV header counts as
    raw, and so does all audio with --rate, --encoding or --channels.

    Opens a session, waits until all audio was heard, and ends the session, so that nothing more is billed. Ctrl-C
    interrupts the speech, prints how much was heard, and ends the session too.

    With --handle the command speaks in an existing session and keeps it alive. It takes over the session from the
    attached caller, so it is meant for sessions made with CreateSession, which have none.

    \b
        liveavatar-gateway say hello.wav --avatar AVATAR_ID
        liveavatar-gateway say hello.wav --sandbox --show-room
        ffmpeg -i hello.mp3 -f wav - | liveavatar-gateway say - --avatar AVATAR_ID
        tts "Good morning" | liveavatar-gateway say - --rate 16000 --avatar AVATAR_ID

    \b
    Exit codes: 0 all audio was heard, 1 refused, failed or interrupted by another caller, 2 usage, 130 Ctrl-C.
    """  # noqa: D301 - \b keeps click from wrapping
    from liveavatar.gateway import SessionOptions  # noqa: PLC0415 - keeps `--help` fast

    if sum((avatar is not None or sandbox, handle is not None)) != 1:
        raise click.UsageError("name a session: --avatar AVATAR_ID, --sandbox, or --handle HANDLE")
    if handle is not None and (livekit_room is not None or auto_rotate):
        raise click.UsageError(
            "--livekit-room and --auto-rotate apply to new sessions only, not to the session of --handle"
        )
    is_raw = (rate, encoding, channels) != (None, None, None)
    is_pipe = file == "-" or not Path(file).is_file()
    if is_raw and not is_pipe:
        raise click.UsageError(
            "--rate, --encoding and --channels are for raw audio; a WAV file has its own format"
        )
    audio: Path | Iterator[bytes] = Path(file)
    pipe_format, total_s = None, None
    if is_pipe:
        audio, pipe_format = _piped(file, _raw_format(rate, encoding, channels), is_raw=is_raw)
    else:
        total_s = _seconds(file)
    options = None
    if handle is None:
        options = SessionOptions(
            SANDBOX_AVATAR if avatar is None else avatar,
            sandbox=sandbox,
            livekit_room=livekit_room,
            auto_rotate=auto_rotate,
        )
    request = _Request(
        audio=audio,
        pipe_format=pipe_format,
        total_s=total_s,
        options=options,
        handle=handle or "",
        show_room=show_room,
    )
    from rich.console import Console  # noqa: PLC0415 - keeps `--help` fast

    speaking = _Speaking(request, target, Console(highlight=False, quiet=as_json))
    with stoppable():
        try:
            asyncio.run(speaking.run())
        finally:
            if as_json:
                print_json(speaking.report)
    sys.exit(speaking.exit_code)


class _Speaking:
    """Single utterance, from opening its session to reporting its outcome."""

    def __init__(self, request: _Request, target: Target, console: "Console") -> None:
        self.exit_code = EX_FAILED
        self.report: dict[str, Any] = {}
        """Output of `--json`."""
        self._request = request
        self._target = target
        self._address = target.address
        self._console = console

    async def run(self) -> None:
        """Speak and report the outcome. Cancellation interrupts the speech and ends the session."""
        from liveavatar.gateway import AsyncClient, GatewayError  # noqa: PLC0415 - keeps `--help` fast

        try:
            async with (
                AsyncClient(self._address, timeout=_TIMEOUT_S, **self._target.arguments()) as client,
                AsyncExitStack() as stack,
            ):
                session = await self._session(client, stack)
                self._show_session(session)
                await self._speak(session)
        except GatewayError as error:
            self._report_error(error)

    async def _session(self, client: "AsyncClient", stack: AsyncExitStack) -> "AsyncSession":
        request = self._request
        if request.options is not None:
            session = await client.open_session(request.options).open()
            stack.push_async_exit(functools.partial(self._end, session))
            return session
        session = await client.resume_session(request.handle).open()
        stack.push_async_callback(session.detach)
        return session

    async def _end(self, session: "AsyncSession", kind: type[BaseException] | None, *_: object) -> None:
        """End the session; after Ctrl-C within a few seconds, or leave its end to the gateway."""
        from liveavatar.gateway import GatewayError, SessionEnded, SessionNotFound  # noqa: PLC0415 - keeps `--help` fast
        from liveavatar.gateway.timeouts import timeout  # noqa: PLC0415

        if not session.unended:
            return
        limit_s = _END_S if kind is not None and issubclass(kind, asyncio.CancelledError) else None
        # A second Ctrl-C does not cancel the end: closing the client waits for it.
        ending = asyncio.ensure_future(session.end())
        try:
            async with timeout(limit_s):
                await asyncio.shield(ending)
        except TimeoutError:
            ending.cancel()
            await asyncio.wait({ending})
            self._report_error(
                TimeoutError(
                    f"{self._address} did not confirm the end of the session in time; the gateway ends it later"
                )
            )
            await session.detach()
        except (SessionEnded, SessionNotFound):
            return
        except GatewayError as error:
            self._report_error(error)
            await session.detach()

    async def _speak(self, session: "AsyncSession") -> None:
        utterance = session.say(self._request.audio, format=self._request.pipe_format)
        self.report = {"session_id": session.id, "utterance_id": utterance.id}
        try:
            with self._progress() as show:
                async for progress in utterance.progress_updates():
                    show(progress.played.total_seconds())
        except asyncio.CancelledError:
            await self._interrupt(utterance)
            raise
        if utterance.outcome is not None:  # always set once its progress has ended
            self._report(utterance.outcome)

    async def _interrupt(self, utterance: "AsyncUtterance") -> None:
        """Interrupt the utterance and report how much was heard. Never raises: a signal ends the command."""
        from liveavatar.gateway import GatewayError  # noqa: PLC0415 - keeps `--help` fast
        from liveavatar.gateway.timeouts import timeout  # noqa: PLC0415

        try:
            async with timeout(_INTERRUPT_S):
                self._report(await utterance.interrupt())
        except TimeoutError:
            self._report_error(
                TimeoutError(
                    f"{self._address} did not answer in time; the gateway ends a session without a caller"
                )
            )
        except GatewayError as error:
            self._report_error(error)

    def _report(self, outcome: "Outcome") -> None:
        """Report an outcome."""
        played_s = outcome.played.total_seconds()
        self.exit_code = 0 if outcome.kind.value == "played" else EX_FAILED
        self.report |= {"outcome": outcome.kind.value, "played_s": round(played_s, 3)}
        if self._request.total_s is not None:
            self.report["total_s"] = round(self._request.total_s, 3)
        of = "" if self._request.total_s is None else f" of {self._request.total_s:.2f}"
        self._print(f"{outcome.kind.value}: {played_s:.2f}{of} s were heard")
        if outcome.error is not None:
            self._report_error(outcome.error)
        elif outcome.kind.value == "played" and not played_s:
            # The program before the pipe has probably failed, which a script should notice.
            self._report_error(ValueError("no audio was received"))

    def _report_error(self, error: Exception) -> None:
        """Report an error and the next step."""
        from liveavatar.gateway import GatewayError  # noqa: PLC0415 - keeps `--help` fast

        self.exit_code = EX_FAILED
        if isinstance(error, GatewayError):
            self.report["error"] = {"reason": error.reason, "message": error.message}
            print_error(explanation(error, self._address))
        else:
            self.report["error"] = {"reason": "", "message": str(error)}
            print_error([str(error)])

    def _show_session(self, session: "AsyncSession") -> None:
        room = session.room
        self._print(f"session {session.id}, room {room.url}")
        if self._request.show_room:
            query = urllib.parse.urlencode({"liveKitUrl": room.url, "token": room.viewer_token})
            # Printed even with --json, because requested; on stderr, because stdout may be stored.
            print_line(f"watch it: https://meet.livekit.io/custom?{query}", err=True)

    def _print(self, text: str) -> None:
        if not self._console.quiet:
            print_line(text)

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        """Show a progress bar on a terminal; yield a function that takes the seconds heard."""
        if not self._console.is_terminal or self._console.quiet:
            yield lambda _: None
            return
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - keeps `--help` fast

        of = "" if self._request.total_s is None else " of {task.total:.1f}"
        columns = (BarColumn(bar_width=40), TextColumn(f"played {{task.completed:.1f}}{of} s"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=self._request.total_s)
            yield lambda played_s: progress.update(task, completed=played_s)


def _raw_format(rate: int | None, encoding: str | None, channels: int | None) -> "AudioFormat":
    from liveavatar.gateway import AudioEncoding, AudioFormat  # noqa: PLC0415 - keeps `--help` fast

    return AudioFormat(
        encoding=AudioEncoding(encoding or ENCODINGS[0]),
        sample_rate_hz=24_000 if rate is None else rate,
        channel_count=channels or 1,
    )


def _seconds(file: str) -> float | None:
    """Return the length of a WAV file. Refuses an unusable file before a session is opened and billed."""
    from liveavatar.gateway import wav  # noqa: PLC0415 - keeps `--help` fast

    with _readable(file), wav.WavReader.open(Path(file)) as reader:
        duration = reader.duration
    return None if duration is None else duration.total_seconds()


def _piped(file: str, raw_format: "AudioFormat", *, is_raw: bool) -> tuple[Iterator[bytes], "AudioFormat"]:
    """Return the audio of a pipe and its format. Waits for the first bytes, unless the audio must be raw."""
    from liveavatar.gateway import wav  # noqa: PLC0415 - keeps `--help` fast

    name = "standard input" if file == "-" else file
    with _readable(name), stoppable():
        # Closed with the process, which ends when all audio was spoken.
        pipe = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
        head = b"" if is_raw else pipe.read(wav.HEAD_BYTES)
        if wav.is_wav(head):
            reader = wav.WavReader(pipe, name, head=head)
            return reader.samples(), reader.format
    return _chunks(head, pipe), raw_format


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Exit with an error that names the unreadable input."""
    from liveavatar.gateway import WavError  # noqa: PLC0415 - keeps `--help` fast

    try:
        yield
    except WavError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{name} cannot be read: {error.strerror}")


def _chunks(head: bytes, pipe: BinaryIO) -> Iterator[bytes]:
    """Yield raw audio as it arrives, so that a real-time source stays one."""
    if head:
        yield head
    # Returns buffered data, or the result of a single read.
    read = pipe.read1 if isinstance(pipe, io.BufferedReader) else pipe.read
    while chunk := read(_READ_BYTES):
        yield chunk
