"""A listener is many streams, and asks for no more audio than is read."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from unit.client.fakes import FakeCall, connecting, retries, settle

from liveavatar.gateway import (
    AsyncListener,
    AudioEncoding,
    AudioFormat,
    ConnectionLost,
    RoomUnreachable,
    SessionEnded,
    UserAudio,
)
from liveavatar.gateway.v1 import audio_service_pb2 as pb

READY = pb.ListenAudioResponse(ready=pb.ListenReady(session_id="s"))
LOST = ConnectionLost("gone", code=grpc.StatusCode.UNAVAILABLE)
ENDED = SessionEnded("over", code=grpc.StatusCode.FAILED_PRECONDITION, reason="SESSION_ENDED")


def audio(sequence: int, size_bytes: int = 2) -> pb.ListenAudioResponse:
    message = pb.UserAudio(participant="ann", sequence=sequence, audio=bytes(size_bytes))
    message.captured_at.FromDatetime(datetime(2026, 12, 1, tzinfo=UTC))
    return pb.ListenAudioResponse(audio=message)


def listener(*calls: FakeCall, resume_timeout: timedelta | None = None, **header) -> AsyncListener:
    arguments = {"audio_format": AudioFormat(), "chunk_duration": 0.02, "participants": (), **header}
    return AsyncListener(
        connecting(list(calls)),
        lambda: pb.ListenHeader(session_id="s"),
        retries(),
        resume_timeout=resume_timeout,
        **arguments,
    )


async def test_the_header_names_session_format_users_and_two_seconds_of_credit():
    mulaw = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate_hz=8_000)
    call = FakeCall(READY, audio(1), None)
    found = listener(call, audio_format=mulaw, participants=["ann"])
    assert (repr(found), found.format) == ("<AsyncListener not open>", mulaw)
    async with found:
        chunk = await found.next()
        assert chunk == UserAudio(
            participant="ann", captured_at=datetime(2026, 12, 1, tzinfo=UTC), sequence=1, audio=bytes(2)
        )
        assert found.connected
        assert repr(found) == "<AsyncListener hearing>"
        assert [one async for one in found] == []
    assert repr(found) == "<AsyncListener closed>"
    header = call.written[0].header
    assert (header.session_id, header.credit_bytes, list(header.participants)) == ("s", 16_000, ["ann"])
    assert header.chunk_duration.ToMilliseconds() == 20
    assert header.format == mulaw.to_proto()
    assert call.cancelled


async def test_credit_is_returned_for_what_was_read():
    quarter = 24_000
    call = FakeCall(READY, audio(1, quarter - 2), audio(2), audio(3), None)
    async for _ in listener(call):
        pass
    assert [request.credit.bytes for request in call.written[1:]] == [quarter]


async def test_dropped_audio_is_reported():
    message = audio(5)
    message.audio.dropped.FromMilliseconds(80)
    chunk = await listener(FakeCall(READY, message)).next()
    assert chunk.dropped == timedelta(milliseconds=80)


async def test_a_broken_stream_is_opened_again():
    found = listener(FakeCall(READY, audio(1), LOST), FakeCall(READY, audio(1), None))
    assert [chunk.sequence async for chunk in found] == [1, 1]


async def test_a_listener_that_never_was_in_the_room_gives_up():
    calls = [FakeCall(LOST) for _ in range(8)]
    found = listener(*calls)
    with pytest.raises(ConnectionLost):
        await found.next()
    assert await found.next() is None


async def test_a_lost_listener_gives_up_after_its_time():
    calls = [FakeCall(READY, LOST), FakeCall(LOST), FakeCall(LOST)]
    with pytest.raises(ConnectionLost, match="within 0 s"):
        await listener(*calls, resume_timeout=timedelta()).next()


async def test_a_refusal_is_raised():
    refusal = RoomUnreachable("no room", code=grpc.StatusCode.UNAVAILABLE, reason="ROOM_UNREACHABLE")
    with pytest.raises(RoomUnreachable):
        await listener(FakeCall(refusal)).next()


async def test_a_session_that_ended_while_its_stream_was_lost_is_the_end():
    found = listener(FakeCall(READY, audio(1), LOST), FakeCall(ENDED))
    assert [chunk.sequence async for chunk in found] == [1]
    with pytest.raises(SessionEnded):
        await listener(FakeCall(ENDED)).next()


async def test_a_read_that_is_cancelled_leaves_its_stream_and_the_next_opens_another():
    first = FakeCall(READY)
    found = listener(first, FakeCall(READY, audio(1)))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(found.next(), 0.01)
    assert first.cancelled
    assert (await found.next()).sequence == 1


async def test_heartbeats_are_sent_while_the_stream_is_open():
    beats = []

    class Beating(FakeCall):
        async def keep_alive(self, heartbeat, interval_s):
            beats.append((heartbeat.WhichOneof("message"), interval_s))

    ready = pb.ListenAudioResponse(ready=pb.ListenReady(session_id="s"))
    ready.ready.heartbeat_interval.FromSeconds(20)
    found = listener(Beating(ready, pb.ListenAudioResponse(heartbeat={}), audio(1)))
    await found.next()
    await settle()
    found.close()
    assert beats == [("heartbeat", 20.0)]
