"""Sessions with a hosted agent: four kinds, opened and ended; calls that need a socket are refused by name."""

import asyncio
import contextlib
import signal

import grpc
import pytest

from liveavatar.gateway import (
    AgentHosted,
    AsyncClient,
    CartesiaAgent,
    ElevenLabsAgent,
    EndReason,
    GeminiRealtime,
    OpenAIRealtime,
    SessionEndedEvent,
)
from liveavatar.gateway.v1 import connector_pb2, session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit import processes
from testkit.caller import AVATAR, make_spec, refused
from testkit.caller import caller as connect

SECRET = "7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22"
CONTEXT = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
KEY = "sk-canary-of-a-providers-key"
NAME = "Canary of a user's name"

VARIABLES = {
    "name": connector_pb2.DynamicVariable(text=NAME),
    "visits": connector_pb2.DynamicVariable(number=3),
    "score": connector_pb2.DynamicVariable(number=0.5),
    "known": connector_pb2.DynamicVariable(flag=True),
}
ELEVENLABS = {
    "elevenlabs_agent": connector_pb2.ElevenLabsAgent(
        secret_id=SECRET, agent_id="agent-7", voice_id="voice-7", dynamic_variables=VARIABLES
    )
}
OPENAI = {
    "openai_realtime": connector_pb2.OpenAIRealtime(
        secret_id=SECRET, context_id=CONTEXT, voice="marin", temperature=1.0, model="gpt-realtime-mini"
    )
}
GEMINI = {"gemini_realtime": connector_pb2.GeminiRealtime(secret_id=SECRET, temperature=0.0)}
CARTESIA = {"cartesia_agent": connector_pb2.CartesiaAgent(secret_id=SECRET, agent_id="agent-7")}

KINDS = {
    "elevenlabs_agent_config": (
        ELEVENLABS,
        {
            "secret_id": SECRET,
            "agent_id": "agent-7",
            "voice_id": "voice-7",
            "dynamic_variables": {"name": NAME, "visits": 3, "score": 0.5, "known": True},
        },
    ),
    "openai_realtime_config": (
        OPENAI,
        {
            "secret_id": SECRET,
            "context_id": CONTEXT,
            "voice": "marin",
            "temperature": 1.0,
            "model": "gpt-realtime-mini",
        },
    ),
    "gemini_realtime_config": (
        GEMINI,
        {
            "secret_id": SECRET,
            "context_id": None,
            "voice": "Puck",
            "temperature": 0.0,
            "model": "gemini-3.1-flash-live-preview",
        },
    ),
    "cartesia_agent_config": (CARTESIA, {"secret_id": SECRET, "agent_id": "agent-7"}),
}


def changed(connector: dict, **changes) -> dict:
    """Return a connector with other fields."""
    ((name, message),) = connector.items()
    other = type(message)()
    other.CopyFrom(message)
    for field, value in changes.items():
        setattr(other, field, value)
    return {name: other}


def with_variables(**variables: connector_pb2.DynamicVariable) -> dict:
    agent = connector_pb2.ElevenLabsAgent(secret_id=SECRET, agent_id="agent-7", dynamic_variables=variables)
    return {"elevenlabs_agent": agent}


def text(value: str) -> connector_pb2.DynamicVariable:
    return connector_pb2.DynamicVariable(text=value)


def number(value: float) -> connector_pb2.DynamicVariable:
    return connector_pb2.DynamicVariable(number=value)


