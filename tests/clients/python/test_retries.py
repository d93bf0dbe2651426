"""Calls that fail on the way: what is repeated, how often, and when that ends."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import grpc
import pytest
from clients.python.scripted import (
    HANDLE,
    SESSION_ID,
    AttachPeer,
    AudioPeer,
    WatchPeer,
    fluent,
    scripted,
    status,
    watchful,
    well_behaved,
)
from grpc_status import rpc_status

from liveavatar.gateway import (
    AsyncClient,
    ConnectionLost,
    GatewayError,
    RegistryUnavailable,
    SessionNotFound,
    UpstreamUnreachable,
    WatchResumed,
)
from liveavatar.gateway.runtime import CALL_ROUNDS
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb
from testkit.speech import sound
from testkit.tcp import tcp_server

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CREATED = pb.CreateSessionResponse(session=session_pb2.Session(id=SESSION_ID), handle=HANDLE)
ENDED = pb.EndSessionResponse(session=session_pb2.Session(id=SESSION_ID, state=session_pb2.SESSION_STATE_ENDED))
BROKEN = [
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
]
"""Statuses of proxies and of gRPC for a broken connection."""
FINAL = [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED]


class Calls:
    """A unary call that fails as it is told, then succeeds; keeps what it was asked and when."""

    def __init__(self, answer, *failures):
        self.requests = []
        self.times_s = []
        self._answer = answer
        self._failures = list(failures)

    async def __call__(self, request, context):
        self.requests.append(request)
        self.times_s.append(asyncio.get_running_loop().time())
        if self._failures:
            failure = self._failures.pop(0)
            if isinstance(failure, grpc.StatusCode):
                await context.abort(failure, "Received RST_STREAM with error code 11")
            await context.abort_with_status(rpc_status.to_status(failure))
        return self._answer


async def test_one_start_for_one_call():
    """LiveAvatar's trouble is the gateway's to retry: each start is paid for."""
    refusal = status("UPSTREAM_UNREACHABLE", UNAVAILABLE, retry_s=0.1)
    calls = Calls(CREATED, refusal, refusal)
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["CreateSession"] = calls
        with pytest.raises(UpstreamUnreachable):
            await client.create_session("avatar")
    assert len(calls.requests) == 1


async def test_a_start_whose_answer_was_lost_is_asked_for_again_with_the_same_id():
    calls = Calls(CREATED, *[UNAVAILABLE] * (CALL_ROUNDS - 1))
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["CreateSession"] = calls
        assert (await client.create_session("avatar")).handle == HANDLE
    assert len(calls.requests) == CALL_ROUNDS
    (request_id,) = {request.request_id for request in calls.requests}
    assert uuid.UUID(request_id).version == 4


async def test_a_call_is_repeated_so_often_and_not_more():
    calls = Calls(CREATED, *[UNAVAILABLE] * 20)
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["CreateSession"] = calls
        with pytest.raises(ConnectionLost):
            await client.create_session("avatar")
    assert len(calls.requests) == CALL_ROUNDS


async def test_a_gateway_that_says_when_to_come_back_is_left_alone_until_then():
    refusal = status("REGISTRY_UNAVAILABLE", UNAVAILABLE, retry_s=0.6)
    calls = Calls(CREATED, refusal)
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["CreateSession"] = calls
        await client.create_session("avatar")
    first_s, second_s = calls.times_s
    assert second_s - first_s >= 0.6


async def test_waiting_longer_than_the_caller_does_is_not_begun():
    refusal = status("REGISTRY_UNAVAILABLE", UNAVAILABLE, retry_s=90)
    calls = Calls(CREATED, refusal)
    async with scripted() as gateway, AsyncClient(gateway.address, timeout=30) as client:
        gateway.unary["GetServerInfo"] = calls
        with pytest.raises(RegistryUnavailable) as raised:
            await client.server_info()
    assert raised.value.retry_after == 90
    assert len(calls.requests) == 1


@pytest.mark.parametrize("code", BROKEN)
async def test_a_call_survives_what_the_transport_makes_of_it(code):
    calls = Calls(pb.GetServerInfoResponse(version="1"), code)
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["GetServerInfo"] = calls
        assert (await client.server_info()).version == "1"


@pytest.mark.parametrize("code", FINAL)
async def test_a_call_that_waiting_does_not_help_fails_at_once(code):
    calls = Calls(pb.GetServerInfoResponse(version="1"), code)
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["GetServerInfo"] = calls
        with pytest.raises(GatewayError) as raised:
            await client.server_info()
    assert raised.value.code is code
    assert len(calls.requests) == 1


@pytest.mark.parametrize("code", BROKEN)
async def test_every_stream_survives_what_the_transport_makes_of_it(code):
    """The session's events and commands, its speech, and a watch."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.expect("command")
        await peer.context.abort(code, "Received RST_STREAM with error code 11")

    async def mute(peer: AudioPeer) -> None:
        await peer.ready()
        await peer.expect("begin")
        await peer.context.abort(code, "stream timeout")

    async def blind(peer: WatchPeer) -> None:
        await peer.asked()
        await peer.progress()
        await peer.context.abort(code, "stream timeout")

    async with (
        scripted([breaks, well_behaved], [mute, fluent], watches=[blind, watchful]) as gateway,
        AsyncClient(gateway.address) as client,
    ):
        async with client.watch() as changes:
            async for change in changes:
                if isinstance(change, WatchResumed):
                    break
        async with client.open_session("avatar") as session:
            await session.start_listening()
            assert (await session.say(sound(0.2))).kind == "played"
        assert (gateway.attach_count, gateway.audio_count) == (2, 2)


