"""Exchange on `StreamAudio`: every utterance is acknowledged, and has one end."""

import asyncio
import math

import grpc
import pytest
from google.rpc import error_details_pb2

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar_gateway.core.errors import AudioStreamSuperseded, SessionEnded, UnexpectedMessage
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.words import TimedText
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc.audio_stream import AudioStream
from liveavatar_gateway.rpc.config import RpcConfig
from testkit.actors import Context, Process
from testkit.avatar import audio_input_of

CONFIG = RpcConfig(speech=SpeechConfig(), ack_interval_s=0.01)


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


def reason_of(status) -> str:
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


class Streaming:
    """A stream that runs, and the call it belongs to."""

    def __init__(self, session, *, pace=None, context=None) -> None:
        self.context = context or Context()
        self.running = asyncio.create_task(
            AudioStream(session, audio_input_of(None), CONFIG, self.context, pace=pace).run()
        )

    def send(self, **message) -> None:
        self.context.requests.put_nowait(p.StreamAudioRequest(**message))

    def close(self) -> None:
        self.context.requests.put_nowait(grpc.aio.EOF)

    async def failure(self) -> Exception:
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(self.running, 10)
        return caught.value.exceptions[0]


async def test_audio_is_acknowledged_and_its_end_told(process):
    streaming = Streaming(await process.ready())
    ready = await streaming.context.until("ready")
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(chunk=p.AudioChunk(audio=bytes(9_600)))
    async with asyncio.timeout(10):
        while (ack := await streaming.context.until("ack")).received_bytes != 9_600:
            pass
    assert ack.credit_bytes < ready.credit_bytes
    streaming.send(cancel=p.CancelUtterance(utterance_id="u"))
    ended = await streaming.context.until("ended")
    assert (ended.utterance_id, ended.outcome) == ("u", audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED)
    streaming.close()
    await asyncio.wait_for(streaming.running, 10)


async def test_a_gap_is_reported_once_with_the_byte_to_continue_from(process):
    streaming = Streaming(await process.ready())
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    for _ in range(3):
        streaming.send(chunk=p.AudioChunk(audio=bytes(100), offset_bytes=5_000))
    streaming.send(cancel=p.CancelUtterance())
    rejected = await streaming.context.until("rejected")
    assert (rejected.utterance_id, rejected.received_bytes) == ("u", 0)
    while not streaming.context.written.empty():
        assert not streaming.context.written.get_nowait().HasField("rejected")


async def test_audio_of_another_utterance_than_the_open_one_is_dropped(process):
    session = await process.ready()
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(chunk=p.AudioChunk(audio=bytes(100), utterance_id="before"))
    streaming.send(end=p.EndUtterance(utterance_id="before"))
    await streaming.context.until("ack")
    assert session.view().usage.dropped_bytes == 100
    assert session.view().usage.received_bytes == 0


async def test_what_follows_a_refused_begin_up_to_its_end_is_dropped(process):
    session = await process.ready()
    session.utterances.cancel(session.utterances.begin("u", audio_input_of(None)))
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(chunk=p.AudioChunk(audio=bytes(100)))
    streaming.send(end=p.EndUtterance(utterance_id="u"))
    streaming.send(begin=p.BeginUtterance(utterance_id="v"))
    assert (await streaming.context.until("rejected")).utterance_id == "u"
    assert (await streaming.context.until("ack")).utterance_id == "v"
    assert session.view().usage.dropped_bytes == 100


