import asyncio
import threading
from array import array
from pathlib import Path

import pytest

from liveavatar.gateway import AudioEncoding, AudioFormat, AudioMisaligned
from liveavatar.gateway.source import in_thread, source_of

DEFAULT = AudioFormat()
FLOAT = AudioFormat(encoding=AudioEncoding.PCM_F32LE)


async def everything(audio, given=None):
    source = source_of(audio, given, DEFAULT)
    audio_format = await source.resolve()
    return audio_format, b"".join([bytes(piece) async for piece in source.pieces()])


async def asynchronous():
    yield b"ab"
    yield bytearray(b"cd")


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"abcd",
        lambda: bytearray(b"abcd"),
        lambda: memoryview(b"abcd"),
        lambda: array("h", b"abcd"),
        lambda: [b"ab", b"cd"],
        lambda: iter([b"a", memoryview(b"bcd")]),
        lambda: (piece for piece in (b"abc", bytearray(b"d"))),
        asynchronous,
    ],
)
async def test_whatever_holds_samples_is_read_to_its_end(make):
    assert await everything(make()) == (DEFAULT, b"abcd")


async def test_the_format_given_wins():
    assert await everything(bytes(8), FLOAT) == (FLOAT, bytes(8))


async def test_a_copy_is_taken_of_what_may_change():
    data = bytearray(b"abcd")
    source = source_of(data, None, DEFAULT)
    data[:] = b"wxyz"
    assert [piece async for piece in source.pieces()] == [b"abcd"]


def test_what_would_play_as_noise_is_refused():
    with pytest.raises(AudioMisaligned):
        source_of(b"abc", None, DEFAULT)
    with pytest.raises(ValueError, match="array items"):
        source_of(array("f", [0.5]), None, DEFAULT)
    with pytest.raises(ValueError, match="array items"):
        source_of(array("d", [0.5]), None, FLOAT)
    with pytest.raises(ValueError, match="array items"):
        source_of(array("h", [1, 2]), None, FLOAT)


def test_what_holds_no_audio_is_refused():
    with pytest.raises(TypeError, match="not int"):
        source_of(3, None, DEFAULT)


@pytest.mark.parametrize("path", ["said.wav", Path("said.wav")])
async def test_a_path_is_a_file_with_a_format_of_its_own(path):
    with pytest.raises(ValueError, match="contains its format"):
        source_of(path, DEFAULT, DEFAULT)
    with pytest.raises(FileNotFoundError):
        await source_of(path, None, DEFAULT).resolve()


async def test_an_iterator_of_something_else_fails_where_it_is_read():
    with pytest.raises(TypeError):
        await everything(["text"])


async def test_a_blocking_iterator_runs_elsewhere_and_not_far_ahead():
    """It is drawn from as its audio is taken, not to its end at once."""
    drawn = []
    here = threading.current_thread()

    def endless():
        while True:
            assert threading.current_thread() is not here
            drawn.append(1)
            yield b"ab"

    pieces = in_thread(endless())
    for _ in range(5):
        await anext(pieces)
    assert len(drawn) <= 8
    await pieces.aclose()


async def test_closing_lets_a_blocking_iterator_clean_up():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield b"ab"
        finally:
            closed.set()

    pieces = in_thread(endless())
    await anext(pieces)
    await pieces.aclose()
    assert await asyncio.to_thread(closed.wait, 5)


async def test_what_a_blocking_iterator_raises_arrives():
    def breaks():
        yield b"ab"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        [piece async for piece in in_thread(breaks())]


async def test_context_variables_reach_a_blocking_iterator():
    """Traces and log fields go along."""
    import contextvars

    name = contextvars.ContextVar("name", default="")
    name.set("caller")
    assert [piece async for piece in in_thread(name.get().encode() for _ in range(1))] == [b"caller"]


async def test_closing_an_async_source_closes_what_is_behind_it():
    closed = []

    async def endless():
        try:
            while True:
                yield b"ab"
        finally:
            closed.append(True)

    pieces = source_of(endless(), None, DEFAULT).pieces()
    await anext(pieces)
    await pieces.aclose()
    assert closed == [True]
