"""The asyncio client against a running gateway, in front of a running emulator."""

import asyncio
import signal
from datetime import timedelta

import grpc
import pytest
from clients.python.sound import wav

from liveavatar.gateway import (
    TLS,
    AsyncClient,
    AttachSuperseded,
    AudioContainerDetected,
    AudioEncoding,
    AudioFormat,
    AudioFormatUnsupported,
    CapacityExhausted,
    ConnectionLost,
    EndReason,
    GoAwayEvent,
    InvalidField,
    OutcomeKind,
    Pose,
    PoseChangedEvent,
    RequestIdReused,
    ResumedEvent,
    SessionEnded,
    SessionEndedEvent,
    SessionNotFound,
    SessionState,
    StateChangedEvent,
    UtteranceEndedEvent,
    UtteranceIdReused,
    UtteranceNotFound,
    UtteranceStartedEvent,
)
from testkit import processes
from testkit.caller import AVATAR
from testkit.speech import real_time, sound

SPOKEN = sound(0.6)


async def in_real_time(pcm: bytes):
    begun_s = asyncio.get_running_loop().time()
    for step in real_time(len(pcm)):
        await asyncio.sleep(max(begun_s + step.at_s - asyncio.get_running_loop().time(), 0))
        start = round(step.at_s * 48_000)
        yield pcm[start : start + step.size]


async def test_bytes_are_spoken_exactly(client, emulator):
    """LiveAvatar receives the given audio, byte for byte, although the avatar was not ready yet."""
    async with client.open_session(AVATAR) as session:
        utterance = session.say(SPOKEN)
        assert await utterance.started()
        outcome = await utterance
        assert outcome.kind == "played"
        assert outcome.played == timedelta(seconds=0.6)
        assert utterance.progress.received_bytes == len(SPOKEN)
        assert emulator.audio(session.record.upstream_session_id) == SPOKEN


@pytest.mark.parametrize("kind", ["bytearray", "array", "generator", "async generator", "real time", "bytes list"])
async def test_every_kind_of_source_is_spoken_exactly(client, emulator, kind):
    import numpy as np

    def generated():
        yield from (SPOKEN[start : start + 777] for start in range(0, len(SPOKEN), 777))

    async def asynchronous():
        for piece in generated():
            await asyncio.sleep(0)
            yield memoryview(piece)

    sources = {
        "bytearray": lambda: bytearray(SPOKEN),
        "array": lambda: np.frombuffer(SPOKEN, np.int16),
        "generator": generated,
        "async generator": asynchronous,
        "real time": lambda: in_real_time(SPOKEN),
        "bytes list": lambda: [SPOKEN[:1000], b"", SPOKEN[1000:]],
    }
    async with client.open_session(AVATAR) as session:
        outcome = await session.say(sources[kind]())
        assert outcome.kind is OutcomeKind.PLAYED
        assert emulator.audio(session.record.upstream_session_id) == SPOKEN


@pytest.mark.parametrize("encoding", list(AudioEncoding))
async def test_files_are_spoken_in_their_own_format(client, tmp_path, encoding):
    audio_format = AudioFormat(encoding=encoding, sample_rate_hz=16_000, channel_count=2)
    silence = b"\0" if encoding is not AudioEncoding.MULAW else b"\xff"
    path = wav(tmp_path / "said.wav", silence * audio_format.size_bytes(0.5), audio_format)
    async with client.open_session(AVATAR) as session:
        outcome = await session.say(path)
        assert outcome.kind == "played"
        assert outcome.played == pytest.approx(timedelta(seconds=0.5), abs=timedelta(seconds=0.02))
        assert (await session.say(str(path))).kind == "played"


async def test_formats_may_change_from_one_utterance_to_the_next(client, emulator):
    """Each on its own stream, in order."""
    telephone = AudioFormat(encoding=AudioEncoding.MULAW, sample_rate_hz=8000)
    async with client.open_session(AVATAR) as session:
        utterances = [
            session.say(SPOKEN),
            session.say(b"\xff" * 4000, format=telephone),
            session.say(sound(0.2, seed=2)),
        ]
        assert [(await utterance).kind for utterance in utterances] == ["played"] * 3
        upstream_id = session.record.upstream_session_id
        assert emulator.utterance_audio(upstream_id, 0) == SPOKEN
        assert emulator.utterance_audio(upstream_id, 2) == sound(0.2, seed=2)


