"""Round trip of a session's record through the registry, also between versions of the gateway."""

from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import EndReason, Outcome
from liveavatar_gateway.registry.base import StoredSession
from liveavatar_gateway.rooms.access import AgoraRoom, BroughtRoom, Viewer
from liveavatar_gateway.rpc.errors import CODES, status_of
from liveavatar_gateway.sessions.record import (
    Record,
    Usage,
    access_payload,
    read_access,
    read_record,
    restore_error,
)
from liveavatar_gateway.sessions.restore import snapshot_of
from liveavatar_gateway.sessions.spec import AgentSeat, LiveKitRoom, RoomEventsWish, SessionSpec
from liveavatar_gateway.sessions.utterance_record import UtteranceRecord, read_utterances
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from liveavatar_gateway.upstream.model import AvatarRequest, Started

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SPEC = SessionSpec(
    avatar=AvatarRequest(avatar_id="a-1", sandbox=True, quality="low", encoding="VP8", max_duration_s=300),
    detach_grace_s=12.5,
    labels={"desk": "7"},
    livekit_room=LiveKitRoom(name="desk-7", avatar_identity="ada"),
    agent_seat=AgentSeat.CALLER,
    viewers=(Viewer(identity="ann", can_publish=True, lifetime_s=60.0),),
    room_events=RoomEventsWish(data_topics=("chat", "")),
)
FULL = Record(
    spec=SPEC,
    request_id="r-1",
    created_at=AT,
    started_at=AT,
    ready_at=AT,
    ended_at=AT,
    expires_in_s=1234.5,
    detach_left_s=99.25,
    end_reason=EndReason.UPSTREAM_ENDED,
    error=("UPSTREAM_UNREACHABLE", "gone", {"attempt_count": "3"}),
    upstream_reason="AVATAR_DELETED",
    upstream_session_id="up-1",
    usage=Usage(utterance_count=1, received_bytes=2, dropped_bytes=3, upstream_bytes=4, played_s=5.5),
    removed_viewers={"ann": AT},
)
STARTED = Started(
    session_id="up-1", ws_url="ws://x", room_url="wss://r", viewer_token="t", agent_token="a", max_duration_s=60.0
)


def through_json(facts):
    return orjson.loads(orjson.dumps(facts))


@pytest.mark.parametrize("record", [FULL, Record(spec=SPEC, created_at=AT)], ids=["full", "new"])
def test_a_record_reads_back_as_it_was(record):
    assert Record.of(through_json(record.payload())) == record


def test_the_token_of_an_agora_channel_is_not_stored_and_makes_no_other_spec():
    agora = AgoraRoom(app_id="app", channel="desk", uid="7", token="a-secret")
    record = Record(spec=replace(SPEC, livekit_room=None, agora_room=agora), created_at=AT)
    assert b"a-secret" not in orjson.dumps(record.payload())
    assert Record.of(through_json(record.payload())) == record


def test_no_token_of_a_room_on_the_callers_server_is_stored_and_none_makes_another_spec():
    tokens = {"avatar_token": "a-secret", "listener_token": "b-secret", "viewer_token": "c-secret"}
    brought = BroughtRoom(url="wss://rooms.example.com", name="desk", identity="ada", **tokens)
    record = Record(spec=replace(SPEC, livekit_room=None, brought_room=brought), created_at=AT)
    assert b"-secret" not in orjson.dumps(record.payload())


def test_the_variables_of_a_hosted_agent_are_not_stored_and_make_no_other_spec():
    agent = Connector(
        kind=ConnectorKind.ELEVENLABS_AGENT,
        secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22",
        agent_id="a",
        temperature=0.5,
        dynamic_variables={"name": "Ann"},
    )
    record = Record(spec=replace(SPEC, livekit_room=None, connector=agent), created_at=AT)
    assert b"Ann" not in orjson.dumps(record.payload())
    assert Record.of(through_json(record.payload())) == record


def test_what_a_later_version_adds_is_ignored_and_what_an_earlier_one_lacks_has_its_default():
    facts = dict(through_json(FULL.payload()))
    del facts["usage"], facts["request_id"]
    read = Record.of({**facts, "invented_later": {"x": 1}})
    assert (read.spec, read.usage, read.request_id) == (SPEC, Usage(), "")


@pytest.mark.parametrize("facts", [{}, {"spec": None}, {"spec": {"avatar": {}}, "created_at": "x"}])
def test_what_is_no_record_is_refused(facts):
    with pytest.raises(ValueError, match="Record"):
        Record.of(facts)


def test_access_reads_back_as_it_was_and_nonsense_does_not():
    assert read_access(through_json(access_payload(STARTED))) == STARTED
    assert read_access({"ws_url": 5}) is None