WRONG = {
    "a key in place of a secret": (changed(ELEVENLABS, secret_id=KEY), "elevenlabs_agent.secret_id"),
    "no secret": (changed(OPENAI, secret_id=""), "openai_realtime.secret_id"),
    "a secret that is no UUID": (changed(GEMINI, secret_id="secret-7"), "gemini_realtime.secret_id"),
    "a key of Cartesia": (changed(CARTESIA, secret_id=KEY), "cartesia_agent.secret_id"),
    "no agent": (changed(ELEVENLABS, agent_id=""), "elevenlabs_agent.agent_id"),
    "no agent of Cartesia": (changed(CARTESIA, agent_id=""), "cartesia_agent.agent_id"),
    "long agent": (changed(ELEVENLABS, agent_id="x" * 129), "elevenlabs_agent.agent_id"),
    "unprintable voice id": (changed(ELEVENLABS, voice_id="\u202ev"), "elevenlabs_agent.voice_id"),
    "cool": (changed(OPENAI, temperature=0.59), "openai_realtime.temperature"),
    "hot": (changed(OPENAI, temperature=1.21), "openai_realtime.temperature"),
    "below zero": (changed(GEMINI, temperature=-0.1), "gemini_realtime.temperature"),
    "boiling": (changed(GEMINI, temperature=2.1), "gemini_realtime.temperature"),
    "no temperature": (changed(GEMINI, temperature=float("nan")), "gemini_realtime.temperature"),
    "context that is no UUID": (changed(OPENAI, context_id="mine"), "openai_realtime.context_id"),
    "long voice": (changed(GEMINI, voice="x" * 65), "gemini_realtime.voice"),
    "long model": (changed(OPENAI, model="x" * 129), "openai_realtime.model"),
    "33 variables": (
        with_variables(**{f"v{n}": text("x") for n in range(33)}),
        "elevenlabs_agent.dynamic_variables",
    ),
    "variable without a name": (with_variables(**{"": text("x")}), "elevenlabs_agent.dynamic_variables"),
    "long name": (with_variables(**{"n" * 65: text("x")}), "elevenlabs_agent.dynamic_variables"),
    "long text": (with_variables(name=text("x" * 1001)), "elevenlabs_agent.dynamic_variables"),
    "infinite number": (with_variables(visits=number(float("inf"))), "elevenlabs_agent.dynamic_variables"),
    "variable without a value": (
        with_variables(name=connector_pb2.DynamicVariable()),
        "elevenlabs_agent.dynamic_variables",
    ),
    "room of the caller": (
        {**OPENAI, "livekit_room": session_pb2.LiveKitRoom(name="desk-7")},
        "openai_realtime",
    ),
    "channel of Agora": (
        {**CARTESIA, "agora_room": session_pb2.AgoraRoom(app_id="a", token="t", channel="c", uid="7")},
        "cartesia_agent",
    ),
    "agent of the caller": ({**GEMINI, "agent_seat": session_pb2.AGENT_SEAT_CALLER}, "agent_seat"),
    "rotation": ({**ELEVENLABS, "auto_rotate": True}, "auto_rotate"),
}
LIVEKIT = {
    "livekit_url": "wss://rooms.example.com",
    "livekit_key": "APIkey",
    "livekit_secret": "a secret of at least thirty-two bytes",
}


async def test_every_wrong_field_is_named_before_liveavatar_is_called():
    with processes.emulator() as emulator, processes.gateway(emulator.url, **LIVEKIT) as gateway:
        before = emulator.state()
        async with connect(gateway.address) as caller:
            for name, (fields, field) in WRONG.items():
                created = await refused(caller.create(**fields))
                assert (created.reason, created.field) == ("INVALID_FIELD", f"spec.{field}"), name
                attached = await refused(caller.attach(**fields))
                assert (attached.reason, attached.field) == ("INVALID_FIELD", f"open.spec.{field}"), name
                assert KEY not in created.message + created.details + attached.message + attached.details
        after = emulator.state()
        assert (after["sessions"], after["refusals"]) == (before["sessions"], before["refusals"])
        assert KEY not in gateway.process.log


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_of_each_kind_is_opened_and_refuses_what_the_agent_does(emulator, caller, kind):
    fields, config = KINDS[kind]
    attachment = await caller.attach(**fields)
    await attachment.until_ready()
    recording = emulator.session(attachment.upstream_id)
    assert (recording["connector"], recording["connector_config"]) == (kind, config)
    assert recording["sockets"] == []
    assert attachment.opened.room.url
    assert attachment.opened.room.viewer_token
    assert attachment.opened.room.agent_token == ""
    session_id = attachment.session_id
    seen = await caller.get(session_id)
    assert (seen.state, seen.pose) == (session_pb2.SESSION_STATE_READY, session_pb2.POSE_UNSPECIFIED)

    commands = {
        "interrupt": {"interrupt": p.Interrupt()},
        "pause": {"pause": p.Pause()},
        "continue_speech": {"continue_speech": p.ContinueSpeech()},
        "start_listening": {"start_listening": p.StartListening()},
        "stop_listening": {"stop_listening": p.StopListening()},
    }
    for call, command in commands.items():
        result = await attachment.command(call, **command)
        assert result.status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0], call
        assert "AGENT_HOSTED" in str(result.status), call
    stub = caller.sessions
    for call, refusal in {
        "interrupt": refused(stub.InterruptSession(p.InterruptSessionRequest(session_id=session_id), timeout=10)),
        "pause": refused(stub.PauseSession(p.PauseSessionRequest(session_id=session_id), timeout=10)),
        "continue_speech": refused(
            stub.ContinueSession(p.ContinueSessionRequest(session_id=session_id), timeout=10)
        ),
        "StreamAudio": refused(caller.speak(session_id)),
        "ListenAudio": refused(caller.listen(session_id)),
    }.items():
        why = await refusal
        assert (why.reason, why.metadata["call"]) == ("AGENT_HOSTED", call)
        assert why.code is grpc.StatusCode.FAILED_PRECONDITION
        assert why.has("PreconditionFailure")

    result = await attachment.command("end", end=p.End())
    assert result.status.code == 0
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_CALLER_ENDED
    assert await attachment.closed() is grpc.StatusCode.OK
    assert emulator.session(attachment.upstream_id)["end_reason"] == "USER_CLOSED"