async def test_many_utterances_are_spoken_in_order(client, emulator):
    texts = [sound(0.12, seed=seed) for seed in range(6)]
    async with client.open_session(AVATAR) as session:
        for text in texts:
            session.say(text)
        await session.wait_for_playout()
        assert emulator.audio(session.record.upstream_session_id) == b"".join(texts)


async def test_more_audio_than_the_gateway_holds_is_sent_as_credit_comes(emulator):
    """A minute of speech against two seconds of buffer: all of it waits here, and nothing is refused."""
    with processes.gateway(emulator.url, max_buffered_s=2, max_lead_s=1) as gateway:
        async with AsyncClient(gateway.address) as client, client.open_session(AVATAR) as session:
            pcm = sound(60)
            utterance = session.say(pcm)
            async for progress in utterance.progress_updates():
                assert progress.received_bytes <= len(pcm)
                if progress.played > timedelta(seconds=2):
                    break
            assert progress.received_bytes < 48_000 * 8
            assert (await utterance.interrupt()).kind == "interrupted"


async def test_an_interrupt_says_how_much_was_heard(client):
    async with client.open_session(AVATAR) as session:
        utterance = session.say(sound(20))
        waiting = session.say(sound(1))
        await utterance.started()
        await asyncio.sleep(0.5)
        interruption = await session.interrupt()
        assert [outcome.utterance_id for outcome in interruption.interrupted] == [utterance.id, waiting.id]
        outcome = await utterance
        assert outcome.kind == "interrupted"
        assert timedelta() < outcome.played < timedelta(seconds=20)
        assert interruption.played == outcome.played
        assert (await waiting).played == timedelta()
        assert (await session.interrupt()).interrupted == ()
        # The reply to the interruption is spoken whole.
        assert (await session.say(SPOKEN)).kind == "played"


async def test_an_end_that_liveavatar_never_told_is_marked_as_inferred(client, emulator):
    """By the event and by the utterance, which hear of it on two streams."""
    async with client.open_session(AVATAR) as session:
        spoken = await session.say(sound(0.3))
        utterance = session.say(sound(0.6))
        assert await utterance.started()
        upstream_id = session.record.upstream_session_id
        await asyncio.to_thread(
            lambda: emulator.socket_fault("refuse_sockets", upstream_id, how="reset", for_s=1.5)
        )
        await asyncio.to_thread(emulator.drop, upstream_id, None)
        concluded = await utterance
        await session.end()
        told = {
            event.outcome.utterance_id: event.outcome
            async for event in session.events()
            if isinstance(event, UtteranceEndedEvent)
        }
    assert (spoken.inferred, concluded.inferred) == (False, True)
    assert told == {spoken.utterance_id: spoken, concluded.utterance_id: concluded}


async def test_one_of_several_is_interrupted(client):
    """The others play, also when it was sent already."""
    async with client.open_session(AVATAR) as session:
        first, second, third = session.say(sound(1)), session.say(sound(30)), session.say(SPOKEN)
        await first.started()
        assert (await second.interrupt()).kind == "interrupted"
        assert (await first).kind == "played"
        assert (await third).kind == "played"
        assert await second.interrupt() == second.outcome


async def test_an_interrupt_at_once_leaves_nothing_behind(client):
    """In any race between the two streams the avatar is silent after the interrupt."""
    async with client.open_session(AVATAR) as session:
        await session.ready()
        for delay_s in (0, 0.001, 0.005, 0.02):
            utterance = session.say(sound(30))
            await asyncio.sleep(delay_s)
            await session.interrupt()
            assert (await utterance).kind == "interrupted"
            assert session._speech.idle


async def test_interrupt_from_elsewhere(client):
    async with client.open_session(AVATAR) as session:
        utterance = session.say(sound(20))
        await utterance.started()
        interruption = await client.interrupt_session(session.id)
        assert interruption.interrupted[0].utterance_id == utterance.id
        assert (await utterance).kind == "interrupted"
        with pytest.raises(UtteranceNotFound):
            await client.interrupt_session(session.id, "never was")
        with pytest.raises(UtteranceNotFound):
            await session.interrupt("never was")


