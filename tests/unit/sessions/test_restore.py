"""What is gone on with of what a dead process left."""

from datetime import UTC, datetime

import pytest

from liveavatar_gateway.registry.base import StoredSession, Upstream
from liveavatar_gateway.sessions.record import Record
from liveavatar_gateway.sessions.restore import current_upstream
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.model import AvatarRequest

OLD, NEW, UNREACHED = Upstream("old", {"ws_url": "x"}), Upstream("new", {"ws_url": "y"}), Upstream("unreached")


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
    record = Record(
        spec=SessionSpec(avatar=AvatarRequest(avatar_id="a"), detach_grace_s=30.0),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        upstream_session_id=spoke,
    )
    row = StoredSession(
        session_id="s",
        owner="o",
        epoch=1,
        ended=False,
        sequence=0,
        payload=record.payload(),
        utterances=(),
        upstreams=upstreams,
        handles=(),
        seen_mono_s=None,
        address="",
    )
    assert current_upstream(row, record) is expected