async def test_a_silent_session_is_kept_alive_by_rest():
    idle_s = 3.0
    with (
        processes.emulator(idle_s=idle_s) as emulator,
        processes.gateway(emulator.url, keep_alive_s=1, metrics_port=0) as gateway,
    ):
        async with connect(gateway.address) as caller:
            attachment = await caller.attach(**OPENAI)
            await attachment.until_ready()
            await asyncio.sleep(2 * idle_s)
            ways = [one["via"] for one in emulator.session(attachment.upstream_id)["keepalives"]]
            assert set(ways) == {"rest"}
            assert emulator.runs(attachment.upstream_id)
            await caller.end(attachment.session_id)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("AGENT_HANG_UP", session_pb2.END_REASON_AGENT_HUNG_UP),
        ("NO_CREDITS", session_pb2.END_REASON_OUT_OF_CREDITS),
    ],
)
async def test_an_end_at_liveavatar_is_found_with_its_reason(said, reason):
    with processes.emulator() as emulator, processes.gateway(emulator.url, hosted_poll_s=1) as gateway:
        async with connect(gateway.address) as caller:
            lasting = await caller.attach(**GEMINI)
            attachment = await caller.attach(**ELEVENLABS)
            await attachment.until_ready()
            emulator.end(attachment.upstream_id, said)
            last = await attachment.event("ended")
            assert (last.session.end_reason, last.session.upstream_reason) == (reason, said)
            assert await attachment.closed() is grpc.StatusCode.OK
            assert (await caller.get(lasting.session_id)).state == session_pb2.SESSION_STATE_READY
            await caller.end(lasting.session_id)
            assert emulator.active() == 0


async def test_liveavatars_limit_ends_the_session():
    with processes.emulator() as emulator, processes.gateway(emulator.url, expiring_notice_s=1) as gateway:
        async with connect(gateway.address) as caller:
            spec = {**OPENAI}
            attachment = await caller.attach(max_duration={"seconds": 2}, **spec)
            expiring = await attachment.event("expiring")
            assert expiring.reason == session_pb2.END_REASON_MAX_DURATION
            last = await attachment.event("ended")
            assert last.session.end_reason == session_pb2.END_REASON_MAX_DURATION


async def test_a_session_whose_caller_does_not_come_back_ends():
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            idle = await caller.attach(idle_timeout={"seconds": 1}, **OPENAI)
            assert (await idle.event("ended")).session.end_reason == session_pb2.END_REASON_IDLE
            lost = await caller.attach(detach_grace={"seconds": 0}, **GEMINI)
            watch = caller.watch()
            await watch.add(lost.session_id)
            lost.call.cancel()
            while True:
                event = (await watch.until("event")).event
                if event.WhichOneof("event") == "ended":
                    break
            assert event.ended.session.end_reason == session_pb2.END_REASON_CALLER_LOST
            assert emulator.active() == 0


async def test_a_permit_is_used_and_given_back():
    with processes.emulator() as emulator, processes.gateway(emulator.url, max_sessions=1, wait_s=0.5) as gateway:
        async with connect(gateway.address) as caller:
            first = await caller.create(**OPENAI)
            assert (await refused(caller.create(**GEMINI))).reason == "CAPACITY_EXHAUSTED"
            await caller.end(first.session.id)
            second = await caller.create(**GEMINI)
            await caller.end(second.session.id)


async def test_a_conversation_goes_on_through_kill_minus_9(tmp_path):
    shared = {"registry_file": tmp_path / "registry.db", "detach_grace_s": 30, "hosted_poll_s": 1}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **shared) as first:
            async with connect(first.address) as caller:
                attachment = await caller.attach("r-1", **ELEVENLABS)
                await attachment.until_ready()
                first.process.kill()
            log = first.process.log
        with processes.gateway(emulator.url, **shared) as second:
            async with connect(second.address) as caller:
                resumed = await caller.resume(attachment.opened.handle, skip_compacted=True)
                await resumed.event("adopted")
                assert resumed.opened.session.state == session_pb2.SESSION_STATE_READY
                assert resumed.opened.room.viewer_token == attachment.opened.room.viewer_token
                later = changed(ELEVENLABS)
                later["elevenlabs_agent"].dynamic_variables["name"].text = "another value"
                again = await caller.create("r-1", **later)
                assert again.session.id == attachment.session_id
                assert (await refused(caller.speak(attachment.session_id))).reason == "AGENT_HOSTED"
                async with asyncio.timeout(20):
                    while not emulator.session(attachment.upstream_id)["keepalives"]:
                        await asyncio.sleep(0.1)
                emulator.end(attachment.upstream_id, "AGENT_HANG_UP")
                last = await resumed.event("ended")
                assert last.session.end_reason == session_pb2.END_REASON_AGENT_HUNG_UP
            log += second.process.log
    assert NAME not in log
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert NAME.encode() not in stored


