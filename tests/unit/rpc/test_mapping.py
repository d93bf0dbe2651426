"""Requests as values, with every bad field named; values as messages, with nothing lost."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar_gateway.audio.formats import AudioFormat, Encoding
from liveavatar_gateway.core import events as ev
from liveavatar_gateway.core.errors import AudioFormatUnsupported, InvalidField, UpstreamStalled
from liveavatar_gateway.core.states import EndReason, Outcome, Pose, SessionState
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.sessions.record import read_access

_AVATAR = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
_ROOM = session_pb2.LiveKitRoom(name="desk-7")


def spec(**fields) -> session_pb2.SessionSpec:
    return session_pb2.SessionSpec(**{"avatar_id": _AVATAR, **fields})


def converted(message: session_pb2.SessionSpec):
    return mapping.spec_of(message, field="open.spec", default_detach_grace_s=30.0, livekit_rooms=True)


def seconds(value: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


# --- a session's spec


def test_a_spec_with_an_avatar_alone_gets_the_documented_defaults():
    result = converted(spec())
    avatar = result.avatar
    assert (avatar.avatar_id, avatar.sandbox, avatar.quality, avatar.encoding) == (_AVATAR, False, "high", "H264")
    assert (avatar.max_duration_s, result.detach_grace_s, dict(result.labels)) == (None, 30.0, {})


def test_a_whole_spec_is_taken_over():
    result = converted(
        spec(
            avatar_id=_AVATAR.upper(),
            sandbox=True,
            video=session_pb2.VideoSettings(
                quality=session_pb2.VIDEO_QUALITY_VERY_HIGH, encoding=session_pb2.VIDEO_ENCODING_VP8
            ),
            max_duration=seconds(90),
            detach_grace=seconds(2.5),
            labels={"team": "blue"},
        )
    )
    avatar = result.avatar
    assert (avatar.avatar_id, avatar.sandbox, avatar.quality, avatar.encoding) == (
        _AVATAR,
        True,
        "very_high",
        "VP8",
    )
    assert (avatar.max_duration_s, result.detach_grace_s, dict(result.labels)) == (90, 2.5, {"team": "blue"})


def test_a_session_is_not_ended_for_want_of_use_unless_its_caller_wants_that():
    limits = converted(spec(livekit_room=_ROOM)).abandonment
    assert (limits.idle_s, limits.viewer_absence_s) == (None, None)
    wished = spec(livekit_room=_ROOM, idle_timeout=seconds(90), viewer_absence_timeout=seconds(30))
    limits = converted(wished).abandonment
    assert (limits.idle_s, limits.viewer_absence_s) == (90.0, 30.0)


def test_the_operators_limit_without_viewers_is_for_rooms_of_callers_that_wish_nothing_else():
    def limit_s(message: session_pb2.SessionSpec) -> float | None:
        return mapping.spec_of(
            message,
            field="spec",
            default_detach_grace_s=30.0,
            default_viewer_absence_s=60.0,
            livekit_rooms=True,
        ).viewer_absence_s

    assert limit_s(spec(livekit_room=_ROOM)) == 60.0
    assert limit_s(spec(livekit_room=_ROOM, viewer_absence_timeout=seconds(7))) == 7.0
    assert limit_s(spec(livekit_room=_ROOM, viewer_absence_timeout=seconds(0))) is None
    assert limit_s(spec()) is None


def test_a_detach_grace_of_nothing_is_not_the_default():
    assert converted(spec(detach_grace=seconds(0))).detach_grace_s == 0.0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"avatar_id": ""}, "avatar_id"),
        ({"avatar_id": "wayne"}, "avatar_id"),
        ({"avatar_id": _AVATAR + "0"}, "avatar_id"),
        ({"avatar_id": _AVATAR[:-1] + "g"}, "avatar_id"),
        ({"video": session_pb2.VideoSettings(quality=99)}, "video.quality"),
        ({"video": session_pb2.VideoSettings(encoding=99)}, "video.encoding"),
        ({"max_duration": seconds(0)}, "max_duration"),
        ({"max_duration": seconds(-5)}, "max_duration"),
        ({"max_duration": seconds(1.5)}, "max_duration"),
        ({"max_duration": duration_pb2.Duration(seconds=10**12)}, "max_duration"),
        ({"max_duration": duration_pb2.Duration(seconds=86_401)}, "max_duration"),
        ({"max_duration": duration_pb2.Duration(seconds=60, nanos=-1)}, "max_duration"),
        ({"max_duration": duration_pb2.Duration(nanos=2**31 - 1)}, "max_duration"),
        ({"detach_grace": duration_pb2.Duration(nanos=1_500_000_000)}, "detach_grace"),
        ({"detach_grace": duration_pb2.Duration(seconds=10, nanos=-1)}, "detach_grace"),
        ({"detach_grace": duration_pb2.Duration(seconds=2**63 - 1)}, "detach_grace"),
        ({"detach_grace": seconds(-0.1)}, "detach_grace"),
        ({"detach_grace": seconds(300.1)}, "detach_grace"),
        ({"idle_timeout": seconds(0)}, "idle_timeout"),
        ({"idle_timeout": seconds(0.9)}, "idle_timeout"),
        ({"idle_timeout": seconds(86_400.1)}, "idle_timeout"),
        ({"viewer_absence_timeout": seconds(60)}, "viewer_absence_timeout"),
        ({"viewer_absence_timeout": seconds(0)}, "viewer_absence_timeout"),
        ({"livekit_room": _ROOM, "viewer_absence_timeout": seconds(4.9)}, "viewer_absence_timeout"),
        ({"livekit_room": _ROOM, "viewer_absence_timeout": seconds(-5)}, "viewer_absence_timeout"),
        ({"livekit_room": _ROOM, "viewer_absence_timeout": seconds(86_400.1)}, "viewer_absence_timeout"),
        ({"labels": {"": "value"}}, "labels"),
        ({"labels": {"k" * 64: "value"}}, "labels"),
        ({"labels": {"key": "v" * 129}}, "labels"),
        ({"labels": {f"k{index}": "" for index in range(17)}}, "labels"),
    ],
)
def test_a_bad_field_is_refused_by_its_path(fields, field):
    with pytest.raises(InvalidField) as refused:
        converted(spec(**fields))
    assert refused.value.field == f"open.spec.{field}"
    assert f"open.spec.{field}" in refused.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"detach_grace": seconds(300)},
        {"idle_timeout": seconds(1)},
        {"idle_timeout": seconds(86_400)},
        {"livekit_room": _ROOM, "viewer_absence_timeout": seconds(5)},
        {"livekit_room": _ROOM, "viewer_absence_timeout": seconds(86_400)},
        {"max_duration": seconds(1)},
        {"labels": {"k" * 63: "v" * 128}},
        {"labels": {f"k{index}": "" for index in range(16)}},
    ],
)
def test_the_edges_of_the_documented_ranges_are_taken(fields):
    converted(spec(**fields))


# --- ids


@pytest.mark.parametrize("value", ["a", "x" * 128, "häuser/7:b"])
def test_an_id_is_any_printable_text_up_to_128_characters(value):
    assert mapping.checked_id(value, "f", required=True) == value


@pytest.mark.parametrize("value", ["", "x" * 129, "a\nb", "a\x00"])
def test_any_other_id_is_refused_by_its_field(value):
    with pytest.raises(InvalidField) as refused:
        mapping.checked_id(value, "begin.utterance_id", required=True)
    assert refused.value.field == "begin.utterance_id"


def test_an_id_that_is_not_required_may_be_empty():
    assert mapping.checked_id("", "f", required=False) == ""


# --- audio formats


def test_no_format_is_liveavatars_own():
    assert mapping.format_of(audio_pb2.AudioFormat()) == AudioFormat(Encoding.PCM_S16LE, 24_000, 1)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_of_the_contract_is_taken(encoding):
    message = audio_pb2.AudioFormat(
        encoding=audio_pb2.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}"), sample_rate_hz=8_000, channel_count=2
    )
    assert mapping.format_of(message) == AudioFormat(encoding, 8_000, 2)


def test_the_contract_has_no_encoding_that_is_not_taken():
    names = set(audio_pb2.AudioEncoding.keys()) - {"AUDIO_ENCODING_UNSPECIFIED"}
    assert names == {f"AUDIO_ENCODING_{encoding}" for encoding in Encoding}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"encoding": 99}, "header.format.encoding"),
        ({"sample_rate_hz": 7_999}, "header.format.sample_rate_hz"),
        ({"sample_rate_hz": 48_001}, "header.format.sample_rate_hz"),
        ({"sample_rate_hz": -1}, "header.format.sample_rate_hz"),
        ({"channel_count": 3}, "header.format.channel_count"),
        ({"channel_count": -1}, "header.format.channel_count"),
    ],
)
def test_a_bad_format_is_refused_by_its_path(fields, field):
    with pytest.raises(AudioFormatUnsupported) as refused:
        mapping.format_of(audio_pb2.AudioFormat(**fields))
    assert refused.value.field == field


# --- values


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_end_reason_is_in_the_contract(reason):
    assert session_pb2.EndReason.Name(mapping.end_reason(reason)) == f"END_REASON_{reason.value}"


def test_a_living_session_has_no_end_reason():
    assert mapping.end_reason(None) == session_pb2.END_REASON_UNSPECIFIED


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_in_the_contract(outcome):
    name = audio_pb2.UtteranceOutcome.Name(mapping.outcome(outcome))
    assert name == f"UTTERANCE_OUTCOME_{outcome.name}"


def test_every_state_and_pose_is_in_the_contract():
    assert {session_pb2.SessionState.Name(value) for value in mapping._STATES.values()} == {
        f"SESSION_STATE_{state.name}" for state in SessionState
    }
    assert set(mapping._POSES) == set(Pose)


def test_a_duration_is_exact_to_the_microsecond():
    assert mapping.duration(1.234567).ToMicroseconds() == 1_234_567


def test_a_time_that_has_not_come_stays_unset():
    assert mapping.timestamp(None) is None


def test_a_time_is_utc():
    assert mapping.timestamp(datetime(2026, 1, 1, tzinfo=UTC)).ToJsonString() == "2026-01-01T00:00:00Z"


def test_an_ended_utterance_tells_outcome_played_and_why():
    ended = ev.UtteranceEnded("u", Outcome.FAILED, 1.5, UpstreamStalled("nothing came"), inferred=True)
    message = mapping.ended_message(ended)
    assert (message.utterance_id, message.outcome) == ("u", audio_pb2.UTTERANCE_OUTCOME_FAILED)
    assert (message.played.ToTimedelta(), message.inferred) == (timedelta(seconds=1.5), True)
    assert message.error.message == "nothing came"


def test_an_utterance_that_did_not_fail_has_no_error():
    message = mapping.ended_message(ev.UtteranceEnded("u", Outcome.COMPLETED, 1.0))
    assert not message.HasField("error")


def test_an_interrupt_tells_all_it_cut_in_order():
    ended = [ev.UtteranceEnded(name, Outcome.INTERRUPTED, 0.0) for name in "ab"]
    assert [one.utterance_id for one in mapping.interrupt_message(ended).interrupted] == ["a", "b"]


_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "field", "values"),
    [
        (
            ev.StateChanged(SessionState.READY, SessionState.CONNECTING),
            "state_changed",
            {"state": session_pb2.SESSION_STATE_READY, "previous_state": session_pb2.SESSION_STATE_CONNECTING},
        ),
        (
            ev.PoseChanged(Pose.TALKING, Pose.IDLE),
            "pose_changed",
            {"pose": session_pb2.POSE_TALKING, "previous_pose": session_pb2.POSE_IDLE},
        ),
        (ev.UtteranceStarted("u", inferred=True), "utterance_started", {"utterance_id": "u", "inferred": True}),
        (ev.UtteranceUnderrun("u", 0.0), "utterance_underrun", {"utterance_id": "u"}),
        (ev.UtteranceEnded("u", Outcome.COMPLETED, 1.0), "utterance_ended", {"utterance_id": "u"}),
        (ev.UpstreamNotice(True, "t", "words"), "notice", {"error": True, "type": "t", "message": "words"}),
    ],
)
def test_an_event_is_sent_with_its_number_and_time(event, field, values):
    message = mapping.event_message(ev.LogEntry(7, _AT, event), final_view=None)
    assert (message.sequence, message.time.ToDatetime(tzinfo=UTC)) == (7, _AT)
    assert message.WhichOneof("event") == field
    assert {name: getattr(getattr(message, field), name) for name in values} == values


def test_an_expiry_is_told_as_the_time_it_comes():
    expires_at = _AT + timedelta(seconds=15)
    message = mapping.event_message(ev.LogEntry(1, _AT, ev.Expiring(expires_at)), final_view=None)
    assert message.expiring.expires_at.ToDatetime(tzinfo=UTC) == expires_at
    assert message.expiring.reason == session_pb2.END_REASON_MAX_DURATION
    event = ev.Expiring(expires_at, EndReason.NO_VIEWERS)
    message = mapping.event_message(ev.LogEntry(2, _AT, event), final_view=None)
    assert message.expiring.reason == session_pb2.END_REASON_NO_VIEWERS
    message = mapping.event_message(ev.LogEntry(3, _AT, ev.ExpiryCancelled(EndReason.IDLE)), final_view=None)
    assert message.expiry_cancelled.reason == session_pb2.END_REASON_IDLE


# --- a room of the caller's own


def test_a_spec_without_a_livekit_room_requests_no_participant():
    result = converted(spec())
    assert result.livekit_room is None
    assert result.avatar_request(1).participant is None
    assert result.avatar_request(2) == result.avatar


def test_the_avatar_is_called_avatar_and_the_next_ones_are_numbered():
    result = converted(spec(livekit_room=session_pb2.LiveKitRoom(name="desk-7")))
    participants = [result.avatar_request(turn).participant for turn in (1, 2, 3)]
    assert [(participant.room, participant.identity) for participant in participants if participant] == [
        ("desk-7", "avatar"),
        ("desk-7", "avatar-2"),
        ("desk-7", "avatar-3"),
    ]


def test_the_caller_may_name_the_avatar():
    result = converted(spec(livekit_room=session_pb2.LiveKitRoom(name="desk-7", avatar_identity="ada")))
    participants = [result.avatar_request(turn).participant for turn in (1, 2)]
    assert [participant.identity for participant in participants if participant] == ["ada", "ada-2"]


@pytest.mark.parametrize(
    ("livekit_room", "field"),
    [
        (session_pb2.LiveKitRoom(), "open.spec.livekit_room.name"),
        (session_pb2.LiveKitRoom(name="a" * 129), "open.spec.livekit_room.name"),
        (session_pb2.LiveKitRoom(name="a\nb"), "open.spec.livekit_room.name"),
        (session_pb2.LiveKitRoom(name="a", avatar_identity="a" * 129), "open.spec.livekit_room.avatar_identity"),
        (session_pb2.LiveKitRoom(name="a", avatar_identity="\0"), "open.spec.livekit_room.avatar_identity"),
    ],
)
def test_a_bad_livekit_room_is_refused_with_its_field(livekit_room, field):
    with pytest.raises(InvalidField) as refused:
        converted(spec(livekit_room=livekit_room))
    assert refused.value.field == field


def test_an_livekit_room_is_refused_by_a_gateway_without_a_livekit_server():
    message = spec(livekit_room=session_pb2.LiveKitRoom(name="desk-7"))
    with pytest.raises(InvalidField, match="GATEWAY_LIVEKIT_URL") as refused:
        mapping.spec_of(message, field="spec", default_detach_grace_s=30.0, livekit_rooms=False)
    assert refused.value.field == "spec.livekit_room"


# --- numbers of any size

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)


@given(whole=INT64 | st.integers(-2, 90_000), nanos=INT32 | st.integers(-1, 1))
def test_no_duration_of_a_caller_is_too_strange_to_be_taken_or_refused(whole, nanos):
    for name in ("max_duration", "detach_grace"):
        with contextlib.suppress(InvalidField):
            taken = converted(spec(**{name: duration_pb2.Duration(seconds=whole, nanos=nanos)}))
            assert taken.avatar.max_duration_s is None or 1 <= taken.avatar.max_duration_s <= 86_400
            assert 0 <= taken.detach_grace_s <= 300


@given(rate=INT32, channels=INT32, encoding=INT32)
def test_no_number_of_a_format_is_too_strange_to_be_taken_or_refused(rate, channels, encoding):
    message = audio_pb2.AudioFormat(encoding=encoding, sample_rate_hz=rate, channel_count=channels)
    with contextlib.suppress(AudioFormatUnsupported):
        mapping.format_of(message)


@given(wanted=INT32)
def test_a_page_has_bounds_whatever_is_asked_for(wanted):
    with contextlib.suppress(InvalidField):
        assert 1 <= mapping.page_size(wanted) <= 500


@given(value=st.floats(allow_nan=False) | st.integers(-(10**300), 10**300))
def test_every_number_of_seconds_has_a_nearest_duration(value):
    assert abs(mapping.duration(value).seconds) <= 315_576_000_000


@given(remaining_s=st.none() | st.floats(allow_nan=False, min_value=-1e12))
def test_nobody_waits_longer_than_an_hour(remaining_s):
    wait_s = mapping.permit_wait_s(remaining_s)
    assert wait_s is None or 0 <= wait_s <= 3600


@pytest.mark.parametrize("limit", [10**12, float("inf"), -1.0])
def test_a_limit_that_cannot_be_is_dropped_wherever_it_comes_from(limit):
    facts = {"session_id": "s", "ws_url": "ws://h", "room_url": "", "viewer_token": "", "max_duration_s": limit}
    assert read_access(facts).max_duration_s is None


def test_a_rotation_brings_the_tokens_of_the_new_room():
    room = ev.Room(url="wss://r", token="for-a-viewer", agent_token="for-the-agent")
    event = ev.Rotated(upstream_session_id="up-2", expires_at=None, room=room, inside=False)
    found = mapping.event_message(ev.LogEntry(1, _AT, event), final_view=None).rotated.room
    assert (found.url, found.viewer_token, found.agent_token) == ("wss://r", "for-a-viewer", "for-the-agent")
    assert "for-" not in repr(event)