class SlowContext(Context):
    """Caller that takes a moment for each answer."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Semaphore(1)

    async def write(self, response) -> None:
        await super().write(response)
        await self.reads.acquire()


async def test_a_refusal_of_the_last_begin_is_sent_though_the_caller_has_closed_its_side(process):
    session = await process.ready()
    for name in ("u", "v"):
        session.utterances.cancel(session.utterances.begin(name, audio_input_of(None)))
    streaming = Streaming(session, context=SlowContext())
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    assert (await streaming.context.until("rejected")).utterance_id == "u"
    # Comes, with the end, while the answer before is still being written.
    streaming.send(begin=p.BeginUtterance(utterance_id="v"))
    streaming.close()
    await asyncio.sleep(0.01)
    for _ in range(5):
        streaming.context.reads.release()
    assert (await streaming.context.until("rejected")).utterance_id == "v"
    await asyncio.wait_for(streaming.running, 10)


async def test_a_resumed_utterance_is_acknowledged_at_once(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(200))
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u", resume=True))
    assert (await streaming.context.until("ack")).received_bytes == 200


async def test_a_later_stream_continues_what_the_earlier_one_left_open(process):
    session = await process.ready()
    earlier = Streaming(session)
    earlier.send(begin=p.BeginUtterance(utterance_id="u"))
    await earlier.context.until("ack")
    later = Streaming(session)
    later.send(begin=p.BeginUtterance(utterance_id="u", resume=True))
    assert (await later.context.until("ack")).utterance_id == "u"
    assert isinstance(await earlier.failure(), AudioStreamSuperseded)


@pytest.mark.parametrize(
    "message",
    [
        {"chunk": p.AudioChunk(audio=bytes(2))},
        {"end": p.EndUtterance()},
        {"header": p.AudioHeader()},
        {},
    ],
    ids=["chunk", "end", "header", "nothing"],
)
async def test_a_message_out_of_place_ends_the_stream(process, message):
    streaming = Streaming(await process.ready())
    streaming.send(**message)
    with pytest.raises((UnexpectedMessage, ExceptionGroup)) as caught:
        await asyncio.wait_for(streaming.running, 10)
    found = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(found, UnexpectedMessage)


async def test_a_second_begin_needs_the_end_of_the_first(process):
    streaming = Streaming(await process.ready())
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(begin=p.BeginUtterance(utterance_id="v"))
    assert isinstance(await streaming.failure(), UnexpectedMessage)


async def test_a_stream_ends_with_its_session(process):
    session = await process.ready()
    streaming = Streaming(session)
    await streaming.context.until("ready")
    session.end(EndReason.CALLER_ENDED)
    assert isinstance(await streaming.failure(), SessionEnded)


async def test_a_caller_that_reads_no_answers_is_not_read_any_more(process):
    session = await process.ready()
    streaming = Streaming(session)
    reading = asyncio.Event()

    async def blocked(_: object) -> None:
        await reading.wait()

    streaming.context.write = blocked
    for number in range(200):
        streaming.send(begin=p.BeginUtterance(utterance_id=f"u-{number}"))
        streaming.send(cancel=p.CancelUtterance())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert streaming.context.requests.qsize() > 100
    reading.set()
    streaming.close()
    await asyncio.wait_for(streaming.running, 10)
    assert streaming.context.requests.empty()


async def test_a_pause_ends_when_the_quota_is_raised(process):
    wait_s = math.inf
    streaming = Streaming(await process.ready(), pace=lambda _size: wait_s)
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(chunk=p.AudioChunk(audio=bytes(9_600)))
    streaming.send(cancel=p.CancelUtterance(utterance_id="u"))
    while (await streaming.context.until("ack")).received_bytes != 9_600:
        pass
    wait_s = 0.0
    assert (await asyncio.wait_for(streaming.context.until("ended"), 10)).utterance_id == "u"


async def test_a_pause_is_no_time_without_audio(process):
    pauses_s = iter([2.5, 2.0, 1.0])
    streaming = Streaming(await process.ready(), pace=lambda _size: next(pauses_s, 0.0))
    begin = p.BeginUtterance(utterance_id="u")
    begin.idle_timeout.FromSeconds(1)
    streaming.send(begin=begin)
    for start in (0, 9_600):
        streaming.send(chunk=p.AudioChunk(audio=bytes(9_600), offset_bytes=start))
    streaming.send(cancel=p.CancelUtterance(utterance_id="u"))
    async with asyncio.timeout(10):
        ended = await streaming.context.until("ended")
    assert not ended.HasField("error")


# --- timings of words

WORDS = p.TimedText(texts=["Hello ", "world"], start_ms=[0, 500], end_ms=[400, 900])


async def test_refused_timings_leave_the_audio_alone(process):
    session = await process.ready()
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u", text=WORDS))
    streaming.send(timings=p.TextTimings(text=p.TimedText(texts=["!"], start_ms=[400], end_ms=[400])))
    streaming.send(timings=p.TextTimings(utterance_id="u", text=p.TimedText(texts=["?"], start_ms=[900, 1])))
    streaming.send(chunk=p.AudioChunk(audio=bytes(9_600)))
    rejected = await streaming.context.until("rejected")
    assert (rejected.utterance_id, reason_of(rejected.error)) == ("u", "TIMINGS_INVALID")
    async with asyncio.timeout(10):
        while (await streaming.context.until("ack")).received_bytes != 9_600:
            pass
    assert not session.utterances.find("u").sealed
    assert session.utterances.find("u").text.heard(9.0) == "Hello world"


async def test_timings_of_a_sealed_utterance_are_taken_by_its_name(process):
    session = await process.ready()
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(chunk=p.AudioChunk(audio=bytes(96_000)))
    streaming.send(end=p.EndUtterance(utterance_id="u"))
    streaming.send(begin=p.BeginUtterance(utterance_id="v"))
    streaming.send(timings=p.TextTimings(utterance_id="u", text=WORDS))
    streaming.send(timings=p.TextTimings(utterance_id="long gone", text=WORDS))
    async with asyncio.timeout(10):
        while (await streaming.context.until("ack")).utterance_id != "v":
            pass
    assert session.utterances.find("u").text.heard(9.0) == "Hello world"
    assert session.utterances.find("v").text is None


async def test_an_utterance_that_ended_elsewhere_gets_its_text_from_timings_that_come_again(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(96_000))
    while not utterance.sent_s:
        await asyncio.sleep(0)
    session.utterances.cancel(utterance)
    await session.interrupt("u")
    utterance.text = None
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u", resume=True, text=WORDS))
    ended = await streaming.context.until("ended")
    played_s = ended.played.ToTimedelta().total_seconds()
    assert ended.heard_text == ("" if played_s < 0.2 else "Hello ")
    broken = p.TimedText(texts=["a"])
    streaming.send(begin=p.BeginUtterance(utterance_id="u", resume=True, text=broken))
    assert reason_of((await streaming.context.until("rejected")).error) == "TIMINGS_INVALID"
    assert (await streaming.context.until("ended")).utterance_id == "u"


async def test_timings_that_end_with_their_utterance_have_no_effect(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.cancel(utterance)
    session.utterances.add_text(utterance, TimedText(["a"], [0]), field="timings.text")
    assert utterance.text is None


async def test_timings_after_a_refused_begin_are_dropped(process):
    session = await process.ready()
    session.utterances.cancel(session.utterances.begin("u", audio_input_of(None)))
    streaming = Streaming(session)
    streaming.send(begin=p.BeginUtterance(utterance_id="u"))
    streaming.send(timings=p.TextTimings(text=WORDS))
    streaming.send(begin=p.BeginUtterance(utterance_id="v"))
    assert (await streaming.context.until("ack")).utterance_id == "v"


async def test_timings_of_no_utterance_break_the_grammar(process):
    streaming = Streaming(await process.ready())
    streaming.send(timings=p.TextTimings(text=WORDS))
    assert isinstance(await streaming.failure(), UnexpectedMessage)