async def test_events_tell_the_whole_life(client):
    async with client.open_session(AVATAR) as session:
        await session.ready()
        assert session.state is SessionState.READY
        utterance = session.say(SPOKEN)
        await utterance
        async with session.listening():
            await session.interrupt()
        record = await session.end()
        assert record.end_reason is EndReason.CALLER_ENDED
        assert record.usage.utterance_count == 1
        events = [event async for event in session.events()]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [event.state for event in events if isinstance(event, StateChangedEvent)] == [
            SessionState.CONNECTING,
            SessionState.READY,
            SessionState.ENDING,
            SessionState.ENDED,
        ]
        started = next(event for event in events if isinstance(event, UtteranceStartedEvent))
        ended = next(event for event in events if isinstance(event, UtteranceEndedEvent))
        assert started.utterance_id == ended.outcome.utterance_id == utterance.id
        assert ended.outcome.kind == "played"
        assert Pose.LISTENING in [event.pose for event in events if isinstance(event, PoseChangedEvent)]
        assert isinstance(events[-1], SessionEndedEvent)
        assert [event async for event in session.events(after_sequence=3)] == events[3:]
        with pytest.raises(SessionEnded):
            session.say(SPOKEN)
        with pytest.raises(SessionEnded):
            await session.start_listening()


async def test_bad_audio_fails_its_utterance_and_not_the_session(client):
    async with client.open_session(AVATAR) as session:
        with pytest.raises(AudioContainerDetected):
            await session.say(b"RIFF\0\0\0\0WAVEfmt " + bytes(100))
        with pytest.raises(AudioFormatUnsupported):
            await session.say(bytes(1000), format=AudioFormat(sample_rate_hz=96_000))
        await session.say(SPOKEN, utterance_id="once")
        with pytest.raises(UtteranceIdReused):
            await session.say(SPOKEN, utterance_id="once")
        assert (await session.say(SPOKEN)).kind == "played"


async def test_a_source_that_fails_silences_what_it_had_said(client):
    async def breaks():
        yield sound(5)
        await asyncio.sleep(0.5)
        raise LookupError("the voice broke")

    async with client.open_session(AVATAR) as session:
        utterance = session.say(breaks())
        with pytest.raises(LookupError):
            await utterance
        assert utterance.outcome is not None
        assert utterance.outcome.played < timedelta(seconds=5)
        assert (await session.say(SPOKEN)).kind == "played"


async def test_leaving_the_block_stops_the_avatar(client, emulator):
    sessions = []

    async def fails() -> None:
        async with client.open_session(AVATAR) as session:
            sessions.append(session)
            await session.ready()
            session.say(sound(10))
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    stopped = emulator.session(sessions[0].record.upstream_session_id)
    assert stopped["phase"] == "ended"
    assert sessions[0].record.end_reason is EndReason.CALLER_ENDED


async def test_a_session_moves_from_one_client_to_another(client, shared_gateway):
    """Detach, resume elsewhere, speak there: the events before are told there as well."""
    async with client.open_session(AVATAR) as session:
        await session.say(SPOKEN)
        handle = await session.detach()
    async with AsyncClient(shared_gateway.address) as other, other.resume_session(handle) as resumed:
        assert resumed.id == session.id
        assert resumed.state is SessionState.READY
        assert (await resumed.say(SPOKEN)).kind == "played"
        first = await anext(resumed.events())
        assert first.sequence == 1
    assert (await client.get_session(session.id)).state is SessionState.ENDED


async def test_a_taken_session_is_left_to_its_taker(client, shared_gateway):
    async with client.open_session(AVATAR) as session, AsyncClient(shared_gateway.address) as other:
        await session.ready()
        utterance = session.say(sound(20))
        await utterance.started()
        async with other.resume_session(session.handle) as taker:
            with pytest.raises(AttachSuperseded):
                await utterance
            with pytest.raises(AttachSuperseded):
                await session.interrupt()
            await taker.start_listening()
            assert taker.state is SessionState.READY


