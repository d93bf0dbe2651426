"""The record of a conversation: what enters it, what a reader gets, and its words."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from liveavatar.gateway import (
    ContinueCause,
    EndReason,
    Outcome,
    OutcomeKind,
    Pose,
    PoseChangedEvent,
    SessionState,
    SpeechContinuedEvent,
    SpeechPausedEvent,
    StateChangedEvent,
    UtteranceEndedEvent,
    UtteranceStartedEvent,
    UtteranceUnderrunEvent,
)
from liveavatar.gateway.events import UpstreamNoticeEvent
from liveavatar_demo.conversation import Conversation, Entry, Kind, describe

AT = datetime(2026, 1, 1, tzinfo=UTC)
AT_S = AT.timestamp()


def started(utterance: str = "u1", at: datetime = AT) -> UtteranceStartedEvent:
    return UtteranceStartedEvent(sequence=1, time=at, utterance_id=utterance, inferred=False)


async def entries(conversation: Conversation, count: int, after: int = 0) -> list[Entry]:
    reader = conversation.read(after)
    found = [await anext(reader) for _ in range(count)]
    await reader.aclose()
    return found


async def test_an_answer_has_its_latency_and_a_greeting_has_none():
    conversation = Conversation()
    conversation.expect_answer("u2", AT_S - 1.25)
    conversation.on_event(started("u1"))
    conversation.on_event(started("u2"))
    greeting, answer = await entries(conversation, 2)
    assert greeting.values == {"utterance": "u1", "latency_ms": None}
    assert answer.values == {"utterance": "u2", "latency_ms": 1250}
    assert describe(greeting) == "the avatar speaks"
    assert describe(answer) == "the avatar speaks, 1.25 s after you"


async def test_each_event_of_speech_has_its_entry_and_a_line():
    conversation = Conversation()
    conversation.on_event(
        StateChangedEvent(sequence=1, time=AT, state=SessionState.READY, previous_state=SessionState.CONNECTING)
    )
    conversation.on_event(PoseChangedEvent(sequence=2, time=AT, pose=Pose.TALKING, previous_pose=Pose.IDLE))
    conversation.on_event(SpeechPausedEvent(sequence=3, time=AT, utterance_id="u1", played=timedelta(seconds=2)))
    conversation.on_event(
        SpeechContinuedEvent(
            sequence=4,
            time=AT,
            utterance_id="u1",
            repeated=timedelta(milliseconds=300),
            cause=ContinueCause.COMMAND,
        )
    )
    conversation.on_event(
        UtteranceUnderrunEvent(sequence=5, time=AT, utterance_id="u1", played=timedelta(seconds=3))
    )
    outcome = Outcome(utterance_id="u1", kind=OutcomeKind.INTERRUPTED, played=timedelta(seconds=4))
    conversation.on_event(UtteranceEndedEvent(sequence=6, time=AT, outcome=outcome))
    conversation.add(Kind.USER_BEGAN, AT_S)
    conversation.add(Kind.USER_ENDED, AT_S, duration_ms=800)
    conversation.add(Kind.INTERRUPTED, AT_S, by="voice")
    conversation.add(Kind.INTERRUPTED, AT_S, by="button")
    conversation.add(Kind.SESSION, AT_S, state="ended", reason=EndReason.CALLER_ENDED.value)
    assert [describe(entry) for entry in await entries(conversation, 11)] == [
        "session ready",
        "pose talking",
        "paused after 2.00 s",
        "continued (command), 0.30 s are heard again",
        "the avatar waits for audio",
        "the avatar's speech ended: interrupted, heard 4.00 s",
        "you speak",
        "you spoke for 0.80 s",
        "you interrupt by voice",
        "you interrupt",
        "session ended: caller_ended",
    ]


async def test_events_without_a_meaning_for_the_page_leave_no_entry():
    conversation = Conversation()
    conversation.on_event(UpstreamNoticeEvent(sequence=1, time=AT, type="x", message="y", error=False))
    conversation.on_event(started())
    (entry,) = await entries(conversation, 1)
    assert (entry.number, entry.kind) == (1, Kind.AVATAR_BEGAN)


async def test_an_entry_is_json_with_its_time_in_milliseconds():
    conversation = Conversation()
    conversation.on_event(started())
    (entry,) = await entries(conversation, 1)
    assert entry.to_json() == {
        "number": 1,
        "at_ms": round(AT_S * 1000),
        "kind": "avatar_began",
        "utterance": "u1",
        "latency_ms": None,
    }


async def test_the_state_of_the_session_outlasts_its_entry():
    conversation = Conversation(kept=1)
    assert conversation.session_state == ""
    conversation.add(Kind.SESSION, AT_S, state="ready")
    conversation.add(Kind.USER_BEGAN, AT_S)
    assert conversation.session_state == "ready"


async def test_readers_get_the_past_and_the_future_after_their_last_entry():
    conversation = Conversation()
    for _ in range(3):
        conversation.add(Kind.USER_BEGAN, AT_S)
    assert [entry.number for entry in await entries(conversation, 2, after=1)] == [2, 3]
    reader = conversation.read(3)
    coming = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    assert not coming.done()
    conversation.add(Kind.USER_BEGAN, AT_S)
    assert (await coming).number == 4
    await reader.aclose()


async def test_the_record_is_bounded_and_a_late_reader_gets_the_newest():
    shown: list[Entry] = []
    conversation = Conversation(shown.append, kept=3)
    for _ in range(5):
        conversation.add(Kind.USER_BEGAN, AT_S)
    assert [entry.number for entry in await entries(conversation, 3)] == [3, 4, 5]
    assert [entry.number for entry in shown] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", Kind)
async def test_every_kind_can_be_described(kind: Kind):
    values = {
        "state": "ready",
        "pose": "idle",
        "duration_ms": 1,
        "latency_ms": 1,
        "outcome": "played",
        "played_ms": 1,
        "by": "voice",
        "cause": "command",
        "repeated_ms": 0,
    }
    assert describe(Entry(1, AT_S, kind, values))
