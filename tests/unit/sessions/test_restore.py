"""Continuation of a session that a dead process left."""

from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.events import Expiring
from liveavatar_gateway.registry.base import Fence, StoredSession, Upstream
from liveavatar_gateway.sessions.record import Record, access_payload
from liveavatar_gateway.sessions.restore import current_upstream, restore
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.model import AvatarRequest, Started

SPEC = SessionSpec(avatar=AvatarRequest(avatar_id="a"), detach_grace_s=30.0)
CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW, UNREACHED = Upstream("old", {"ws_url": "x"}), Upstream("new", {"ws_url": "y"}), Upstream("unreached")


def _stored(record: Record, upstreams: tuple[Upstream, ...], **changes: object) -> StoredSession:
    values = {
        "session_id": "s",
        "owner": "o",
        "epoch": 1,
        "ended": False,
        "sequence": 0,
        "payload": record.payload(),
        "utterances": (),
        "upstreams": upstreams,
        "handles": (),
        "seen_mono_s": None,
        "address": "",
    }
    return StoredSession(**{**values, **changes})


@pytest.mark.parametrize(
    ("upstreams", "spoke", "expected"),
    [
        ((), "", None),
        ((UNREACHED,), "", None),
        ((OLD,), "old", OLD),
        ((OLD,), "", OLD),
        ((OLD, UNREACHED), "old", OLD),
        ((OLD, NEW), "old", OLD),
        ((OLD, NEW), "new", NEW),
        ((OLD, NEW), "", NEW),
        ((OLD, UNREACHED), "unreached", OLD),
    ],
)
def test_the_upstream_session_that_spoke_last_is_gone_on_with_if_it_can_be_reached(upstreams, spoke, expected):
    record = Record(spec=SPEC, created_at=CREATED_AT, upstream_session_id=spoke)
    assert current_upstream(_stored(record, upstreams), record) is expected


def test_a_process_that_goes_on_with_a_session_tells_the_same_limit():
    started = Started(session_id="old", ws_url="ws://old", room_url="", viewer_token="", max_duration_s=60)
    record = Record(
        spec=SPEC, created_at=CREATED_AT, started_at=CREATED_AT, upstream_session_id="old", expires_in_s=50.0
    )
    stored = _stored(record, (Upstream("old", access_payload(started)),), saved_mono_s=0.0)
    restored = restore(
        stored,
        record,
        Fence("s", 2),
        SessionConfig(),
        grace_s=30.0,
        max_chunk_bytes=4096,
        new_id=lambda: "id",
        utc_now=lambda: CREATED_AT,
        now_mono_s=0.0,
    )
    restored.core.tick(40.0)
    (expiring,) = [entry.event for entry in restored.core.log.after(0) if isinstance(entry.event, Expiring)]
    assert expiring.expires_at == CREATED_AT + timedelta(seconds=60)
