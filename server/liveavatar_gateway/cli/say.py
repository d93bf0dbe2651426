"""`liveavatar-gateway say`: speak a file, or raw audio from standard input, through a running gateway."""

import asyncio
import functools
import io
import json
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from liveavatar_gateway.cli.connection import complain, connection_options, credentials, explanation
from liveavatar_gateway.cli.output import EX_FAILED, fail, stoppable

if TYPE_CHECKING:
    # Only said here; imported when a command runs.
    from rich.console import Console

    from liveavatar.gateway import AsyncClient, AsyncSession, AsyncUtterance, Outcome
    from liveavatar.gateway.audio import AudioFormat

SANDBOX_AVATAR: Final = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
"""LiveAvatar's avatar for trying things out; the only one its sandbox takes."""

ENCODINGS: Final = ("pcm_s16le", "pcm_f32le", "mulaw", "alaw")
"""What raw audio may be; the values of the client's `AudioEncoding`."""

_ANSWER_S: Final = 10.0
_SILENCE_S: Final = 5.0
# How long Ctrl-C waits for word of how much was heard: a session that lost its gateway would wait for its return.
_END_S: Final = 5.0
# How long Ctrl-C waits for the end of the session: without its gateway that is tried for its whole grace.
_READ_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What to say, where."""

    audio: "Path | Iterator[bytes]"
    """A file, or what comes through a pipe."""
    pipe_format: "AudioFormat | None"
    """Format of what comes through a pipe; None for a file, which says so itself."""
    total_s: float | None
    avatar_id: str
    sandbox: bool
    handle: str | None
    livekit_room: str | None
    auto_rotate: bool
    show_room: bool


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, allow_dash=True))
@connection_options
@click.option("--avatar", help="Avatar to open a session with, a UUID.")
@click.option(
    "--sandbox", is_flag=True, help="LiveAvatar's sandbox: free, 60 s at most, its own avatar by default."
)
@click.option(
    "--livekit-room", metavar="NAME", help="Have the avatar appear in this room of the gateway's LiveKit server."
)
@click.option(
    "--auto-rotate", is_flag=True, help="Outlive the avatar's limit: a fresh one takes over between utterances."
)
@click.option("--handle", help="Speak in this session instead, and leave it alive; see above.")
@click.option("--rate", type=click.IntRange(8000, 48_000), help="Raw audio: samples per second.  [default: 24000]")
@click.option("--encoding", type=click.Choice(ENCODINGS), help="Raw audio: samples.  [default: pcm_s16le]")
@click.option("--channels", type=click.IntRange(1, 2), help="Raw audio: channels.  [default: 1]")
@click.option("--show-room", is_flag=True, help="Print how to watch: a link with a token, which is a secret.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of progress.")
def say(
    *,
    file: str,
    address: str,
    ca: Path | None,
    avatar: str | None,
    livekit_room: str | None,
    handle: str | None,
    rate: int | None,
    encoding: str | None,
    channels: int | None,
    tls: bool,
    sandbox: bool,
    auto_rotate: bool,
    show_room: bool,
    as_json: bool,
) -> None:
    """Speak FILE, a WAV file of any rate; or what comes through a pipe, "-" for standard input.

    A pipe may hold a WAV file, which is spoken as it comes, or raw audio. Raw is what does not begin like a WAV
    file, and whatever comes with --rate, --encoding or --channels.

    Opens a session, waits until all was heard, and ends the session, so that nothing more is billed. Ctrl-C
    interrupts the speech, says how much was heard, and ends the session too.

    With --handle it speaks in a session that exists, and leaves it alive. It takes the session over from whoever
    is attached to it: meant for sessions made with CreateSession, which nobody is attached to.

    \b
        liveavatar-gateway say hello.wav --avatar AVATAR_ID
        liveavatar-gateway say hello.wav --sandbox --show-room
        ffmpeg -i hello.mp3 -f wav - | liveavatar-gateway say - --avatar AVATAR_ID
        tts "Good morning" | liveavatar-gateway say - --rate 16000 --avatar AVATAR_ID

    \b
    Exit codes: 0 all was heard, 1 it was refused, failed or was interrupted by someone else, 2 usage, 130 Ctrl-C.
    """  # noqa: D301 - \b is how click is told not to wrap
    if sum((avatar is not None or sandbox, handle is not None)) != 1:
        raise click.UsageError("say where to speak: --avatar AVATAR_ID, --sandbox, or --handle HANDLE")
    if handle is not None and (livekit_room is not None or auto_rotate):
        raise click.UsageError(
            "--livekit-room and --auto-rotate are for a new session; that of --handle is as it was made"
        )
    is_raw = (rate, encoding, channels) != (None, None, None)
    is_pipe = file == "-" or not Path(file).is_file()
    if is_raw and not is_pipe:
        raise click.UsageError("--rate, --encoding and --channels are for raw audio; a WAV file says its own")
    audio: Path | Iterator[bytes] = Path(file)
    pipe_format, total_s = None, None
    if is_pipe:
        audio, pipe_format = _piped(file, _raw_format(rate, encoding, channels), is_raw=is_raw)
    else:
        total_s = _seconds(file)
    order = _Order(
        audio=audio,
        pipe_format=pipe_format,
        total_s=total_s,
        avatar_id=SANDBOX_AVATAR if avatar is None else avatar,
        sandbox=sandbox,
        handle=handle,
        livekit_room=livekit_room,
        auto_rotate=auto_rotate,
        show_room=show_room,
    )
    from rich.console import Console  # noqa: PLC0415 - `--help` should not wait for it

    speaking = _Speaking(order, address, Console(highlight=False, quiet=as_json))
    with stoppable():
        try:
            asyncio.run(speaking.run(tls=tls, ca=ca))
        finally:
            if as_json:
                click.echo(json.dumps(speaking.report, indent=2))
    sys.exit(speaking.exit_code)


class _Speaking:
    """One utterance, from the session it needs to what became of it."""

    def __init__(self, order: _Order, address: str, console: "Console") -> None:
        self.exit_code = EX_FAILED
        self.report: dict[str, Any] = {}
        """For programs."""
        self._order = order
        self._address = address
        self._console = console

    async def run(self, *, tls: bool, ca: Path | None) -> None:
        """Speak, and tell what became of it. When cancelled, the speech is interrupted and the session ended."""
        from liveavatar.gateway import AsyncClient, GatewayError  # noqa: PLC0415 - not for `--help`

        channel = credentials(tls=tls, ca=ca)
        try:
            async with (
                AsyncClient(self._address, credentials=channel, timeout=_ANSWER_S) as client,
                AsyncExitStack() as stack,
            ):
                session = await self._session(client, stack)
                self._show_session(session)
                await self._speak(session)
        except GatewayError as error:
            self._tell_error(error)

    async def _session(self, client: "AsyncClient", stack: AsyncExitStack) -> "AsyncSession":
        order = self._order
        if order.handle is None:
            opening = client.open_session(
                order.avatar_id,
                sandbox=order.sandbox,
                livekit_room=order.livekit_room,
                auto_rotate=order.auto_rotate,
            )
            session = await opening.open()
            stack.push_async_exit(functools.partial(self._end, session))
            return session
        session = await client.resume_session(order.handle).open()
        stack.push_async_callback(session.detach)
        return session

    async def _end(self, session: "AsyncSession", kind: type[BaseException] | None, *_: object) -> None:
        """End the session; after Ctrl-C no longer than a few seconds."""
        from liveavatar.gateway import GatewayError  # noqa: PLC0415 - not for `--help`
        from liveavatar.gateway.timeouts import timeout  # noqa: PLC0415

        limit_s = _END_S if kind is not None and issubclass(kind, asyncio.CancelledError) else None
        # A second Ctrl-C does not take it back: closing the client waits for it.
        ending = asyncio.ensure_future(session.leave())
        try:
            async with timeout(limit_s):
                await asyncio.shield(ending)
        except TimeoutError:
            ending.cancel()
            await asyncio.wait({ending})
            self._tell_error(
                TimeoutError(f"{self._address} did not end the session in time; it does so by itself")
            )
        except GatewayError as error:
            self._tell_error(error)

    async def _speak(self, session: "AsyncSession") -> None:
        utterance = session.say(self._order.audio, format=self._order.pipe_format)
        self.report = {"session_id": session.id, "utterance_id": utterance.id}
        try:
            with self._progress() as show:
                async for progress in utterance.progress_updates():
                    show(progress.played.total_seconds())
        except asyncio.CancelledError:
            await self._silence(utterance)
            raise
        if utterance.outcome is not None:  # it always is, once its progress has ended
            self._tell(utterance.outcome)

    async def _silence(self, utterance: "AsyncUtterance") -> None:
        """Cut it, and tell how much was heard. Raises nothing: the command ends by its signal all the same."""
        from liveavatar.gateway import GatewayError  # noqa: PLC0415 - not for `--help`
        from liveavatar.gateway.timeouts import timeout  # noqa: PLC0415

        try:
            async with timeout(_SILENCE_S):
                self._tell(await utterance.interrupt())
        except TimeoutError:
            self._tell_error(
                TimeoutError(f"{self._address} did not answer in time; it ends a session that nobody holds")
            )
        except GatewayError as error:
            self._tell_error(error)

    def _tell(self, outcome: "Outcome") -> None:
        """Say what became of it."""
        played_s = outcome.played.total_seconds()
        self.exit_code = 0 if outcome.kind.value == "played" else EX_FAILED
        self.report |= {"outcome": outcome.kind.value, "played_s": round(played_s, 3)}
        if self._order.total_s is not None:
            self.report["total_s"] = round(self._order.total_s, 3)
        of = "" if self._order.total_s is None else f" of {self._order.total_s:.2f}"
        self._console.print(f"{outcome.kind.value}: {played_s:.2f}{of} s were heard", soft_wrap=True)
        if outcome.error is not None:
            self._tell_error(outcome.error)
        elif outcome.kind.value == "played" and not played_s:
            # What was meant to write the audio has probably failed; a script should learn of it.
            self._tell_error(ValueError("there was no audio to speak"))

    def _tell_error(self, error: Exception) -> None:
        """Say why, and what to do about it."""
        from liveavatar.gateway import GatewayError  # noqa: PLC0415 - not for `--help`

        self.exit_code = EX_FAILED
        if isinstance(error, GatewayError):
            self.report["error"] = {"reason": error.reason, "message": error.message}
            complain(explanation(error, self._address))
        else:
            self.report["error"] = {"reason": "", "message": str(error)}
            complain([str(error)])

    def _show_session(self, session: "AsyncSession") -> None:
        room = session.room
        self._console.print(f"session {session.id}, room {room.url}", soft_wrap=True)
        if self._order.show_room:
            query = urllib.parse.urlencode({"liveKitUrl": room.url, "token": room.viewer_token})
            # Asked for, so also where the rest is quiet; on stderr, since stdout may be kept.
            click.echo(f"watch it: https://meet.livekit.io/custom?{query}", err=True)

    @contextmanager
    def _progress(self) -> Iterator[Any]:
        """A bar on a terminal, nothing elsewhere; yields what to call with the seconds heard."""
        if not self._console.is_terminal or self._console.quiet:
            yield lambda _: None
            return
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - not for `--help`

        of = "" if self._order.total_s is None else " of {task.total:.1f}"
        columns = (BarColumn(bar_width=40), TextColumn(f"played {{task.completed:.1f}}{of} s"))
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=self._order.total_s)
            yield lambda played_s: progress.update(task, completed=played_s)


def _raw_format(rate: int | None, encoding: str | None, channels: int | None) -> "AudioFormat":
    from liveavatar.gateway import AudioEncoding, AudioFormat  # noqa: PLC0415 - not for `--help`

    return AudioFormat(
        encoding=AudioEncoding(encoding or ENCODINGS[0]),
        sample_rate_hz=24_000 if rate is None else rate,
        channel_count=channels or 1,
    )


def _seconds(file: str) -> float | None:
    """Return the length of a WAV file. Reading its header first costs nothing; a session would."""
    from liveavatar.gateway import wav  # noqa: PLC0415 - not for `--help`

    with _readable(file), wav.WavReader.open(Path(file)) as reader:
        duration = reader.duration
    return None if duration is None else duration.total_seconds()


def _piped(file: str, raw_format: "AudioFormat", *, is_raw: bool) -> tuple[Iterator[bytes], "AudioFormat"]:
    """Return what comes through a pipe, and its format. Waits for its first bytes, unless it is surely raw."""
    from liveavatar.gateway import wav  # noqa: PLC0415 - not for `--help`

    name = "standard input" if file == "-" else file
    with _readable(name), stoppable():
        # Closed with the process, which ends when all of it was spoken.
        pipe = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
        head = b"" if is_raw else pipe.read(wav.HEAD_BYTES)
        if wav.is_wav(head):
            reader = wav.WavReader(pipe, name, head=head)
            return reader.samples(), reader.format
    return _as_it_comes(head, pipe), raw_format


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Exit with a line that names what cannot be read."""
    from liveavatar.gateway import WavError  # noqa: PLC0415 - not for `--help`

    try:
        yield
    except WavError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{name} cannot be read: {error.strerror}")


def _as_it_comes(head: bytes, pipe: BinaryIO) -> Iterator[bytes]:
    """Raw audio as it comes: a real-time source stays one."""
    if head:
        yield head
    # What its buffer holds, or else what one read brings.
    read = pipe.read1 if isinstance(pipe, io.BufferedReader) else pipe.read
    while piece := read(_READ_BYTES):
        yield piece