@pytest.mark.parametrize("code", FINAL)
async def test_a_stream_that_waiting_does_not_help_is_given_up_at_once(code):
    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.context.abort(code, "no")

    async with scripted([breaks]) as gateway, AsyncClient(gateway.address, resume_timeout=60) as client:
        async with client.open_session("avatar") as session:
            with pytest.raises(GatewayError) as raised:
                await session.start_listening()
            assert raised.value.code is code
        assert gateway.attach_count == 1


PREFACE, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 24, 1, 3, 4, 7
HTTP_500, HTTP_503 = b"\x8e", b"\x08\x03503"
"""`:status`, by HPACK's static table (RFC 7541, appendix A)."""


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


@contextlib.asynccontextmanager
async def proxy(answer: str) -> AsyncIterator[str]:
    """Something that speaks HTTP/2 and answers each request in one way."""
    answers = {
        "reset": lambda number: frame(RST_STREAM, 0, number, (11).to_bytes(4, "big")),
        "refused": lambda number: frame(RST_STREAM, 0, number, (7).to_bytes(4, "big")),
        "500": lambda number: frame(HEADERS, 0x5, number, HTTP_500),
        "503": lambda number: frame(HEADERS, 0x5, number, HTTP_503),
        "goaway": lambda number: frame(GOAWAY, 0, 0, bytes(4) + (2).to_bytes(4, "big")),
    }

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(PREFACE)
        writer.write(frame(SETTINGS, 0, 0, b""))
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            kind, number = head[3], int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            if kind == SETTINGS and not head[4]:
                writer.write(frame(SETTINGS, 1, 0, b""))
            if kind == HEADERS:
                writer.write(answers[answer](number))
            await writer.drain()

    async with tcp_server(serve) as address:
        yield address


@pytest.mark.parametrize("answer", ["reset", "refused", "500", "503", "goaway"])
async def test_a_proxy_on_the_way_to_a_second_address_costs_a_try_and_not_the_session(answer):
    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.break_off()

    async def refuses(peer: AttachPeer) -> None:
        await peer.break_off()

    async with (
        proxy(answer) as between,
        scripted([breaks, refuses, well_behaved]) as gateway,
        AsyncClient([gateway.address, between]) as client,
        client.open_session("avatar") as session,
    ):
        await session.start_listening()
        assert gateway.attach_count == 3


async def opens(peer: AttachPeer) -> None:
    await peer.opened(grace_s=300)
    await peer.break_off()


async def refuses(peer: AttachPeer) -> None:
    await peer.read()
    await peer.break_off()


async def lost(session) -> None:
    """Wait until the session is given up."""
    with pytest.raises(ConnectionLost):
        async for _ in session.events():
            pass


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, UNAVAILABLE])
async def test_a_session_that_was_given_up_is_ended_when_its_gateway_is_back(code):
    calls = Calls(ENDED, *[code] * 3)
    async with (
        scripted([opens, refuses]) as gateway,
        AsyncClient(gateway.address, resume_timeout=2) as client,
    ):
        gateway.unary["EndSession"] = calls
        async with client.open_session("avatar") as session:
            await lost(session)
    assert [request.session_id for request in calls.requests] == [SESSION_ID] * 4


async def test_a_session_that_is_being_adopted_is_ended_by_whoever_adopts_it():
    unknown = status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, session_id=SESSION_ID)
    calls = Calls(ENDED, unknown, unknown)
    async with (
        scripted([opens, refuses]) as gateway,
        AsyncClient(gateway.address, resume_timeout=1) as client,
    ):
        gateway.unary["EndSession"] = calls
        async with client.open_session("avatar") as session:
            await lost(session)
    assert len(calls.requests) == 3


async def test_ending_is_given_up_when_its_time_is_over_and_not_begun_anew():
    calls = Calls(ENDED, *[UNAVAILABLE] * 100)
    async with (
        scripted([opens, refuses]) as gateway,
        AsyncClient(gateway.address, resume_timeout=2) as client,
    ):
        gateway.unary["EndSession"] = calls
        session = await client.open_session("avatar").open()
        await lost(session)
        with pytest.raises(ConnectionLost):
            await session.end()
        count = len(calls.requests)
        assert count > 1
        with pytest.raises(ConnectionLost):
            await session.__aexit__(None, None, None)
        assert len(calls.requests) == count + 1


async def test_a_session_that_nobody_knows_any_more_needs_no_end():
    unknown = status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, session_id=SESSION_ID)
    calls = Calls(ENDED, *[unknown] * 100)
    async with (
        scripted([opens, refuses]) as gateway,
        AsyncClient(gateway.address, resume_timeout=0.3) as client,
    ):
        gateway.unary["EndSession"] = calls
        async with client.open_session("avatar") as session:
            await lost(session)
            with pytest.raises(SessionNotFound):
                await session.end()
