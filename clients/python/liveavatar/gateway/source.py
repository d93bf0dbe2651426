"""Where an utterance's audio comes from: bytes, a WAV file, or an iterator, blocking or not."""

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

BytesLike: TypeAlias = bytes | bytearray | memoryview
Audio: TypeAlias = BytesLike | str | PathLike[str] | Iterable[BytesLike] | AsyncIterable[BytesLike]
"""What `say` takes: samples, the path of a WAV file, or an iterator of samples cut anywhere."""

_AHEAD = 2
# Pieces a blocking iterator may be ahead of the wire.
_ITEM_ENCODINGS = {"h": AudioEncoding.PCM_S16LE, "<h": AudioEncoding.PCM_S16LE, "f": AudioEncoding.PCM_F32LE}
_PLAIN_ITEMS = ("B", "b", "c")


class Source(Protocol):
    """An utterance's audio. Read once, by the one who sends it."""

    async def resolve(self) -> AudioFormat:
        """Find out the format; reads a file's header."""

    def pieces(self) -> AsyncGenerator[BytesLike, None]:
        """The samples, cut anywhere. Closing it closes the iterator behind it."""


def source_of(audio: Audio, given: AudioFormat | None, default: AudioFormat) -> Source:
    """The source for what `say` was given.

    Raises:
        AudioMisaligned: bytes end inside a sample.
        TypeError: it is nothing that holds audio.
        ValueError: a format for a file, which has its own, or an array whose items are of another format.
    """
    if isinstance(audio, str | PathLike):
        if given is not None:
            msg = "a WAV file says its own format; give the format with raw samples only"
            raise ValueError(msg)
        return _FileSource(Path(audio))
    audio_format = given or default
    if isinstance(audio, AsyncIterable):
        return _IteratorSource(audio_format, audio)
    if _has_buffer(audio):
        return _BytesSource(audio_format, samples_of(audio, audio_format))
    if isinstance(audio, Iterable):
        return _IteratorSource(audio_format, audio)
    msg = f"audio is bytes, the path of a WAV file, or an iterator of bytes, not {type(audio).__name__}"
    raise TypeError(msg)


def samples_of(audio: Any, audio_format: AudioFormat) -> bytes:
    """The bytes of anything with a buffer, checked for what would play as noise.

    Raises:
        AudioMisaligned: they end inside a sample.
        TypeError: it has no buffer.
        ValueError: it is an array whose items are not the format's samples.
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
        msg = f"array items of type {view.format!r} are no {audio_format.encoding} samples; convert the array"
        raise ValueError(msg)
    # A copy, since the caller may use its buffer again before it was sent.
    return view.tobytes()


class _BytesSource:
    """All of the audio at once."""

    def __init__(self, audio_format: AudioFormat, audio: bytes) -> None:
        self._format = audio_format
        self._audio = audio

    async def resolve(self) -> AudioFormat:
        return self._format

    async def pieces(self) -> AsyncGenerator[BytesLike, None]:
        yield self._audio


class _FileSource:
    """A WAV file or pipe, read once, in a thread of its own: a pipe may keep its first bytes back for ever."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: AsyncGenerator[Any, None] | None = None

    async def resolve(self) -> AudioFormat:
        self._content = in_thread(self._read())
        audio_format: AudioFormat = await anext(self._content)
        return audio_format

    async def pieces(self) -> AsyncGenerator[BytesLike, None]:
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
    """An iterator of the caller's."""

    def __init__(self, audio_format: AudioFormat, audio: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._format = audio_format
        self._audio = audio

    async def resolve(self) -> AudioFormat:
        return self._format

    async def pieces(self) -> AsyncGenerator[BytesLike, None]:
        pulled = _pulled(self._audio) if isinstance(self._audio, AsyncIterable) else in_thread(self._audio)
        async with contextlib.aclosing(pulled) as pieces:
            async for piece in pieces:
                # A copy of what may change; bytes themselves are not copied.
                yield _bytes_of(piece, self._format)


async def _pulled(audio: AsyncIterable[BytesLike]) -> AsyncGenerator[BytesLike, None]:
    """An async iterable whose own clean-up runs when this is closed."""
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
    """Pull a blocking iterable in a thread of its own, so that it may sleep, read or wait for others.

    Closing this lets the thread go after the piece it is at; the iterable's own `close` runs in that thread.
    The thread is a daemon: an iterable that blocks for ever does not keep the process alive.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Any] = asyncio.Queue()  # bound: the permits
    permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for _ in range(_AHEAD):
        permits.put(True)

    def hand_over(item: Any) -> None:
        # A loop that closed meanwhile has nobody left who waits.
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
        except BaseException as error:  # noqa: BLE001  a thread's root: whatever it is belongs to the one who waits
            last = _Raised(error)
        finally:
            with contextlib.suppress(BaseException):
                getattr(iterator, "close", lambda: None)()
            hand_over(last)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(pull,), name="liveavatar-say", daemon=True).start()
    try:
        while (item := await arrived.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item
            permits.put(True)
    finally:
        permits.put(False)


class _Raised:
    """What a blocking iterable raised, on its way to the loop."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
