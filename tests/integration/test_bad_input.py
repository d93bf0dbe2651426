"""Bad input gets a typed error that names the field, and loses nothing: the session speaks on."""

import struct

import grpc
import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import speech
from testkit.caller import Caller, Refusal, refused
from testkit.processes import Emulator

WAV = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(32)
MP3 = b"ID3\x04\x00\x00\x00\x00\x00\x00" + bytes(90)


def _mp3_frames() -> bytes:
    """Frames of MPEG-1 layer III, 128 kbit/s at 44.1 kHz, without an ID3 tag: 417 bytes each."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * 6 + b"\x00\x00"


async def _still_speaks(caller: Caller, emulator: Emulator, session: session_pb2.Session) -> None:
    pcm = speech.sound(0.5, seed=3)
    stream = await caller.speak(session.id)
    await stream.say(pcm, "after")
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await caller.end(session.id)
    assert emulator.audio(session.upstream_session_id).endswith(pcm)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        pytest.param(WAV, "AUDIO_CONTAINER_DETECTED", id="WAV header"),
        pytest.param(MP3, "AUDIO_CONTAINER_DETECTED", id="MP3 with a tag"),
        pytest.param(_mp3_frames(), "AUDIO_CONTAINER_DETECTED", id="MP3 frames"),
        pytest.param(bytes(256 * 1024 + 2), "CHUNK_TOO_LARGE", id="chunk above max_chunk_bytes"),
        pytest.param(bytes(4 << 20), "CHUNK_TOO_LARGE", id="chunk far above max_chunk_bytes"),
    ],
)
async def test_a_bad_chunk_is_rejected_and_ends_its_utterance_only(caller, emulator, chunk, reason):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.begin("bad")
    await stream.chunk(chunk)
    rejected = await stream.until("rejected")
    await stream.end()
    ended = await stream.until("ended")
    why = Refusal(rejected.error)
    assert (why.reason, why.code) == (reason, grpc.StatusCode.INVALID_ARGUMENT)
    assert why.field == "chunk.audio"
    assert why.metadata
    assert (ended.utterance_id, ended.outcome) == ("bad", audio_pb2.UTTERANCE_OUTCOME_FAILED)
    assert Refusal(ended.error).reason == reason
    await _still_speaks(caller, emulator, session)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7])
@pytest.mark.parametrize("file", [WAV, MP3, _mp3_frames()], ids=["WAV", "MP3 with a tag", "MP3 frames"])
async def test_a_file_is_refused_however_small_its_pieces_are(caller, emulator, file, piece_bytes):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.begin("bad")
    for start in range(0, len(file), piece_bytes):
        await stream.chunk(file[start : start + piece_bytes], start)
    why = Refusal((await stream.until("rejected")).error)
    assert why.reason == "AUDIO_CONTAINER_DETECTED"
    ended = await stream.until("ended")
    assert (ended.outcome, ended.played.ToNanoseconds()) == (audio_pb2.UTTERANCE_OUTCOME_FAILED, 0)
    await stream.end()
    await _still_speaks(caller, emulator, session)
    assert len(emulator.session(session.upstream_session_id)["utterances"]) == 1, "nothing of the file went up"


async def test_a_header_that_is_all_there_is_is_refused_at_its_end(caller, emulator):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.begin("bad")
    await stream.chunk(b"RIFF")
    await stream.end()
    assert Refusal((await stream.until("rejected")).error).reason == "AUDIO_CONTAINER_DETECTED"
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    await _still_speaks(caller, emulator, session)


@pytest.mark.parametrize("piece_bytes", [1, 959, 961])
async def test_audio_may_be_cut_inside_its_samples(caller, emulator, piece_bytes):
    """As a program without our client cuts what it reads from a socket; half a sample at the end is dropped."""
    session = (await caller.create()).session
    pcm = speech.sound(0.2)
    stream = await caller.speak(session.id)
    await stream.begin("odd")
    sent = pcm + b"\x01"
    for start in range(0, len(sent), piece_bytes):
        await stream.chunk(sent[start : start + piece_bytes])
    await stream.end()
    ended = await stream.until("ended")
    assert (ended.outcome, ended.dropped_tail_bytes) == (audio_pb2.UTTERANCE_OUTCOME_COMPLETED, 1)
    assert not ended.HasField("error")
    await stream.begin("odd", resume=True)
    assert await stream.until("ended") == ended, "an end is told again as it was"
    acks = [one.ack for one in stream.received if one.HasField("ack")]
    assert acks[-1].received_bytes == len(sent)
    assert acks[-1].credit_bytes == stream.ready.credit_bytes
    assert not any(one.HasField("rejected") for one in stream.received)
    usage = (await caller.end(session.id)).usage
    assert (usage.received_bytes, usage.dropped_bytes) == (len(sent), 1)
    assert emulator.audio(session.upstream_session_id) == pcm


@pytest.mark.parametrize(
    "audio_format",
    [
        {"channel_count": 2},
        {"encoding": audio_pb2.AUDIO_ENCODING_PCM_F32LE},
        {"encoding": audio_pb2.AUDIO_ENCODING_MULAW},
    ],
    ids=["stereo", "float", "mu-law"],
)
async def test_samples_of_any_size_may_be_cut(caller, emulator, audio_format):
    session = (await caller.create()).session
    pcm = speech.sound(0.2)[:-1]
    stream = await caller.speak(session.id, **audio_format)
    for utterance_id, piece_bytes in (("whole", len(pcm)), ("cut", 1_001)):
        await stream.say(pcm, utterance_id, chunk_bytes=piece_bytes)
        ended = await stream.until("ended")
        assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await caller.end(session.id)
    whole, cut = (emulator.utterance_audio(session.upstream_session_id, number) for number in range(2))
    assert whole == cut


async def test_audio_past_the_credit_ends_its_utterance_after_playing_what_was_taken(caller, emulator):
    session = (await caller.create()).session
    stream = await caller.speak(session.id, sample_rate_hz=48_000, channel_count=2)
    assert stream.ready.credit_bytes == 30 * 192_000
    await stream.begin("flood")
    taken = 0
    # The gateway is flooded with 36 s although it said that 30 s are welcome.
    for _ in range(36):
        await stream.chunk(bytes(192_000))
        taken += 192_000
    rejected = await stream.until("rejected")
    why = Refusal(rejected.error)
    assert (why.reason, why.code) == ("CREDIT_EXCEEDED", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert why.retry_s > 0
    assert 30 * 192_000 <= rejected.received_bytes < taken
    await caller.sessions.InterruptSession(sessions.InterruptSessionRequest(session_id=session.id), timeout=10)
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    await stream.end()
    await _still_speaks(caller, emulator, session)


async def test_a_hole_is_refused_with_the_offset_to_go_on_from_and_loses_nothing(caller, emulator):
    session = (await caller.create()).session
    pcm = speech.sound(1.0)
    stream = await caller.speak(session.id)
    await stream.begin("u")
    await stream.chunk(pcm[:10_000], 0)
    await stream.chunk(pcm[20_000:], 20_000)
    await stream.chunk(pcm[30_000:], 30_000)
    rejected = await stream.until("rejected")
    why = Refusal(rejected.error)
    assert (why.reason, why.code) == ("AUDIO_GAP", grpc.StatusCode.FAILED_PRECONDITION)
    assert why.metadata["expected"] == "10000"
    assert rejected.received_bytes == 10_000
    # What was received already is dropped, the rest is taken.
    await stream.chunk(pcm[8_000:], 8_000)
    await stream.end()
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert sum(one.WhichOneof("message") == "rejected" for one in stream.received) == 1
    assert emulator.audio(session.upstream_session_id) == pcm
    await caller.end(session.id)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param({"encoding": 77}, "header.format.encoding", id="unknown format"),
        pytest.param({"sample_rate_hz": 4000}, "header.format.sample_rate_hz", id="4 kHz"),
        pytest.param({"sample_rate_hz": 96_000}, "header.format.sample_rate_hz", id="96 kHz"),
        pytest.param({"channel_count": 6}, "header.format.channel_count", id="5.1"),
    ],
)
async def test_a_format_that_is_not_taken_is_refused_before_any_audio(caller, emulator, wrong, field):
    session = (await caller.create()).session
    why = await refused(caller.speak(session.id, **wrong))
    assert (why.reason, why.code) == ("AUDIO_FORMAT_UNSUPPORTED", grpc.StatusCode.INVALID_ARGUMENT)
    assert why.field == field
    await _still_speaks(caller, emulator, session)


@pytest.mark.parametrize("avatar_id", ["", "wayne"])
async def test_an_avatar_id_that_is_none_is_refused_and_starts_nothing(caller, emulator, avatar_id):
    before = emulator.state()["sessions"]["started_total"]
    why = await refused(caller.create(avatar_id=avatar_id))
    assert (why.reason, why.field) == ("INVALID_FIELD", "spec.avatar_id")
    why = await refused(caller.attach(avatar_id=avatar_id))
    assert (why.reason, why.field) == ("INVALID_FIELD", "open.spec.avatar_id")
    assert emulator.state()["sessions"]["started_total"] == before


async def test_a_second_attach_takes_over_and_the_first_is_told(caller, emulator):
    first = await caller.attach()
    await first.until_ready()
    second = await caller.resume(first.opened.handle)
    assert await first.closed() is grpc.StatusCode.ABORTED
    why = await refused(_raise(first.call))
    assert why.reason == "ATTACH_SUPERSEDED"
    listening = await second.command("l", start_listening=sessions.StartListening())
    assert listening.status.code == 0
    await _still_speaks(caller, emulator, first.opened.session)


async def test_a_second_audio_stream_takes_over_and_the_first_is_told(caller, emulator):
    session = (await caller.create()).session
    first = await caller.speak(session.id)
    await caller.speak(session.id)
    why = await refused(_drained(first))
    assert (why.reason, why.code) == ("AUDIO_STREAM_SUPERSEDED", grpc.StatusCode.ABORTED)
    await _still_speaks(caller, emulator, session)


async def test_audio_for_an_ended_session_is_refused_with_the_reason_of_its_end(caller):
    session = (await caller.create()).session
    await caller.end(session.id)
    why = await refused(caller.speak(session.id))
    assert (why.reason, why.code) == ("SESSION_ENDED", grpc.StatusCode.FAILED_PRECONDITION)
    assert why.metadata["end_reason"] == "CALLER_ENDED"
    assert why.has("PreconditionFailure")


async def test_a_stream_whose_session_ends_says_so(caller):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.say(speech.sound(5.0), "cut off")
    await stream.until("started")
    await caller.end(session.id)
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    assert Refusal(ended.error).reason == "SESSION_ENDED"
    assert (await refused(_drained(stream))).reason == "SESSION_ENDED"


@pytest.mark.parametrize("call", ["GetSession", "EndSession", "InterruptSession"])
async def test_an_unknown_session_is_not_found(caller, call):
    request = getattr(sessions, f"{call}Request")(session_id="nobody")
    why = await refused(getattr(caller.sessions, call)(request, timeout=10))
    assert (why.reason, why.code) == ("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND)
    assert why.has("ResourceInfo")


async def test_a_handle_of_any_length_is_refused_like_another(caller):
    """A refusal that repeats it would be more than callers take, and reach them without its reason."""
    why = await refused(caller.resume("x" * 60_000))
    assert (why.reason, why.field) == ("SESSION_NOT_FOUND", "resume.handle")


async def test_an_unknown_handle_is_not_found_and_not_repeated(caller):
    why = await refused(caller.resume("nobody.secret-part"))
    assert (why.reason, why.field) == ("SESSION_NOT_FOUND", "resume.handle")
    assert "secret-part" not in why.message


async def test_a_stream_that_does_not_begin_with_its_header_is_refused(caller):
    stream = caller.audio.StreamAudio()
    await stream.write(audio.StreamAudioRequest(begin=audio.BeginUtterance()))
    assert (await refused(_raise(stream))).reason == "HEADER_REQUIRED"
    attach = caller.sessions.Attach()
    await attach.write(sessions.AttachRequest(command=sessions.SessionCommand(id="x")))
    assert (await refused(_raise(attach))).reason == "HEADER_REQUIRED"


async def test_messages_out_of_order_are_refused_by_name(caller, emulator):
    session = (await caller.create()).session
    for wrong in ({"chunk": audio.AudioChunk(audio=bytes(960))}, {"end": audio.EndUtterance()}, {"cancel": {}}):
        stream = await caller.speak(session.id)
        await stream.send(**wrong)
        why = await refused(_drained(stream))
        assert (why.reason, why.field) == ("UNEXPECTED_MESSAGE", next(iter(wrong)))
    stream = await caller.speak(session.id)
    await stream.begin("one")
    await stream.begin("two")
    assert (await refused(_drained(stream))).field == "begin"
    await _still_speaks(caller, emulator, session)


async def test_an_utterance_id_is_good_for_one_utterance(caller, emulator):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.say(speech.sound(0.3), "same")
    await stream.until("ended")
    await stream.say(speech.sound(0.3), "same")
    why = Refusal((await stream.until("rejected")).error)
    assert (why.reason, why.field) == ("UTTERANCE_ID_REUSED", "begin.utterance_id")
    await _still_speaks(caller, emulator, session)


async def test_an_unknown_utterance_cannot_be_interrupted_and_an_ended_one_can(caller):
    session = (await caller.create()).session
    stream = await caller.speak(session.id)
    await stream.say(speech.sound(0.3), "done")
    await stream.until("ended")
    request = sessions.InterruptSessionRequest(session_id=session.id, utterance_id="done")
    assert not (await caller.sessions.InterruptSession(request, timeout=10)).result.interrupted
    request.utterance_id = "never"
    why = await refused(caller.sessions.InterruptSession(request, timeout=10))
    assert why.reason == "UTTERANCE_NOT_FOUND"
    await caller.end(session.id)


async def test_a_command_without_an_id_or_a_deed_is_refused_by_field(caller):
    attachment = await caller.attach()
    result = await attachment.command("nothing")
    assert Refusal(result.status).field == "command.command"
    await attachment.call.write(sessions.AttachRequest(command=sessions.SessionCommand()))
    assert (await refused(_attach_drained(attachment))).field == "command.id"
    await caller.end(attachment.session_id)


async def _raise(call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass
    await call


async def _drained(stream) -> None:
    try:
        while True:
            await stream.read()
    except EOFError:
        await stream.call


async def _attach_drained(attachment) -> None:
    try:
        while True:
            await attachment.read()
    except EOFError:
        await attachment.call
