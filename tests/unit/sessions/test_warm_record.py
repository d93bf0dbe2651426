"""A stored warm session is told from a session of a caller, whatever somebody wrote into the registry."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from liveavatar_gateway.registry.base import StoredSession
from liveavatar_gateway.sessions.warm_record import (
    difference,
    expiry_of,
    is_warm,
    stored_difference,
    warm_payload,
)
from liveavatar_gateway.upstream.model import AvatarRequest

REQUEST = AvatarRequest(avatar_id="avatar", quality="low")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def stored(payload) -> StoredSession:
    return StoredSession(
        session_id="w-1",
        owner="me",
        epoch=1,
        ended=False,
        sequence=0,
        payload=payload,
        utterances=(),
        upstreams=(),
        handles=(),
        seen_mono_s=None,
        address="",
    )


def test_what_was_stored_is_read_again():
    found = stored(warm_payload(REQUEST, profile="desk", expires_at=NOON))
    assert (is_warm(found), expiry_of(found), stored_difference(found, REQUEST)) == (True, NOON, "")
    assert expiry_of(stored(warm_payload(REQUEST))) is None


@pytest.mark.parametrize("payload", [{}, {"warm": 1}, {"spec": {}}, {"warm": None}])
def test_anything_else_is_no_warm_session(payload):
    found = stored(payload)
    assert not is_warm(found)
    assert expiry_of(found) is None
    assert stored_difference(found, REQUEST) == "avatar_id"


@pytest.mark.parametrize("text", [1, "yesterday", "2026-11-30T12:00:00"])
def test_an_end_that_is_none_is_no_end(text):
    assert expiry_of(stored({"warm": {"expires_at": text}})) is None


@pytest.mark.parametrize(
    "change", [{"avatar_id": "b"}, {"quality": "high"}, {"encoding": "VP8"}, {"sandbox": True}]
)
def test_every_property_that_a_token_fixes_makes_a_difference(change):
    other = replace(REQUEST, **change)
    assert difference(REQUEST, other) == next(iter(change))
    assert stored_difference(stored(warm_payload(REQUEST)), other) == next(iter(change))


def test_a_limit_makes_none():
    assert difference(REQUEST, replace(REQUEST, max_duration_s=60)) == ""
