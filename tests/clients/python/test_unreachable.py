"""Targets that cannot be reached: every call ends with an error of its own class, in bounded time."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from clients.python.scripted import AttachPeer, scripted

from liveavatar.gateway import (
    AsyncClient,
    Client,
    ConnectionLost,
    DeadlineExceeded,
    ResumedEvent,
    TransportError,
    WatchRemoved,
)
from liveavatar.gateway.attach import RESUME_ANSWER_S
from testkit.caller import AVATAR
from testkit.speech import sound

BOUND_S = 45
"""Far above what any of these takes; what hangs is found all the same."""

pytestmark = pytest.mark.timeout(90)


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(params=["black hole", "refused", "no such name", "no name"])
def nowhere(request) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        match request.param:
            case "black hole":
                yield stack.enter_context(black_hole())
            case "refused":
                yield "127.0.0.1:1"
            case "no such name":
                yield "gateway.invalid:50051"
            case "no name":
                yield f"{'x' * 70}:50051"


@pytest.mark.parametrize("call", ["create", "get", "list", "end", "interrupt", "info", "open", "resume", "watch"])
async def test_each_call_ends_with_its_class_also_without_a_timeout(nowhere, call):
    async with asyncio.timeout(BOUND_S), AsyncClient(nowhere, timeout=None) as client:
        calls = {
            "create": lambda: client.create_session(AVATAR, timeout=None),
            "get": lambda: client.get_session("s"),
            "list": lambda: anext(client.list_sessions()),
            "end": lambda: client.end_session("s"),
            "interrupt": lambda: client.interrupt_session("s"),
            "info": client.server_info,
            "open": lambda: client.open_session(AVATAR, timeout=None).open(),
            "resume": lambda: client.resume_session("handle", timeout=None).open(),
            "watch": lambda: client.watch(timeout=None).open(),
        }
        with pytest.raises(ConnectionLost) as raised:
            await calls[call]()
        assert raised.value.reason == ""
        assert nowhere in raised.value.message


async def test_a_timeout_is_kept_where_nobody_answers():
    with black_hole() as nowhere:
        async with asyncio.timeout(BOUND_S), AsyncClient(nowhere, timeout=0.3) as client:
            with pytest.raises(DeadlineExceeded):
                await client.get_session("s")
            with pytest.raises(DeadlineExceeded):
                await client.open_session(AVATAR, timeout=0.3).open()
            with pytest.raises(DeadlineExceeded):
                await client.watch(timeout=0.3).open()


def test_the_blocking_client_does_not_hang_either(nowhere):
    with Client(nowhere) as client:
        with pytest.raises(TransportError):
            client.server_info()
        with pytest.raises(TransportError), client.open_session(AVATAR):
            pass
        with pytest.raises(TransportError), client.watch():
            pass


async def test_one_of_two_targets_is_enough(nowhere, emulator, shared_gateway):
    """For calls, for sessions and for watching; what is said is spoken."""
    async with asyncio.timeout(BOUND_S), AsyncClient([nowhere, shared_gateway.address]) as client:
        async with client.watch("nobody") as changes:
            told = [change async for change in changes if isinstance(change, WatchRemoved)]
            assert [change.session_id for change in told] == ["nobody"]
        async with client.open_session(AVATAR) as session:
            assert (await session.say(sound(0.3))).kind == "played"
            assert (await client.get_session(session.id)).id == session.id


async def test_a_session_is_resumed_past_a_target_that_never_answers():
    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.break_off()

    async def refuses(peer: AttachPeer) -> None:
        await peer.break_off()

    async def goes_on(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.until_end()

    with black_hole() as nowhere:
        async with (
            asyncio.timeout(BOUND_S),
            scripted([breaks, refuses, goes_on]) as gateway,
            AsyncClient([gateway.address, nowhere], resume_timeout=40) as client,
            client.open_session("avatar") as session,
        ):
            async for event in session.events():
                if isinstance(event, ResumedEvent):
                    break
            assert event.target == gateway.address
            assert event.attempt_count == 3


async def test_a_session_whose_gateway_became_a_black_hole_is_given_up_when_its_time_is_over():
    async def breaks(peer: AttachPeer) -> None:
        await peer.opened(grace_s=3)
        await peer.break_off()

    async def says_nothing(peer: AttachPeer) -> None:
        await peer.read()
        await asyncio.sleep(60)

    async with (
        asyncio.timeout(BOUND_S),
        scripted([breaks, says_nothing]) as gateway,
        AsyncClient(gateway.address, timeout=2.0) as client,
    ):
        session = await client.open_session("avatar").open()
        begun_s = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionLost, match="within 3 s"):
            async for _ in session.events():
                pass
        assert asyncio.get_running_loop().time() - begun_s < RESUME_ANSWER_S
