"""A session is with another process of the gateway: calls and streams go there, by the word of the one asked."""

import asyncio
import contextlib

import grpc
import pytest
from clients.python.scripted import HANDLE, SESSION_ID, AttachPeer, Peer, scripted, status
from grpc_status import rpc_status

from liveavatar.gateway import (
    AsyncClient,
    Client,
    ConnectionLost,
    OwnerMoved,
    ResumedEvent,
    SessionAdoptedEvent,
)
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb
from testkit import processes
from testkit.caller import AVATAR
from testkit.speech import sound


@pytest.fixture
def registry(tmp_path):
    return str(tmp_path / "registry.db")


@pytest.fixture
def two(emulator, registry):
    """Two processes of a gateway; each knows of the other's sessions."""
    with (
        processes.gateway(emulator.url, registry_file=registry) as first,
        processes.gateway(emulator.url, registry_file=registry) as second,
    ):
        yield first, second


def refusing(refusal):
    async def refuse(request, context):
        await context.abort_with_status(rpc_status.to_status(refusal))

    return refuse


def moved_to(address: str):
    return status("OWNER_MOVED", grpc.StatusCode.ABORTED, session_id=SESSION_ID, address=address)


async def breaking(request, context):
    await context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")


DRAINING = status("DRAINING", grpc.StatusCode.UNAVAILABLE)


async def test_calls_at_any_process_reach_the_one_that_has_the_session(two):
    first, second = two
    async with AsyncClient(first.address) as owner, AsyncClient(second.address) as other:
        async with owner.open_session(AVATAR) as session:
            utterance = session.say(sound(20))
            await utterance.started()
            assert (await other.get_session(session.id)).pose == "talking"
            interruption = await other.interrupt_session(session.id)
            assert [cut.utterance_id for cut in interruption.interrupted] == [utterance.id]
            assert (await utterance).kind == "interrupted"
            assert (await other.end_session(session.id)).usage.interruption_count == 1
        assert (await owner.get_session(session.id)).end_reason == "caller_ended"


def test_the_blocking_client_finds_it_too(two):
    first, second = two
    with Client(first.address) as owner, Client(second.address) as other:
        created = owner.create_session(AVATAR)
        assert other.get_session(created.session.id).state == "ready"
        assert other.interrupt_session(created.session.id).interrupted == ()
        assert other.end_session(created.session.id).end_reason == "caller_ended"


async def test_a_session_is_taken_over_and_spoken_in_where_it_is(two, emulator):
    first, second = two
    async with AsyncClient(first.address) as owner, AsyncClient(second.address) as other:
        created = await owner.create_session(AVATAR)
        async with other.resume_session(created.handle) as session:
            assert (await session.say(sound(0.5))).kind == "played"
            assert emulator.audio(session.record.upstream_session_id) == sound(0.5)
        assert (await owner.get_session(created.session.id)).end_reason == "caller_ended"


@pytest.mark.timeout(120)
async def test_a_session_that_another_process_adopted_is_found_by_way_of_the_one_it_was_at(
    emulator, registry, two
):
    """The client knows one address; that process was killed, and its heir there names the one that adopted."""
    first, second = two
    port = int(first.address.rpartition(":")[2])
    async with AsyncClient(first.address) as client, AsyncClient(second.address) as other:
        async with client.open_session(AVATAR) as session:
            await session.ready()
            utterance = session.say(sound(8))
            await utterance.started()
            first.process.kill()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(OwnerMoved, ConnectionLost):
                        await other.get_session(session.id)
                        break
                    await asyncio.sleep(0.2)
            with processes.gateway(emulator.url, port=port, registry_file=registry):
                assert (await utterance).kind == "played"
                await session.start_listening()
                await session.end()
            events = [event async for event in session.events()]
        assert {event.target for event in events if isinstance(event, ResumedEvent)} == {second.address}
        assert any(isinstance(event, SessionAdoptedEvent) for event in events)


