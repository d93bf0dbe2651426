"""The command socket as text: every command as LiveAvatar wants it, every event in each shape that was seen."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liveavatar_gateway.core import messages as m
from liveavatar_gateway.core.events import UpstreamNotice
from liveavatar_gateway.core.states import Pose
from liveavatar_gateway.upstream.wire import MAX_PACKET_BYTES, PacketTooLarge, decode, encode

# --- commands


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (m.SpeakEnd("e-1"), "agent.speak_end"),
        (m.Interrupt("e-1"), "agent.interrupt"),
        (m.ListenStart("e-1"), "agent.start_listening"),
        (m.ListenStop("e-1"), "agent.stop_listening"),
        (m.KeepAlive("e-1"), "session.keep_alive"),
    ],
)
def test_a_command_is_its_type_and_its_id(command, kind):
    assert json.loads(encode(command)) == {"type": kind, "event_id": "e-1"}


@settings(max_examples=50, deadline=None)
@given(pcm=st.binary(max_size=3_000), event_id=st.uuids().map(str))
def test_speech_is_base64_in_json_whatever_its_bytes_are(pcm, event_id):
    message = json.loads(encode(m.Speak(event_id, pcm)))
    assert message == {
        "type": "agent.speak",
        "event_id": event_id,
        "audio": base64.b64encode(pcm).decode("ascii"),
    }


def test_the_largest_packet_stays_below_one_megabyte_of_text():
    frame = encode(m.Speak("12345678-1234-1234-1234-123456789012", bytes(MAX_PACKET_BYTES)))
    assert len(frame) < 1_000_000


def test_a_larger_packet_is_never_sent():
    """LiveAvatar would drop it without a word, or close the socket."""
    with pytest.raises(PacketTooLarge, match="700002 bytes"):
        encode(m.Speak("e-1", bytes(MAX_PACKET_BYTES + 2)))


# --- events

_REFS = m.Refs(("ours", "theirs"), "task-1")
_ABOUT = {"event_id": "theirs", "source_event_id": "ours", "task": {"id": "task-1"}}

EVENTS = [
    ({"type": "session.state_updated", "state": "connected"}, m.StateUpdated("connected")),
    ({"type": "session.state_updated", "state": "new"}, m.StateUpdated("new")),
    ({"type": "session.state_updated"}, m.StateUpdated("")),
    ({"type": "session.stopped", "end_reason": "IDLE_TIMEOUT"}, m.Stopped("IDLE_TIMEOUT")),
    ({"type": "session.stopped", "stop_reason": "NO_CREDITS"}, m.Stopped("NO_CREDITS")),
    ({"type": "session.stopped"}, m.Stopped("")),
    ({"type": "agent.audio_buffer_appended", **_ABOUT}, m.Appended(_REFS)),
    ({"type": "agent.audio_buffer_committed", **_ABOUT}, m.Committed(_REFS)),
    ({"type": "agent.audio_buffer_cleared", **_ABOUT}, m.Cleared(_REFS)),
    ({"type": "agent.speak_started", **_ABOUT}, m.SpeakStarted(_REFS)),
    ({"type": "agent.speak_ended", **_ABOUT}, m.SpeakEnded(_REFS)),
    ({"type": "agent.speak_interrupted", **_ABOUT}, m.SpeakInterrupted(_REFS)),
    (
        {"type": "agent.state_updated", "previous_state": "idle", "new_state": "talking"},
        m.PoseUpdated(Pose.TALKING),
    ),
    ({"type": "agent.state_updated", "new_state": "idle", "source_event_id": None}, m.PoseUpdated(Pose.IDLE)),
    ({"type": "agent.state_updated", "state": "listening"}, m.PoseUpdated(Pose.LISTENING)),
    ({"type": "agent.state_updated", "new_state": "dancing"}, m.Unknown("agent.state_updated dancing")),
    ({"type": "agent.idle_started", "task": {"id": "task-1"}}, m.PoseUpdated(Pose.IDLE)),
    ({"type": "agent.idle_ended", "task": {"id": "task-1"}}, m.PoseUpdated(Pose.TALKING)),
    (
        {"type": "error", "error": {"type": "invalid_request_error", "message": "invalid base64 audio data"}},
        UpstreamNotice(error=True, type="invalid_request_error", message="invalid base64 audio data"),
    ),
    (
        {"type": "error", "error": {"type": "video_starvation", "message": "slow", "event_id": "x"}},
        UpstreamNotice(error=True, type="video_starvation", message="slow"),
    ),
    ({"type": "error", "error": "it broke"}, UpstreamNotice(error=True, type="", message="it broke")),
    ({"type": "error", "message": "it broke"}, UpstreamNotice(error=True, type="", message="it broke")),
    (
        {"type": "warning", "warning": {"type": "late", "message": "hurry"}},
        UpstreamNotice(error=False, type="late", message="hurry"),
    ),
    ({"type": "agent.new_in_2027", "event_id": "x"}, m.Unknown("agent.new_in_2027")),
]


@pytest.mark.parametrize(("message", "event"), EVENTS, ids=lambda value: str(value)[:60])
def test_an_event_is_read(message, event):
    assert decode(json.dumps(message)) == event


@pytest.mark.parametrize(("message", "event"), EVENTS, ids=lambda value: str(value)[:60])
def test_an_event_is_read_when_its_fields_are_nested_under_payload(message, event):
    fields = {name: value for name, value in message.items() if name != "type"}
    assert decode(json.dumps({"type": message["type"], "payload": fields}).encode()) == event


def test_a_payload_that_is_no_object_is_passed_over():
    frame = json.dumps({"type": "session.state_updated", "state": "connected", "payload": "x"})
    assert decode(frame) == m.StateUpdated("connected")


@pytest.mark.parametrize(
    ("fields", "refs"),
    [
        ({}, m.Refs()),
        ({"event_id": "echoed"}, m.Refs(("echoed",))),
        ({"source_event_id": "ours"}, m.Refs(("ours",))),
        ({"source_event_id": None, "event_id": "theirs"}, m.Refs(("theirs",))),
        ({"source_event_id": "", "event_id": 7}, m.Refs()),
        ({"task": {"id": "t"}}, m.Refs((), "t")),
        ({"task": {"id": 7}}, m.Refs()),
        ({"task": "t"}, m.Refs()),
        ({"task": None}, m.Refs()),
    ],
)
def test_what_an_event_is_about_is_read_from_whatever_is_there(fields, refs):
    assert decode(json.dumps({"type": "agent.speak_started", **fields})) == m.SpeakStarted(refs)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ("", m.Unknown("not JSON")),
        ("hello", m.Unknown("not JSON")),
        (b"\xff\xfe", m.Unknown("not JSON")),
        ("[1]", m.Unknown("not an object")),
        ('"text"', m.Unknown("not an object")),
        ("{}", m.Unknown("no type")),
        ('{"type": 7}', m.Unknown("no type")),
    ],
)
def test_what_cannot_be_read_is_unknown_and_never_an_error(frame, event):
    assert decode(frame) == event


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = ["event_id", "source_event_id", "task", "state", "new_state", "error", "warning", "payload", "end_reason"]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted({message["type"] for message, _ in EVENTS})),
    fields=st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=5),
)
def test_no_shape_of_a_known_event_is_an_error(kind, fields):
    assert decode(json.dumps({"type": kind, **fields})) is not None


def test_the_words_of_a_notice_are_escaped():
    frame = json.dumps({"type": "warning", "message": "\x1b[2J\u202eno\nforged"})
    notice = decode(frame)
    assert isinstance(notice, UpstreamNotice)
    assert notice.message == r"\x1b[2J\u202eno\nforged"