@pytest.mark.parametrize(
    "ended",
    [
        UtteranceEnded("u", Outcome.COMPLETED, 1.25),
        UtteranceEnded("u", Outcome.INTERRUPTED, 0.5, inferred=True),
        UtteranceEnded("u", Outcome.FAILED, 0.0, e.CreditExceeded(10, 5, 0.25)),
    ],
    ids=lambda ended: ended.outcome.name,
)
def test_the_end_of_an_utterance_is_told_again_as_it_was(ended):
    ((_, kept),) = read_utterances([("u", through_json(UtteranceRecord.of_end(ended).payload()))]).items()
    told = kept.end("u")
    assert (told.outcome, told.played_s, told.inferred) == (ended.outcome, ended.played_s, ended.inferred)
    assert (told.error is None) == (ended.error is None)
    if ended.error is not None:
        assert (told.error.reason, told.error.message) == (ended.error.reason, ended.error.message)
        assert told.error.metadata == ended.error.metadata


def test_an_utterance_that_goes_on_has_no_end():
    ((_, kept),) = read_utterances([("u", {"upstream_id": "x", "format": "f", "taken_bytes": 5})]).items()
    assert kept.end("u") is None


def test_an_utterance_that_cannot_be_read_does_not_hide_the_others():
    assert list(read_utterances([("bad", {"taken_bytes": "many"}), ("good", {})])) == ["good"]


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_an_error_of_any_class_comes_back_as_that_class_with_its_words(kind):
    error = restore_error((kind.reason, "what happened", {"scope": "upstream_account"}))
    assert type(error) is kind
    assert str(error) == error.message == "what happened"
    assert error.metadata == {"scope": "upstream_account"}
    assert status_of(error).message == "what happened"


def test_an_error_of_an_unknown_reason_is_one_of_our_own():
    assert type(restore_error(("INVENTED_LATER", "x", {}))) is e.InternalError


def test_an_utterance_that_was_cut_before_any_of_it_went_out_has_ended():
    cut = UtteranceRecord(upstream_id="up", interrupted=True)
    row = StoredSession(
        session_id="s",
        owner="o",
        epoch=1,
        ended=False,
        sequence=3,
        payload={},
        utterances=(("u1", through_json(cut.payload())), ("u2", through_json(UtteranceRecord().payload()))),
        upstreams=(),
        handles=(),
        seen_mono_s=None,
        address="",
    )
    snapshot = snapshot_of(row, FULL, max_chunk_bytes=1, now_mono_s=0.0)
    assert snapshot.utterances == []
    assert snapshot.ended_utterances == [UtteranceEnded("u1", Outcome.INTERRUPTED, 0.0)]


# --- what cannot be: another program wrote to the file, or its disk failed


def _row(facts, **changes):
    values = {
        "session_id": "s",
        "owner": "o",
        "epoch": 1,
        "ended": False,
        "sequence": 0,
        "payload": facts,
        "utterances": (),
        "upstreams": (),
        "handles": (),
        "seen_mono_s": None,
        "address": "",
    }
    return StoredSession(**{**values, **changes})


def _changed(path: str, value: object):
    facts = through_json(FULL.payload())
    target = facts
    *parents, name = path.split(".")
    for parent in parents:
        target = target[parent]
    target[name] = value
    return facts


def test_a_record_in_order_is_read():
    assert read_record(_row(through_json(FULL.payload()))) == FULL


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("usage.played_s", 1e300),
        ("usage.played_s", float("nan")),
        ("usage.played_s", -1),
        ("usage.utterance_count", 10**30),
        ("usage.received_bytes", -1),
        ("usage", None),
        ("expires_in_s", 1e300),
        ("expires_in_s", "soon"),
        ("spec.detach_grace_s", 1e12),
        ("spec.avatar.max_duration_s", 10**12),
        ("spec.labels", ["a"]),
        ("spec", {}),
        ("created_at", "2026-01-02T03:04:05"),
        ("created_at", "9999-12-31T23:59:59-23:59"),
        ("started_at", "0001-01-01T00:00:00+23:59"),
        ("created_at", "yesterday"),
        ("removed_viewers", {"ann": "2026-01-02T03:04:05"}),
        ("end_reason", "NEVER_HEARD_OF"),
        ("error", ["A"]),
    ],
)
def test_a_record_that_says_what_cannot_be_is_not_believed(path, value):
    with pytest.raises(ValueError, match=r"."):
        read_record(_row(_changed(path, value)))


def test_a_record_that_is_nested_too_deep_is_not_believed():
    deep: object = 1
    for _ in range(500):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        read_record(_row(_changed("spec.labels", {"a": deep})))


@pytest.mark.parametrize(
    "facts",
    [
        {"upstream_id": 7},
        {"taken_bytes": -1, "format": "PCM_S16LE 24000 Hz 1 ch"},
        {"taken_bytes": 10**30},
        {"sent_s": float("inf")},
        {"taken_bytes": 5, "format": "no format"},
        {"outcome": "NEVER_HEARD_OF"},
    ],
)
def test_an_utterance_that_cannot_be_is_left_out_and_the_session_goes_on(facts):
    good = UtteranceRecord(outcome=Outcome.COMPLETED, played_s=1.0).payload()
    row = _row(FULL.payload(), utterances=(("bad", facts), ("good", good)))
    snapshot = snapshot_of(row, FULL, max_chunk_bytes=4096, now_mono_s=0.0)
    assert [one.utterance_id for one in snapshot.ended_utterances] == ["good"]
    assert snapshot.utterances == []
