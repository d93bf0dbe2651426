"""Commands in, events out."""

import itertools
from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.protocol import (
    Events,
    Interrupt,
    Invalid,
    KeepAlive,
    Pose,
    Speak,
    SpeakEnd,
    StartListening,
    StopListening,
    StreamFormat,
    Unknown,
    parse,
    type_of,
)


def events(profile: Any) -> Events:
    numbers = itertools.count(1)
    return Events(profile, lambda: f"s-{next(numbers)}")


def loaded(frame: bytes | None) -> dict[str, Any]:
    assert frame is not None
    return orjson.loads(frame)


@given(pcm=st.binary(min_size=1), event_id=st.none() | st.text(max_size=40))
def test_speak_carries_its_audio_and_id_unchanged(pcm, event_id):
    frame = orjson.dumps({"type": "agent.speak", "event_id": event_id, "audio": pybase64.b64encode(pcm).decode()})
    assert parse(frame) == Speak(event_id, pcm)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("agent.speak_end", SpeakEnd("x", None)),
        ("agent.interrupt", Interrupt("x")),
        ("agent.start_listening", StartListening("x")),
        ("agent.stop_listening", StopListening("x")),
        ("session.keep_alive", KeepAlive("x")),
        ("start", StreamFormat("x")),
        ("agent.dance", Unknown("x", "agent.dance")),
    ],
)
def test_every_command_is_recognised_by_its_type(kind, expected):
    command = parse(orjson.dumps({"type": kind, "event_id": "x"}))
    assert command == expected
    assert type_of(command) == kind


def test_an_event_id_is_optional_and_may_be_null():
    assert parse('{"type":"agent.interrupt"}') == Interrupt(None)
    assert parse('{"type":"agent.interrupt","event_id":null}') == Interrupt(None)


def test_speak_end_may_bring_a_last_piece_of_audio():
    assert parse('{"type":"agent.speak_end","audio":"AAAA"}') == SpeakEnd(None, b"\0\0\0")


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        ("nonsense", "message is not valid JSON"),
        ("[1]", "message is not a JSON object"),
        ("{}", "type is missing"),
        ('{"type":7}', "type is missing"),
        ('{"type":"agent.speak"}', "audio is missing"),
        ('{"type":"agent.speak","audio":""}', "audio is empty"),
        ('{"type":"agent.speak","audio":"***"}', "invalid base64 audio data"),
        ('{"type":"agent.speak","audio":"AAA"}', "invalid base64 audio data"),
        ('{"type":"agent.speak","audio":"ÄÖÜ="}', "invalid base64 audio data"),
        ('{"type":"agent.speak_end","audio":"*"}', "invalid base64 audio data"),
    ],
)
def test_what_cannot_be_a_command_says_why(frame, problem):
    command = parse(frame)
    assert isinstance(command, Invalid)
    assert command.problem == problem


@given(frame=st.text() | st.binary())
def test_no_frame_makes_the_parser_raise(frame):
    parse(frame)


def test_modern_events_have_fresh_ids_and_cite_the_client_in_source_event_id():
    dialect = events("modern")
    assert loaded(dialect.appended("u1", "t-1")) == {
        "type": "agent.audio_buffer_appended",
        "event_id": "s-1",
        "source_event_id": "u1",
        "task": {"id": "t-1"},
    }
    assert loaded(dialect.speak_started("u1", "t-1")) == {
        "type": "agent.speak_started",
        "event_id": "s-2",
        "source_event_id": "u1",
        "task": {"id": "t-1"},
    }
    assert loaded(dialect.committed("u1")) == {
        "type": "agent.audio_buffer_committed",
        "event_id": "s-3",
        "source_event_id": "u1",
    }
    assert loaded(dialect.pose(Pose.TALKING, Pose.IDLE)) == {
        "type": "agent.state_updated",
        "event_id": "s-4",
        "source_event_id": None,
        "previous_state": "talking",
        "new_state": "idle",
    }


def test_classic_events_echo_the_clients_id_and_know_no_acks():
    dialect = events("classic")
    assert loaded(dialect.speak_started("u1", "t-1")) == {
        "type": "agent.speak_started",
        "event_id": "u1",
        "task": {"id": "t-1"},
    }
    assert dialect.appended("u1", "t-1") is None
    assert dialect.pose(Pose.IDLE, Pose.TALKING) is None


def test_acks_only_has_no_speak_event():
    dialect = events("acks_only")
    assert dialect.speak_started("u1", "t") is None
    assert dialect.speak_ended("u1", "t") is None
    assert dialect.speak_interrupted("u1", "t") is None
    assert dialect.appended("u1", "t") is not None
    assert dialect.cleared("i1") is not None


@pytest.mark.parametrize(
    ("profile", "first", "last"),
    [
        ("modern", "new", ["session.stopped", "disconnected"]),
        ("acks_only", "new", ["session.stopped", "disconnected"]),
        ("classic", "connecting", ["closing", "closed"]),
    ],
)
def test_each_profile_has_its_own_session_states(profile, first, last):
    dialect = events(profile)
    assert loaded(dialect.attached())["state"] == first
    assert loaded(dialect.connected())["state"] == "connected"
    farewell = [loaded(frame) for frame in dialect.session_ended("USER_CLOSED", announce=True)]
    assert [event.get("state", event["type"]) for event in farewell] == last


def test_the_end_is_announced_with_its_reason_only_when_asked():
    frames = events("modern").session_ended("IDLE_TIMEOUT", announce=True)
    assert loaded(frames[0])["end_reason"] == "IDLE_TIMEOUT"
    assert len(events("modern").session_ended("IDLE_TIMEOUT", announce=False)) == 1


def test_an_error_cites_the_command_inside_its_error_object():
    assert loaded(events("modern").error("invalid_request_error", "audio is empty", "u1")) == {
        "type": "error",
        "event_id": "s-1",
        "error": {"type": "invalid_request_error", "message": "audio is empty", "event_id": "u1"},
    }
