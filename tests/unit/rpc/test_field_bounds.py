"""Bounds of fields: refused with the name of the field, in time that does not grow with the request."""

import pytest

from liveavatar.gateway.v1 import audio_service_pb2 as a
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc.field_bounds import check, is_printable


def refused_field(message) -> str:
    with pytest.raises(InvalidField) as refused:
        check(message)
    assert refused.value.field is not None
    return refused.value.field


@pytest.mark.parametrize(
    "text",
    ["a\nb", "\x1b[31m", "\x9b1m", "\u202eevil", "\u2066x\u2069", "a\x00b", "\u2028", "\ufeff"],
)
def test_text_that_changes_how_other_text_is_shown_is_not_printable(text):
    assert not is_printable(text)
    labels = {"key": text}
    assert refused_field(p.WatchSessionsRequest(filter=p.WatchFilter(labels=labels))) == "filter.labels"


@pytest.mark.parametrize(
    "text", ["", "Zoë", "你好", "a b", "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e", "שלום"]
)
def test_words_of_all_languages_are_printable(text):
    assert is_printable(text)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (p.ListSessionsRequest(states=[1] * 17), "states"),
        (p.ListSessionsRequest(page_token="x" * 2001), "page_token"),
        (p.ListSessionsRequest(labels={"k" * 64: "v"}), "labels"),
        (p.ListSessionsRequest(labels={"": "v"}), "labels"),
        (p.ListSessionsRequest(labels={f"k{n}": "v" for n in range(17)}), "labels"),
        (p.GetSessionRequest(session_id="x" * 129), "session_id"),
        (
            p.AttachRequest(open=p.OpenSession(spec=session_pb2.SessionSpec(labels={"k": "v" * 129}))),
            "open.spec.labels",
        ),
        (p.AttachRequest(open=p.OpenSession(request_id="x" * 129)), "open.request_id"),
        (a.ListenAudioRequest(header=a.ListenHeader(participants=["x"] * 17)), "header.participants"),
        (a.ListenAudioRequest(header=a.ListenHeader(participants=["a\nb"])), "header.participants"),
    ],
)
def test_a_field_out_of_its_bound_is_named_by_its_path(message, field):
    assert refused_field(message) == field


def test_a_request_within_all_bounds_is_accepted():
    labels = {f"k{n}": "v" * 128 for n in range(16)}
    check(p.ListSessionsRequest(states=[1] * 16, labels=labels, page_token="x" * 2000))


def test_a_field_whose_refusal_must_not_end_its_stream_is_left_to_its_handler():
    command = p.SessionCommand(id="c", interrupt=p.Interrupt(utterance_id="\n" * 500))
    check(p.AttachRequest(command=command))
