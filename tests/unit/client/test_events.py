import asyncio

import pytest

from liveavatar.gateway import (
    ContinueCause,
    EndReason,
    EventsCompacted,
    GoAwayEvent,
    MicrophoneState,
    OutcomeKind,
    ParticipantKind,
    Pose,
    ReadyTimeout,
    SessionState,
    UpstreamNoticeEvent,
    events,
)
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.events import EventLog, UnknownEvent, event_from_proto
from liveavatar.gateway.v1 import audio_pb2, room_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


def notice(sequence):
    return event_from_proto(pb.SessionEvent(sequence=sequence, notice=pb.UpstreamNotice(type="t")))


def test_every_kind_of_event_is_read():
    """Each field of the contract's oneof has a class, and all values arrive."""
    ended = pb.UtteranceEnded(utterance_id="u", outcome=audio_pb2.UTTERANCE_OUTCOME_FAILED, inferred=True)
    ended.played.FromMilliseconds(250)
    ended.error.code = 13
    over = pb.SessionEnded(session=session_pb2.Session(id="s", end_reason=session_pb2.END_REASON_IDLE))
    ann = room_pb2.RoomParticipant(identity="ann", kind=room_pb2.PARTICIPANT_KIND_USER)
    fields = {
        "state_changed": pb.StateChanged(state=session_pb2.SESSION_STATE_READY, previous_state=99),
        "pose_changed": pb.PoseChanged(pose=session_pb2.POSE_TALKING, previous_pose=99),
        "utterance_started": pb.UtteranceStarted(utterance_id="u", inferred=True),
        "utterance_underrun": pb.UtteranceUnderrun(utterance_id="u", played=ended.played),
        "utterance_ended": ended,
        "expiring": pb.SessionExpiring(reason=session_pb2.END_REASON_NO_VIEWERS),
        "expiry_cancelled": pb.SessionExpiryCancelled(reason=session_pb2.END_REASON_IDLE),
        "speech_paused": pb.SpeechPaused(utterance_id="u", played=ended.played, heard_text="Hi"),
        "speech_continued": pb.SpeechContinued(utterance_id="u", repeated=ended.played, cause=99),
        "notice": pb.UpstreamNotice(type="video_starvation", message="slow", error=True),
        "reconnected": pb.UpstreamReconnected(attempt_count=2, resent_bytes=960, replaced=True),
        "rotated": pb.SessionRotated(
            upstream_session_id="second", room=session_pb2.RoomAccess(url="wss://elsewhere", viewer_token="t")
        ),
        "adopted": pb.SessionAdopted(gap=ended.played),
        "room_connected": room_pb2.RoomConnected(participants=[ann], participant_count=1),
        "room_disconnected": room_pb2.RoomDisconnected(cause=4, error=ended.error),
        "participant_joined": room_pb2.ParticipantJoined(participant=ann),
        "participant_left": room_pb2.ParticipantLeft(participant=ann),
        "microphone_changed": room_pb2.MicrophoneChanged(
            identity="ann", microphone=room_pb2.MICROPHONE_STATE_LIVE
        ),
        "avatar_tracks_changed": room_pb2.AvatarTracksChanged(identity="ada", has_audio=True),
        "viewers_changed": room_pb2.ViewersChanged(present=True),
        "data_received": room_pb2.DataReceived(identity="ann", topic="chat", payload=b"hi"),
        "data_dropped": room_pb2.DataDropped(count=3, identities=["ann"]),
        "ended": over,
    }
    assert set(fields) == {field.name for field in pb.SessionEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    read = {name: event_from_proto(pb.SessionEvent(sequence=4, **{name: value})) for name, value in fields.items()}
    assert {event.sequence for event in read.values()} == {4}
    assert len({type(event) for event in read.values()}) == len(fields)
    assert read["state_changed"].state is SessionState.READY
    assert read["state_changed"].previous_state is SessionState.UNSPECIFIED
    assert read["pose_changed"].pose is Pose.TALKING
    assert read["pose_changed"].previous_pose is Pose.UNSPECIFIED
    assert read["utterance_started"].inferred
    underrun = read["utterance_underrun"]
    assert (underrun.utterance_id, underrun.played.total_seconds()) == ("u", 0.25)
    outcome = read["utterance_ended"].outcome
    assert (outcome.kind, outcome.played.total_seconds(), outcome.inferred) == (OutcomeKind.FAILED, 0.25, True)
    assert outcome.error is not None
    assert read["expiring"].reason is EndReason.NO_VIEWERS
    assert read["expiry_cancelled"].reason is EndReason.IDLE
    paused = read["speech_paused"]
    assert (paused.utterance_id, paused.played.total_seconds(), paused.heard_text) == ("u", 0.25, "Hi")
    assert read["speech_continued"].repeated.total_seconds() == 0.25
    assert read["speech_continued"].cause is ContinueCause.UNKNOWN
    assert read["notice"].message == "slow"
    reconnected = read["reconnected"]
    assert (reconnected.attempt_count, reconnected.resent_bytes, reconnected.replaced) == (2, 960, True)
    assert (read["rotated"].upstream_session_id, read["rotated"].room.url) == ("second", "wss://elsewhere")
    assert read["rotated"].expires_at is None
    assert read["adopted"].gap.total_seconds() == 0.25
    who = read["participant_joined"].participant
    assert (who.identity, who.kind, who.microphone) == ("ann", ParticipantKind.USER, MicrophoneState.UNKNOWN)
    assert read["participant_left"].participant == who
    assert (read["room_connected"].participants, read["room_connected"].participant_count) == ((who,), 1)
    assert read["room_disconnected"].cause == "refused"
    assert read["room_disconnected"].error is not None
    assert (read["microphone_changed"].identity, read["microphone_changed"].microphone) == ("ann", "live")
    tracks = read["avatar_tracks_changed"]
    assert (tracks.identity, tracks.has_audio, tracks.has_video) == ("ada", True, False)
    assert read["viewers_changed"].present
    data = read["data_received"]
    assert (data.identity, data.topic, data.payload) == ("ann", "chat", b"hi")
    assert (read["data_dropped"].count, read["data_dropped"].identities) == (3, ("ann",))
    assert read["ended"].record.end_reason == "idle"
    assert read["ended"].error is None


def test_why_a_session_ended_is_an_exception():
    error = pb.SessionEnded().error
    error.code = 4
    from google.rpc import error_details_pb2

    error.details.add().Pack(error_details_pb2.ErrorInfo(domain="gateway.liveavatar", reason="READY_TIMEOUT"))
    event = event_from_proto(pb.SessionEvent(ended=pb.SessionEnded(error=error)))
    assert isinstance(event.error, ReadyTimeout)


def test_an_event_of_a_newer_gateway_is_passed_on():
    assert isinstance(event_from_proto(pb.SessionEvent(sequence=9)), UnknownEvent)


async def test_a_late_reader_misses_nothing_and_each_goes_at_its_own_pace():
    log = EventLog(Condition())
    for sequence in (1, 2, 3):
        log.append(notice(sequence))
    slow, fast = log.read(0), log.read(2)
    assert (await anext(slow)).sequence == 1
    assert (await anext(fast)).sequence == 3
    log.append(notice(4))
    log.close(None)
    assert [event.sequence async for event in slow] == [2, 3, 4]
    assert [event.sequence async for event in fast] == [4]


async def test_a_reader_is_woken_by_the_next_event():
    log = EventLog(Condition())
    waiting = asyncio.create_task(anext(log.read(0)))
    await asyncio.sleep(0)
    log.append(notice(1))
    assert (await waiting).sequence == 1


async def test_a_reader_that_lags_is_told_so():
    """Never a silent hole."""
    log = EventLog(Condition(), kept=2)
    reader = log.read(0)
    log.append(notice(1))
    assert (await anext(reader)).sequence == 1
    for sequence in (2, 3, 4):
        log.append(notice(sequence))
    with pytest.raises(EventsCompacted) as raised:
        await anext(reader)
    assert raised.value.oldest_sequence == 3
    assert [event.sequence for event in [await anext(log.read(2))]] == [3]


async def test_a_late_reader_starts_with_what_is_kept():
    log = EventLog(Condition(), kept=2)
    for sequence in (1, 2, 3):
        log.append(notice(sequence))
    assert (await anext(log.read(0))).sequence == 2


async def test_readers_of_a_lost_session_are_told_after_the_last_event():
    log = EventLog(Condition())
    log.append(notice(1))
    log.close(EventsCompacted("lost"))
    reader = log.read(0)
    assert isinstance(await anext(reader), UpstreamNoticeEvent)
    with pytest.raises(EventsCompacted):
        await anext(reader)


async def test_a_go_away_is_told_though_it_has_no_number():
    log = EventLog(Condition())
    log.append(notice(1))
    assert log.newest_sequence == 1
    event = notice(1)
    log.append(GoAwayEvent(sequence=1, time=event.time, deadline=event.time))
    log.close(None)
    assert [type(event) async for event in log.read(1)] == [GoAwayEvent]


async def test_what_has_no_number_brings_nothing_back_that_is_known():
    log = EventLog(Condition())
    for sequence in (1, 2):
        log.append(notice(sequence))
    log.append(GoAwayEvent(sequence=2, time=notice(2).time, deadline=notice(2).time))
    for sequence in (3, 4, 5):
        log.append(notice(sequence))
    log.close(None)
    assert [event.sequence async for event in log.read(4)] == [5]


async def test_what_has_no_number_is_told_before_the_first_event_that_comes():
    log = EventLog(Condition(), after_sequence=7)
    log.append(GoAwayEvent(sequence=log.newest_sequence, time=notice(1).time, deadline=notice(1).time))
    log.append(notice(8))
    log.close(None)
    assert [event.sequence async for event in log.read(7)] == [7, 8]


def test_an_empty_log_has_no_newest_event():
    assert EventLog(Condition()).newest_sequence == 0
    assert events.KEPT_EVENTS >= 100
