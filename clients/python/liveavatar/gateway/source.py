"""Sources of an utterance's audio: bytes, a WAV file, or an iterator, blocking or async."""

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from liveavatar.gateway import wav
from liveavatar.gateway.audio import AudioEncoding, AudioFormat
from liveavatar.gateway.words import TimedPiece, counts_from_its_piece, is_timed

BytesLike: TypeAlias = bytes | bytearray | memoryview
Audio: TypeAlias = BytesLike | str | PathLike[str] | Iterable[Any] | AsyncIterable[Any]
"""Audio for `say`: samples, the path of a WAV file, or an iterator of samples cut anywhere, between which timings
of their words may come, see `Words`."""

_AHEAD = 2
# Pieces that are read ahead from a blocking iterator.
_ITEM_ENCODINGS = {"h": AudioEncoding.PCM_S16LE, "<h": AudioEncoding.PCM_S16LE, "f": AudioEncoding.PCM_F32LE}
_PLAIN_ITEMS = ("B", "b", "c")


class Source(Protocol):
    """Audio of one utterance. Read once, by the task that sends the audio."""

    async def resolve(self) -> AudioFormat:
        """Return the audio format; reads the header of a file."""

    def pieces(self) -> AsyncGenerator[BytesLike | TimedPiece, None]:
        """Iterate over the samples, cut anywhere, and timings. Closing this closes the caller's iterator too."""


def source_of(audio: Audio, given: AudioFormat | None, default: AudioFormat) -> Source:
    """Return the source of the audio given to `say`.

    Raises:
        AudioMisaligned: the bytes end inside a sample.
        TypeError: the object holds no audio.
        ValueError: a format was given for a file, or an array holds items of another format.
    """
    if isinstance(audio, str | PathLike):
        if given is not None:
            msg = "a WAV file contains its format; give a format for raw samples only"
            raise ValueError(msg)
        return _FileSource(Path(audio))
    audio_format = given or default
    if isinstance(audio, AsyncIterable):
        return _IteratorSource(audio_format, audio)
    if _has_buffer(audio):
        return _BytesSource(audio_format, samples_of(audio, audio_format))
    if isinstance(audio, Iterable):
        return _IteratorSource(audio_format, audio)
    msg = f"audio must be bytes, the path of a WAV file, or an iterator of bytes, not {type(audio).__name__}"
    raise TypeError(msg)


def samples_of(audio: Any, audio_format: AudioFormat) -> bytes:
    """Return the bytes of an object with a buffer, after checks against audio that would play as noise.

    Raises:
        AudioMisaligned: the bytes end inside a sample.
        TypeError: the object has no buffer.
        ValueError: an array holds items of another format.
    """
    data = _bytes_of(audio, audio_format)
    audio_format.check_whole(len(data))
    return data


def _has_buffer(audio: object) -> bool:
    try:
        memoryview(audio)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _bytes_of(audio: Any, audio_format: AudioFormat) -> bytes:
    if isinstance(audio, bytes):
        return audio
    view = memoryview(audio)
    if view.format not in _PLAIN_ITEMS and _ITEM_ENCODINGS.get(view.format) is not audio_format.encoding:
        msg = f"array items of type {view.format!r} are not {audio_format.encoding} samples; convert the array"
        raise ValueError(msg)
    # A copy, since the caller may reuse its buffer before the bytes are sent.
    return view.tobytes()


class _BytesSource:
    """Source of audio that is complete at once."""

    def __init__(self, audio_format: AudioFormat, audio: bytes) -> None:
        self._format = audio_format
        self._audio = audio

    async def resolve(self) -> AudioFormat:
        return self._format

    async def pieces(self) -> AsyncGenerator[BytesLike | TimedPiece, None]:
        yield self._audio


class _FileSource:
    """WAV file or pipe, read once, in a thread of its own: a pipe may withhold its first bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: AsyncGenerator[Any, None] | None = None

    async def resolve(self) -> AudioFormat:
        self._content = in_thread(self._read())
        audio_format: AudioFormat = await anext(self._content)
        return audio_format

    async def pieces(self) -> AsyncGenerator[BytesLike | TimedPiece, None]:
        assert self._content is not None, "resolve comes first"  # noqa: S101
        async with contextlib.aclosing(self._content) as pieces:
            async for piece in pieces:
                yield piece

    def _read(self) -> Iterator[Any]:
        """Yield the format, then the samples."""
        with wav.WavReader.open(self._path) as reader:
            yield reader.format
            yield from reader.samples()


class _IteratorSource:
    """Iterator of the caller."""

    def __init__(self, audio_format: AudioFormat, audio: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._format = audio_format
        self._audio = audio

    async def resolve(self) -> AudioFormat:
        return self._format

    async def pieces(self) -> AsyncGenerator[BytesLike | TimedPiece, None]:
        items = pulled(self._audio) if isinstance(self._audio, AsyncIterable) else in_thread(self._audio)
        async with contextlib.aclosing(items) as pieces:
            async for piece in pieces:
                for part in _parts_of(piece):
                    # Copies pieces that may change; bytes are not copied.
                    yield part if isinstance(part, TimedPiece) else _bytes_of(part, self._format)


def _parts_of(piece: Any) -> tuple[Any, ...]:
    """Return the audio and the timings in an item of an iterator.

    Raises:
        ValueError: the times count from audio that is not beside them.
    """
    if isinstance(piece, tuple):
        audio, words = piece
        # First the timings: their times count from the beginning of this audio.
        return (TimedPiece(words, is_relative=True), audio)
    if not is_timed(piece):
        return (piece,)
    if counts_from_its_piece(piece):
        msg = "these times count from the audio of their message; yield both together: (audio, alignment)"
        raise ValueError(msg)
    return (TimedPiece(piece, is_relative=False),)


async def pulled(audio: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Iterate over an async iterable, and run its clean-up when this iterator is closed."""
    iterator = aiter(audio)
    try:
        async for piece in iterator:
            yield piece
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


_END = object()


async def in_thread(audio: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """Iterate over a blocking iterable in a thread of its own.

    After closing, the thread ends at the next piece and calls the iterable's `close`. The thread is a daemon, so
    an iterable that blocks forever does not keep the process alive.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Any] = asyncio.Queue()  # bound: the permits
    permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for _ in range(_AHEAD):
        permits.put(True)

    def hand_over(item: Any) -> None:
        # RuntimeError: the loop was closed meanwhile, so no task waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    def pull() -> None:
        last: Any = _END
        iterator: Iterator[BytesLike] | None = None
        try:
            iterator = iter(audio)
            while permits.get():
                piece = next(iterator, _END)
                if piece is _END:
                    break
                hand_over(piece)
        except BaseException as error:  # noqa: BLE001  a thread's root: the waiting task raises the error
            last = _Raised(error)
        finally:
            with contextlib.suppress(BaseException):
                getattr(iterator, "close", lambda: None)()
            hand_over(last)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(pull,), name="liveavatar-source", daemon=True).start()
    try:
        while (item := await arrived.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item
            permits.put(True)
    finally:
        permits.put(False)


class _Raised:
    """Exception of a blocking iterable, on its way to the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