async def test_a_session_for_someone_else(client):
    created = await client.create_session(AVATAR, quality="low", labels={"room": "seven"})
    assert created.session.state is SessionState.READY
    assert created.room.url
    found = [record.id async for record in client.list_sessions(states=["ready"], labels={"room": "seven"})]
    assert found == [created.session.id]
    async with client.resume_session(created.handle) as session:
        assert (await session.say(SPOKEN)).kind == "played"
    assert (await client.end_session(created.session.id)).end_reason is EndReason.CALLER_ENDED


async def test_the_same_request_id_gives_the_same_session(client):
    async with client.open_session(AVATAR, request_id="same", labels={"a": "1"}) as session:
        again = await client.create_session(AVATAR, request_id="same", labels={"a": "1"})
        assert again.session.id == session.id
        with pytest.raises(RequestIdReused):
            await client.create_session(AVATAR, request_id="same", labels={"a": "2"})


async def test_refusals_come_with_their_field(client):
    with pytest.raises(InvalidField) as raised:
        await client.open_session("no uuid").open()
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.field_violations[0].field == "open.spec.avatar_id"
    with pytest.raises(SessionNotFound):
        await client.get_session("nobody")
    with pytest.raises(SessionNotFound):
        await client.resume_session("nobody's handle").open()


async def test_a_full_account_is_told_with_its_wait(emulator):
    with processes.gateway(emulator.url, max_sessions=1, max_waiting=0) as gateway:
        async with AsyncClient(gateway.address) as client, client.open_session(AVATAR):
            with pytest.raises(CapacityExhausted) as raised:
                await client.open_session(AVATAR).open()
            assert raised.value.scope
            assert raised.value.retry_after


async def test_server_info(client):
    info = await client.server_info()
    assert set(info.audio_encodings) == set(AudioEncoding)
    assert info.permit_count == 200
    assert not info.draining


async def test_a_gateway_that_dies_is_noticed_and_its_sessions_given_up():
    """With the grace over and nobody there, what waits raises ConnectionLost."""
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with AsyncClient(gateway.address) as client:
            session = await client.open_session(AVATAR, detach_grace=0.5).open()
            utterance = session.say(sound(30))
            await utterance.started()
            gateway.process.send(signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await utterance
            with pytest.raises(ConnectionLost):
                [event async for event in session.events()]


async def test_a_drain_is_announced(emulator):
    with processes.gateway(emulator.url, drain_grace_s=0.5) as gateway:
        async with AsyncClient(gateway.address) as client, client.open_session(AVATAR) as session:
            await session.ready()
            gateway.process.send(signal.SIGTERM)
            events = [event async for event in session.events()]
            assert any(isinstance(event, GoAwayEvent) for event in events)
            assert session.record.end_reason is EndReason.DRAINED


async def test_a_drain_does_not_cut_what_is_spoken_where_no_other_address_can_take_over(emulator, shared_gateway):
    """The second address is another gateway that knows nothing of the session: it is asked, and left again."""
    with processes.gateway(emulator.url, drain_grace_s=10) as gateway:
        async with (
            AsyncClient([gateway.address, shared_gateway.address]) as client,
            client.open_session(AVATAR) as session,
        ):
            utterance = session.say(sound(1.5))
            await utterance.started()
            gateway.process.send(signal.SIGTERM)
            assert (await utterance).kind == "played"
            assert emulator.audio(session.record.upstream_session_id) == sound(1.5)
            events = session.events()
            assert GoAwayEvent in {type(event) async for event in _until(events, ResumedEvent)}


async def _until(events, kind):
    async for event in events:
        yield event
        if isinstance(event, kind):
            return


async def test_tls_with_a_token(tls_gateway, identity):
    """A private authority's certificate, and a token with every call."""
    tls = TLS(ca_file=identity.certificate_path)
    async with AsyncClient(tls_gateway.address, credentials="token", tls=tls) as client:
        assert (await client.server_info()).version
        async with client.open_session(AVATAR) as session:
            assert (await session.say(SPOKEN)).kind == "played"


async def test_a_certificate_nobody_vouches_for_is_refused(tls_gateway):
    async with AsyncClient(tls_gateway.address, tls=True) as client:
        with pytest.raises(ConnectionLost):
            await client.open_session(AVATAR).open()
