"""Talkers send their turns chunk by chunk, and a byte that differs upstream is an error."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from load.bench.loads import TalkLoad
from load.bench.sink import Sink
from load.bench.talker import Conversation, Talker
from load.figures import Recorder
from load.recorder import LoadRecorder
from load.speech import Voice
from stage.errors import StageError

_LOAD = TalkLoad(sessions=1, chunk_ms=100, turn_ms=1000)


class _Pipe:
    """Counts what a talker posts."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def post(self, frame: bytes) -> None:
        self.frames.append(frame)


@pytest.fixture
async def talker(monkeypatch):
    async def nothing(self) -> None:
        self._audio = pipe

    pipe = _Pipe()
    monkeypatch.setattr(Talker, "open", nothing)
    monkeypatch.setattr(Talker, "_open_audio", nothing)
    found = Talker(SimpleNamespace(), "", LoadRecorder(Recorder(), lambda *_: False), Voice())
    found.upstream_id = "one"
    sink = Sink()
    await found.join(_LOAD, 0, sink)
    return SimpleNamespace(talker=found, pipe=pipe, avatar=sink.avatar("one"))


async def test_a_turn_is_a_begin_its_chunks_an_end_and_a_silence(talker):
    written = [talker.talker.step(0.0) for _ in range(20)]
    utterance = [4800] * 4 + [0] * 6
    assert written == utterance * 2
    assert len(talker.pipe.frames) == 2 * (1 + 4 + 1)
    assert talker.talker.written == [4 * 4800] * 2


async def test_bytes_upstream_are_compared_by_utterance(talker):
    for _ in range(4):
        talker.talker.step(0.0)
    talker.avatar.utterances[:] = [4 * 4800]
    talker.talker.check()
    talker.avatar.utterances[:] = [4 * 4800 - 2]
    with pytest.raises(StageError, match="session one: 19198 of 19200 bytes of utterance 0 arrived"):
        talker.talker.check()
    talker.avatar.utterances.clear()
    with pytest.raises(StageError, match="0 of 1 utterances arrived"):
        talker.talker.check()


async def test_a_first_packet_is_as_old_as_the_chunk_that_completed_it(talker):
    for moment_s in (1.0, 1.1, 1.2):
        talker.talker.step(moment_s)
    talker.avatar.on_packet(2 * 4800, True, 1.105)
    assert list(talker.talker.first_packets_s) == pytest.approx([0.005])


async def test_chunks_go_out_in_real_time_and_late_ones_at_once(talker):
    conversation = Conversation([talker.talker], _LOAD)
    conversation.start()
    await asyncio.sleep(0.15)
    time.sleep(0.2)  # noqa: ASYNC251 - the pause itself
    while conversation.written_bytes < 4 * 4800:
        await asyncio.sleep(0.01)
    talker.talker.ended = 1
    talker.avatar.utterances[:] = talker.talker.written
    await conversation.finish()
    assert conversation.lateness_s[2] > 0.1, "due in the middle of the pause"


async def test_an_error_of_the_generator_is_no_silence(talker, monkeypatch):
    def fail(frame: bytes) -> None:
        raise OSError("gone")

    monkeypatch.setattr(talker.pipe, "post", fail)
    conversation = Conversation([talker.talker], _LOAD)
    conversation.start()
    with pytest.raises(StageError, match=r"the generator failed: OSError\('gone'\)"):
        await conversation.finish()
