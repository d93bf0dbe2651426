"""However a session ends, its final record says why, and what it used is what LiveAvatar saw."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import admin_service_pb2, audio_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.admin_service_pb2_grpc import AdminServiceStub
from testkit import processes, speech
from testkit.caller import Attachment, Caller
from testkit.caller import caller as connect

WORD, CUT = speech.sound(0.5, seed=1), speech.sound(6.0, seed=2)


class Scene:
    """A session that has spoken, and everybody who can end it."""

    def __init__(self, caller: Caller, gateway: processes.Gateway, emulator: processes.Emulator) -> None:
        self.caller = caller
        self.gateway = gateway
        self.emulator = emulator
        self.attachment: Attachment

    async def speak(self, limit_s: int = 60) -> None:
        """Speak one utterance to its end, and interrupt a second one, in a session of limited length."""
        limit = duration_pb2.Duration(seconds=limit_s)
        self.attachment = await self.caller.attach(max_duration=limit, detach_grace=duration_pb2.Duration(nanos=1))
        await self.attachment.until_ready()
        stream = await self.caller.speak(self.attachment.session_id)
        await stream.say(WORD, "word")
        await stream.until("ended")
        await stream.say(CUT, "cut")
        await stream.until("started")
        request = sessions.InterruptSessionRequest(session_id=self.attachment.session_id)
        answer = await self.caller.sessions.InterruptSession(request, timeout=10)
        assert [one.utterance_id for one in answer.result.interrupted] == ["cut"]
        await stream.call.done_writing()
        while (await stream.call.read()) is not grpc.aio.EOF:
            pass

    async def ended(self) -> session_pb2.Session:
        """Return the final record."""
        while (
            session := await self.caller.get(self.attachment.session_id)
        ).state != session_pb2.SESSION_STATE_ENDED:
            await asyncio.sleep(0.05)
        return session


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, admin_port=0, reconnect_budget_s=1, drain_grace_s=5) as gateway,
    ):
        async with connect(gateway.address) as caller:
            yield Scene(caller, gateway, emulator)


async def _by_call(scene: Scene) -> None:
    await scene.caller.end(scene.attachment.session_id)


async def _by_command(scene: Scene) -> None:
    await scene.attachment.command("bye", end=sessions.End())


async def _by_leaving(scene: Scene) -> None:
    await scene.attachment.call.done_writing()


async def _by_time(scene: Scene) -> None:
    await scene.attachment.event("ended")


async def _by_an_operator(scene: Scene) -> None:
    async with grpc.aio.insecure_channel(scene.gateway.admin_address) as channel:
        request = admin_service_pb2.EjectSessionRequest(session_id=scene.attachment.session_id)
        await AdminServiceStub(channel).EjectSession(request, timeout=10)


async def _by_a_lost_socket(scene: Scene) -> None:
    scene.emulator.socket_fault("refuse_sockets", scene.attachment.upstream_id, how="reset")
    scene.emulator.drop(scene.attachment.upstream_id, 1011)


def _by_liveavatar(word: str, *, says_why: bool = True) -> Callable[[Scene], Awaitable[None]]:
    async def way(scene: Scene) -> None:
        scene.emulator.change_settings(session_stopped_event=says_why)
        scene.emulator.end(scene.attachment.upstream_id, word)

    return way


WAYS = {
    "a call": (_by_call, "CALLER_ENDED", "USER_CLOSED"),
    "a command": (_by_command, "CALLER_ENDED", "USER_CLOSED"),
    "nobody holds it": (_by_leaving, "CALLER_LOST", "USER_CLOSED"),
    "its limit": (_by_time, "MAX_DURATION", "MAX_DURATION_REACHED"),
    "an operator": (_by_an_operator, "OPERATOR", "USER_CLOSED"),
    "a socket that stays away": (_by_a_lost_socket, "UPSTREAM_FAILED", "USER_CLOSED"),
    "idleness": (_by_liveavatar("IDLE_TIMEOUT"), "IDLE", "IDLE_TIMEOUT"),
    "credits": (_by_liveavatar("NO_CREDITS"), "OUT_OF_CREDITS", "NO_CREDITS"),
    "credits, without a word": (_by_liveavatar("NO_CREDITS", says_why=False), "OUT_OF_CREDITS", "NO_CREDITS"),
    "the avatar's deletion": (_by_liveavatar("AVATAR_DELETED"), "UPSTREAM_ENDED", "AVATAR_DELETED"),
    "the same, without a word": (
        _by_liveavatar("AVATAR_DELETED", says_why=False),
        "UPSTREAM_ENDED",
        "AVATAR_DELETED",
    ),
}


@pytest.mark.parametrize("by", WAYS)
async def test_the_final_record_says_why_it_ended_and_what_it_used(scene, by):
    way, reason, upstream_word = WAYS[by]
    await scene.speak(limit_s=8 if way is _by_time else 60)
    await way(scene)
    session = await scene.ended()
    assert session_pb2.EndReason.Name(session.end_reason) == f"END_REASON_{reason}"
    upstream = scene.emulator.session(scene.attachment.upstream_id)
    assert upstream["end_reason"] == upstream_word
    ended_by_us = upstream_word == "USER_CLOSED"
    assert session.upstream_reason == ("" if ended_by_us else upstream_word)
    _check_usage(session, scene.emulator, upstream)


def _check_usage(session: session_pb2.Session, emulator: processes.Emulator, upstream: dict) -> None:
    usage = session.usage
    assert (usage.utterance_count, usage.interruption_count, usage.reconnect_count) == (2, 1, 0)
    assert usage.received_bytes == len(WORD) + len(CUT)
    assert usage.upstream_bytes == len(emulator.audio(session.upstream_session_id))
    assert usage.upstream_bytes + usage.dropped_bytes == usage.received_bytes
    played_s = sum(one["played_bytes"] for one in upstream["utterances"]) / 48_000
    packet_s = 1.0
    assert abs(usage.played_duration.ToTimedelta().total_seconds() - played_s) < packet_s
    lived_s = (session.ended_at.ToDatetime() - session.created_at.ToDatetime()).total_seconds()
    assert played_s < usage.billed_duration.ToTimedelta().total_seconds() <= lived_s


async def test_a_session_that_could_not_be_created_says_so_and_costs_nothing(scene):
    scene.emulator.fault("start", status=403, code=4033)
    with pytest.raises(grpc.aio.AioRpcError):
        await scene.caller.create("refused")
    found = await scene.caller.sessions.ListSessions(sessions.ListSessionsRequest(), timeout=10)
    (session,) = found.sessions
    assert session.end_reason == session_pb2.END_REASON_CREATE_FAILED
    assert session.usage == session_pb2.Usage(
        billed_duration=duration_pb2.Duration(), played_duration=duration_pb2.Duration()
    )


async def test_a_gateway_that_shuts_down_says_so(scene):
    await scene.speak()
    stream = await scene.caller.speak(scene.attachment.session_id)
    await stream.say(speech.sound(20.0), "too long")
    await stream.until("started")
    scene.gateway.process.send(signal.SIGTERM)
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    last = await scene.attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_DRAINED
    assert scene.emulator.session(scene.attachment.upstream_id)["end_reason"] == "USER_CLOSED"