async def test_a_dead_owners_session_is_ended_when_nobody_comes_back(tmp_path):
    """The next process continues it for the rest of its grace, or ends it at once: it is lost to its caller."""
    shared = {"registry_file": tmp_path / "registry.db", "detach_grace_s": 1, "lease_s": 2, "sweep_s": 1}
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url, **shared) as first:
            async with connect(first.address) as caller:
                attachment = await caller.attach(**CARTESIA)
                await attachment.until_ready()
                first.process.kill()
        with processes.gateway(emulator.url, **shared) as second:
            async with connect(second.address) as caller, asyncio.timeout(30):
                while (found := await caller.get(attachment.session_id)).state != session_pb2.SESSION_STATE_ENDED:
                    await asyncio.sleep(0.1)
            assert found.end_reason == session_pb2.END_REASON_CALLER_LOST
        assert emulator.active() == 0


async def test_a_drain_ends_the_session():
    with processes.emulator() as emulator:
        with processes.gateway(emulator.url) as gateway:
            async with connect(gateway.address) as caller:
                attachment = await caller.attach(**OPENAI)
                await attachment.until_ready()
                gateway.process.send(signal.SIGTERM)
                with contextlib.suppress(EOFError, grpc.aio.AioRpcError):
                    await attachment.event("ended")
        assert emulator.active() == 0


async def test_a_hosted_agent_cannot_be_prepared_nor_take_a_reservation(caller):
    request = p.PrepareSessionRequest(spec=make_spec(**GEMINI))
    why = await refused(caller.sessions.PrepareSession(request, timeout=10))
    assert (why.reason, why.field) == ("INVALID_FIELD", "spec.gemini_realtime")
    request = p.PrepareSessionRequest(spec=make_spec())
    reservation = (await caller.sessions.PrepareSession(request, timeout=30)).reservation
    request = p.CreateSessionRequest(spec=make_spec(**GEMINI), reservation_id=reservation.id)
    why = await refused(caller.sessions.CreateSession(request, timeout=30))
    assert (why.reason, why.metadata["difference"]) == ("RESERVATION_MISMATCH", "connector")


async def test_a_secret_of_another_provider_is_rejected_at_the_mint(emulator, caller):
    body = {"secret_type": "GEMINI_API_KEY", "secret_value": "key", "secret_name": "other"}
    answer = emulator.http.post("/v1/secrets", json=body, headers={"X-API-KEY": processes.API_KEY})
    secret_id = answer.raise_for_status().json()["data"]["id"]
    why = await refused(caller.create(**changed(OPENAI, secret_id=secret_id)))
    assert why.reason == "UPSTREAM_REJECTED"
    made = await caller.create(**changed(GEMINI, secret_id=secret_id))
    await caller.end(made.session.id)


@pytest.mark.parametrize(
    ("connector", "kind"),
    [
        (
            ElevenLabsAgent(secret_id=SECRET, agent_id="agent-7", dynamic_variables={"name": "Ann", "on": True}),
            "elevenlabs_agent_config",
        ),
        (OpenAIRealtime(secret_id=SECRET, temperature=0.7), "openai_realtime_config"),
        (GeminiRealtime(secret_id=SECRET), "gemini_realtime_config"),
        (CartesiaAgent(secret_id=SECRET, agent_id="agent-7"), "cartesia_agent_config"),
    ],
)
async def test_the_python_client_opens_and_follows_a_session(connector, kind):
    with processes.emulator() as emulator, processes.gateway(emulator.url, hosted_poll_s=1) as gateway:
        async with (
            AsyncClient(gateway.address) as client,
            client.open_session(AVATAR, connector=connector) as session,
        ):
            await session.ready()
            (one,) = emulator.sessions()
            assert emulator.session(one["id"])["connector"] == kind
            with pytest.raises(AgentHosted):
                await session.interrupt()
            emulator.end(one["id"], "AGENT_HANG_UP")
            last = [event async for event in session.events()][-1]
            assert isinstance(last, SessionEndedEvent)
            assert last.record.end_reason is EndReason.AGENT_HUNG_UP
