"""Text that was heard, in messages: it reaches those who may speak or control."""

import pytest

from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.auth.principal import ANONYMOUS, Role
from liveavatar_gateway.core.speech.words import TimedText
from liveavatar_gateway.rpc.heard_text import hide, may_read, piece_of


@pytest.mark.parametrize("role", Role)
def test_the_roles_that_may_read_the_text(role):
    principal = type(ANONYMOUS)(
        tenant="", roles=frozenset({role}), method=ANONYMOUS.method, credential="", expires_at=None
    )
    assert may_read(principal) == (role in (Role.SPEAK, Role.CONTROL))


def test_every_event_with_text_can_be_hidden():
    texts = {
        field.name
        for field in p.SessionEvent.DESCRIPTOR.fields
        if field.message_type is not None and "heard_text" in field.message_type.fields_by_name
    }
    assert texts == {"utterance_ended", "speech_paused"}
    for name in texts:
        event = p.SessionEvent()
        getattr(event, name).utterance_id = "u"
        getattr(event, name).heard_text = "secret"
        hide(event)
        assert b"secret" not in event.SerializeToString()
        assert getattr(event, name).utterance_id == "u"


def test_other_events_stay_as_they_are():
    event = p.SessionEvent(notice=p.UpstreamNotice(type="warning"))
    hide(event)
    assert event.notice.type == "warning"


def test_timings_without_a_number_begin_where_their_message_says():
    text = audio.TimedText(texts=["a"], start_ms=[0], end_ms=[5])
    assert piece_of(text).first_item is None
    assert piece_of(text, first_item=0) == TimedText(text.texts, text.start_ms, text.end_ms, 0)
    text.first_item = 3
    assert piece_of(text, first_item=0).first_item == 3
