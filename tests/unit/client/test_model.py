from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import timestamp_pb2

from liveavatar.gateway import model
from liveavatar.gateway.v1 import audio_service_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


@pytest.mark.parametrize(
    ("words", "numbers", "prefix"),
    [
        (model.SessionState, session_pb2.SessionState, "SESSION_STATE_"),
        (model.Pose, session_pb2.Pose, "POSE_"),
        (model.EndReason, session_pb2.EndReason, "END_REASON_"),
    ],
)
def test_every_word_of_the_contract_is_known(words, numbers, prefix):
    assert [name.removeprefix(prefix) for name in numbers.DESCRIPTOR.values_by_name] == [
        word.name for word in words
    ]


@pytest.mark.parametrize(
    ("words", "numbers", "prefix"),
    [
        (model.VideoQuality, session_pb2.VideoQuality, "VIDEO_QUALITY_"),
        (model.VideoEncoding, session_pb2.VideoEncoding, "VIDEO_ENCODING_"),
    ],
)
def test_every_choice_of_the_contract_is_known(words, numbers, prefix):
    assert [name.removeprefix(prefix) for name in numbers.DESCRIPTOR.values_by_name][1:] == [
        word.name for word in words
    ]


@pytest.mark.parametrize("state", model.SessionState)
def test_states_go_there_and_back(state):
    assert model.state_from_proto(model.state_to_proto(state)) is state


def test_numbers_of_a_newer_contract_are_unspecified():
    assert model.state_from_proto(99) is model.SessionState.UNSPECIFIED
    assert model.pose_from_proto(99) is model.Pose.UNSPECIFIED
    record = model.SessionRecord.from_proto(session_pb2.Session(end_reason=99))
    assert record.end_reason is model.EndReason.UNSPECIFIED


def test_video_settings_leave_out_what_is_not_asked_for():
    assert model.video_to_proto(None, None) == session_pb2.VideoSettings()
    settings = model.video_to_proto(model.VideoQuality.VERY_HIGH, model.VideoEncoding.VP8)
    assert settings.quality == session_pb2.VIDEO_QUALITY_VERY_HIGH
    assert settings.encoding == session_pb2.VIDEO_ENCODING_VP8


@pytest.mark.parametrize("duration", [timedelta(seconds=1.5), 1.5])
def test_durations_are_given_either_way(duration):
    assert model.duration_to_proto(duration).ToTimedelta() == timedelta(seconds=1.5)


def test_a_record_says_what_is_unset():
    """Times that have not come are None, others are aware."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    record = model.SessionRecord.from_proto(
        session_pb2.Session(
            id="s", labels={"a": "b"}, created_at=stamp, usage=session_pb2.Usage(utterance_count=3)
        )
    )
    assert record.created_at == moment
    assert record.ready_at is record.expires_at is record.ended_at is None
    assert record.labels == {"a": "b"}
    assert record.usage.utterance_count == 3


def test_every_field_of_the_contract_is_in_the_values():
    """A field added to the contract is not forgotten here."""
    pairs = [
        (model.SessionRecord, session_pb2.Session),
        (model.Usage, session_pb2.Usage),
        (model.RoomAccess, session_pb2.RoomAccess),
        (model.AudioLimits, pb.AudioLimits),
        (model.ServerInfo, pb.GetServerInfoResponse),
        (model.CreatedSession, pb.CreateSessionResponse),
        (model.Interruption, pb.InterruptResult),
    ]
    for ours, theirs in pairs:
        assert {field.name for field in theirs.DESCRIPTOR.fields} == set(ours.__dataclass_fields__), ours


def test_an_outcome_of_a_newer_contract_counts_as_failed():
    """Nobody must take for heard what was not."""
    outcome = model.Outcome.from_proto(audio_service_pb2.AudioEnded(outcome=99))
    assert outcome.kind == "failed"
    assert outcome.error is None


def test_a_silent_avatar_was_not_interrupted():
    assert model.Interruption(interrupted=()).played == timedelta()


def test_secrets_are_not_shown():
    room = model.RoomAccess(url="wss://room", viewer_token="secret")
    created = model.CreatedSession(
        session=model.SessionRecord.from_proto(session_pb2.Session()), room=room, handle="hidden"
    )
    assert "secret" not in repr(created)
    assert "hidden" not in repr(created)
    assert "wss://room" in repr(created)
