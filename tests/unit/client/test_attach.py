import asyncio
import itertools

import pytest
from unit.client.fakes import FakeCall, connecting, retries, settle

from liveavatar.gateway import ConnectionLost, SessionEnded
from liveavatar.gateway.attach import PHASE_TRANSITIONS, Attachment, AttachPhase
from liveavatar.gateway.condition import Condition
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb

LOST = ConnectionLost("lost")


class Listener:
    """Keeps what it is called with."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))

    @property
    def sequences(self):
        return [call[1].sequence for call in self.calls if call[0] == "on_event"]


def opened(**fields):
    message = pb.SessionOpened(session=session_pb2.Session(id="s"), handle="handle", **fields)
    message.detach_grace.seconds = 10
    return pb.AttachResponse(opened=message)


def event(sequence, **fields):
    return pb.AttachResponse(event=pb.SessionEvent(sequence=sequence, **fields))


def attachment(*calls, targets=("a:1",)):
    waiting = list(calls)
    listener = Listener()
    first = pb.AttachRequest(open=pb.OpenSession(request_id="r"))
    made = Attachment(connecting(waiting), first, listener, Condition(), retries(*targets))
    return made, listener


@pytest.mark.parametrize(("before", "after"), [*itertools.product(AttachPhase, AttachPhase)])
async def test_a_phase_follows_only_where_the_table_says(before, after):
    attach, _ = attachment()
    attach._phase = before
    attach._enter(after)
    assert attach.phase is (after if after in PHASE_TRANSITIONS[before] else before)


async def test_a_session_is_attached_until_it_ends():
    call = FakeCall(opened(), event(1), event(2, ended=pb.SessionEnded()))
    attach, listener = attachment(call)
    assert attach.phase is AttachPhase.NEW
    assert not attach.creates
    assert await attach.run() is None
    assert attach.phase is AttachPhase.OVER
    assert listener.sequences == [1, 2]
    assert call.half_closed
    assert attach.handle == "handle"


async def test_a_position_in_the_queue_comes_before_the_session_and_is_not_its_answer():
    place = pb.AttachResponse(queue_position=pb.QueuePosition(position=2))
    call = FakeCall(place, opened(), event(1, ended=pb.SessionEnded()))
    attach, listener = attachment(call)
    assert await attach.run() is None
    assert [name for name, *_ in listener.calls][:1] == ["on_opened"]


async def test_a_broken_stream_is_resumed_behind_the_last_event():
    first = FakeCall(opened(), event(1), LOST)
    second = FakeCall(opened(), event(1), event(2, ended=pb.SessionEnded()))
    attach, listener = attachment(first, second)
    assert await attach.run() is None
    assert (second.written[0].resume.handle, second.written[0].resume.after_sequence) == ("handle", 1)
    assert listener.sequences == [1, 2]
    assert [call[0] for call in listener.calls].count("on_resumed") == 1


async def test_a_command_without_a_result_is_sent_again_with_the_same_id():
    first, second = FakeCall(opened()), FakeCall(opened())
    attach, _ = attachment(first, second)
    running = asyncio.create_task(attach.run())
    await settle()
    commanding = asyncio.create_task(attach.command(pb.SessionCommand(stop_listening=pb.StopListening())))
    await settle()
    first.arrive(LOST)
    await asyncio.wait_for(_until(lambda: len(second.written) == 2), 5)
    command_id = first.written[1].command.id
    assert second.written[1].command.id == command_id
    second.arrive(pb.AttachResponse(command_result=pb.CommandResult(id=command_id)))
    assert (await commanding).id == command_id
    running.cancel()


async def test_a_refusal_ends_the_stream():
    refusal = SessionEnded("over", reason="SESSION_ENDED")
    attach, _ = attachment(FakeCall(refusal))
    assert await attach.run() is refusal
    assert not attach.creates


async def test_detaching_half_closes_the_stream():
    call = FakeCall(opened())
    attach, _ = attachment(call)
    running = asyncio.create_task(attach.run())
    await settle()
    attach.detach()
    assert await running is None
    assert call.half_closed


async def test_detaching_gives_up_a_stream_that_is_being_resumed():
    second = FakeCall()
    attach, _ = attachment(FakeCall(opened(), LOST), second)
    running = asyncio.create_task(attach.run())
    await asyncio.wait_for(_until(lambda: bool(second.written)), 5)
    attach.detach()
    assert await asyncio.wait_for(running, 5) is None
    assert second.cancelled


async def test_missing_events_are_reported_and_skipped():
    attach, listener = attachment(FakeCall(opened(compacted_through=3), event(4, ended=pb.SessionEnded())))
    await attach.run()
    (lost,) = [call[1] for call in listener.calls if call[0] == "on_events_lost"]
    assert lost.oldest_sequence == 4
    assert listener.sequences == [4]


def expiring():
    return pb.AttachResponse(go_away=pb.GoAway(handle="newer", reason=pb.GO_AWAY_REASON_CREDENTIAL))


async def test_a_stream_whose_credential_ends_is_resumed_with_another_one_without_a_word():
    """The first call goes on until the source has another credential."""
    first, second = FakeCall(opened(), expiring()), FakeCall(opened(), event(1), event(2, ended=pb.SessionEnded()))
    answers, asked = [], asyncio.Event()

    async def renew():
        asked.set()
        while not answers:
            await asyncio.sleep(0)
        return answers.pop(0)

    first.renew = renew
    attach, listener = attachment(first, second)
    running = asyncio.create_task(attach.run())
    await asyncio.wait_for(asked.wait(), 5)
    assert attach.phase is AttachPhase.ATTACHED
    answers.append(True)
    assert await asyncio.wait_for(running, 5) is None
    assert first.cancelled
    assert (second.written[0].resume.handle, second.written[0].resume.after_sequence) == ("newer", 0)
    assert {call[0] for call in listener.calls}.isdisjoint({"on_resumed", "on_go_away"})


async def test_a_renewal_that_loses_events_is_reported():
    first, second = FakeCall(opened(), expiring()), FakeCall(opened(compacted_through=3), LOST)

    async def renew():
        return True

    first.renew = renew
    attach, listener = attachment(first, second)
    running = asyncio.create_task(attach.run())
    await asyncio.wait_for(_until(lambda: any(call[0] == "on_resumed" for call in listener.calls)), 5)
    running.cancel()


async def test_a_failed_renewal_is_a_lost_stream():
    first, second = FakeCall(opened(), expiring()), FakeCall(LOST)
    third = FakeCall(opened(), event(1, ended=pb.SessionEnded()))

    async def renew():
        return True

    first.renew = renew
    attach, listener = attachment(first, second, third)
    assert await asyncio.wait_for(attach.run(), 5) is None
    assert [call[0] for call in listener.calls].count("on_resumed") == 1


async def test_the_end_of_a_key_that_cannot_be_replaced_is_reported():
    attach, listener = attachment(FakeCall(opened(), expiring(), event(1, ended=pb.SessionEnded())))
    assert await attach.run() is None
    assert [call[0] for call in listener.calls].count("on_go_away") == 1


async def _until(predicate):
    while not predicate():
        await asyncio.sleep(0)