@pytest.mark.parametrize("refusal", [DRAINING, moved_to("")])
async def test_a_call_that_must_not_arrive_twice_is_made_elsewhere_when_it_was_refused(refusal):
    """Refused is not lost: nothing was cut by it."""

    async def cut(request, context):
        return pb.InterruptSessionResponse()

    async with scripted() as first, scripted() as second:
        first.unary["InterruptSession"] = refusing(refusal)
        second.unary["InterruptSession"] = cut
        async with AsyncClient([first.address, second.address]) as client:
            await client.interrupt_session(SESSION_ID)
            second.unary["InterruptSession"] = breaking
            with pytest.raises(ConnectionLost):
                await client.interrupt_session(SESSION_ID)


async def test_a_named_process_that_is_gone_is_no_reason_not_to_ask_the_others():
    async def found(request, context):
        return pb.GetSessionResponse(session=session_pb2.Session(id=request.session_id))

    async with scripted() as first, scripted() as second:
        first.unary["GetSession"] = refusing(moved_to("127.0.0.1:1"))
        second.unary["GetSession"] = found
        async with AsyncClient([first.address, second.address]) as client:
            assert (await client.get_session(SESSION_ID)).id == SESSION_ID


async def test_where_one_session_is_says_nothing_of_where_new_ones_are_begun():
    async def found(request, context):
        return pb.GetSessionResponse(session=session_pb2.Session(id=request.session_id))

    async with scripted() as first, scripted() as second:
        first.unary["GetSession"] = refusing(moved_to(""))
        second.unary["GetSession"] = found
        async with AsyncClient([first.address, second.address]) as client:
            assert (await client.get_session(SESSION_ID)).id == SESSION_ID
            async with client.open_session("avatar"):
                assert (first.attach_count, second.attach_count) == (1, 0)


async def test_the_word_of_a_process_is_taken_once():
    asked = []

    def points(gateway, to):
        async def refuse(request, context):
            asked.append(gateway.address)
            await context.abort_with_status(rpc_status.to_status(moved_to(to)))

        return refuse

    async with scripted() as first, scripted() as second:
        first.unary["GetSession"] = points(first, second.address)
        second.unary["GetSession"] = points(second, first.address)
        async with AsyncClient(first.address) as client:
            with pytest.raises(OwnerMoved) as raised:
                await client.get_session(SESSION_ID)
            assert raised.value.address == second.address
            assert asked == [first.address, second.address]


async def test_all_targets_of_a_call_share_its_time():
    async def hangs(request, context):
        await asyncio.sleep(60)

    async with scripted() as first, scripted() as second:
        first.unary["EndSession"] = refusing(moved_to(second.address))
        second.unary["EndSession"] = hangs
        async with AsyncClient([first.address, second.address], timeout=2.0) as client:
            # What is still to be done there says more than that the time is over.
            with pytest.raises(OwnerMoved):
                await client.end_session(SESSION_ID)


async def test_streams_go_where_the_session_is_and_come_back_when_it_is_not_there():
    """A process that was named and is gone costs a try, not the session."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.break_off()

    async def gone(peer: Peer) -> None:
        await peer.read()
        await peer.refuse(moved_to("127.0.0.1:1"))

    async def here(peer: Peer) -> None:
        await peer.read()
        await peer.refuse(moved_to(other.address))

    async def takes(peer: AttachPeer) -> None:
        assert (await peer.opened()).resume.handle == HANDLE
        await peer.until_end()

    async with (
        scripted([takes]) as other,
        scripted([breaks, gone, gone, here]) as gateway,
        AsyncClient(gateway.address) as client,
        client.open_session("avatar") as session,
    ):
        async for event in session.events():
            if isinstance(event, ResumedEvent):
                break
        assert event.target == other.address
        assert (await session.say(bytes(960))).kind == "played"
        assert (gateway.audio_count, other.audio_count) == (0, 1)
