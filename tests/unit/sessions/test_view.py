"""A session for display."""

import dataclasses

import pytest

from liveavatar_gateway.core.states import EndReason, Pose, SessionState
from testkit.actors import Process
from testkit.avatar import audio_input_of


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def test_a_session_before_its_avatar_shows_no_limit_and_costs_nothing(process):
    view = process.session(labels={"team": "blue"}).view()
    assert (view.state, view.pose) == (SessionState.CREATING, Pose.UNKNOWN)
    assert (view.upstream_session_id, view.max_duration_s, view.expires_at) == ("", None, None)
    assert view.billed_s == 0.0
    assert view.spec.labels == {"team": "blue"}


async def test_a_ready_session_shows_its_avatar_and_its_limit(process):
    session = await process.ready()
    session.attachments.add_attach_stream()
    view = session.view()
    assert view.state is SessionState.READY
    assert view.upstream_session_id == "up-1"
    assert view.max_duration_s == 600
    assert view.expires_at > view.created_at
    assert view.attached
    assert view.last_sequence == session.log.last_sequence


async def test_usage_counts_what_was_received(process):
    session = await process.ready()
    utterance = session.utterances.begin("u", audio_input_of(None))
    session.utterances.receive(utterance, None, bytes(9_600))
    usage = session.view().usage
    assert (usage.utterance_count, usage.received_bytes) == (1, 9_600)


async def test_a_session_that_ends_is_attached_no_more(process):
    session = await process.ready()
    session.attachments.add_attach_stream()
    session.end(EndReason.CALLER_ENDED)
    view = session.view()
    assert not view.attached
    assert view.end_reason is EndReason.CALLER_ENDED


async def test_a_view_cannot_be_changed(process):
    view = process.session().view()
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.state = SessionState.ENDED
