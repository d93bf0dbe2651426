"""Sections 3.9, 3.10 and 4: timers, what official clients need, and playback."""

import base64
from functools import partial
from typing import Any

from contract.emulator.api_table.life_rows import livekit_room
from contract.emulator.api_table.socket_rows import frame_of, reattached
from contract.emulator.api_table.socket_rows import talk as talk_into
from contract.emulator.api_table.speech_rows import interrupt, starve
from contract.emulator.api_table.table import ABSENT, SECOND, TEXT, WAYNE, Table, Talk, World

table = Table()
talk = partial(talk_into, into=table)

# -- 3.9: timers


async def ended(world: World, seconds: float, **order: Any) -> Any:
    """Return the end reason of a session without a socket after so many seconds."""
    session = await world.session(**order)
    await world.advance(seconds)
    return (await world.entry(session)).get("end_reason", ABSENT)


async def ended_attached(t: Talk, seconds: float) -> Any:
    """The same with the socket left open; `seconds` are since the start."""
    await t.world.advance(seconds - 2.5)
    return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.9", "five idle minutes end a session", "IDLE_TIMEOUT")
async def _(t: Talk) -> Any:
    return await ended_attached(t, 300)


@talk("3.9", "and nothing less", ABSENT)
async def _(t: Talk) -> Any:
    return await ended_attached(t, 299.9)


@talk("3.9", "at the idle limit the socket is closed with 1000", 1000)
async def _(t: Talk) -> Any:
    await ended_attached(t, 300)
    return await t.socket.closed()


for what, fields in (
    ("agent.speak", {"audio": base64.b64encode(SECOND).decode()}),
    ("agent.speak_end", {}),
    ("agent.interrupt", {}),
    ("agent.start_listening", {}),
    ("agent.stop_listening", {}),
    ("session.keep_alive", {}),
):

    @talk("3.9", f"{what} resets the idle timer", ABSENT)
    async def _(t: Talk, what: str = what, fields: dict[str, Any] = fields) -> Any:
        await t.world.advance(290)
        await t.send(what, event_id="x", **fields)
        await t.world.advance(299)
        return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.9", "what is no command does not", "IDLE_TIMEOUT")
async def _(t: Talk) -> Any:
    await t.world.advance(290)
    await t.send("agent.dance")
    return await ended_attached(t, 10 + 2.5)


@talk("3.9", "REST keep-alive and the socket's share one timer", "IDLE_TIMEOUT")
async def _(t: Talk) -> Any:
    await t.world.advance(200)
    await t.send("session.keep_alive")
    await t.world.advance(200)
    await t.world.call("POST", "/sessions/keep-alive", key=None, bearer=t.session.token)
    await t.world.advance(299)
    assert "end_reason" not in await t.world.entry(t.session)
    await t.world.advance(1)
    return (await t.world.entry(t.session))["end_reason"]


for seconds, reason in ((99.9, ABSENT), (100, "MAX_DURATION_REACHED")):
    table.add(
        "3.9",
        f"max_session_duration of 100 s after {seconds} s",
        lambda w, s=seconds: ended(w, s, max_session_duration=100),
        reason,
    )
for seconds, reason in ((59.9, ABSENT), (60, "MAX_DURATION_REACHED")):
    table.add(
        "3.9",
        f"a sandbox session after {seconds} s",
        lambda w, s=seconds: ended(w, s, is_sandbox=True, avatar_id=WAYNE),
        reason,
    )
for seconds, reason in ((199.9, ABSENT), (200, "ZOMBIE_SESSION_REAP")):
    table.add("3.9", f"a session nobody came to after {seconds} s", lambda w, s=seconds: ended(w, s), reason)


@talk("3.9", "a session that was left is reaped 200 s later", (ABSENT, "ZOMBIE_SESSION_REAP"))
async def _(t: Talk) -> Any:
    await t.world.advance(50)
    await t.socket.connection.close()
    await t.world.emulator.recorded(t.session, lambda seen: not seen["socket_open"])
    await t.world.advance(199.9)
    before = (await t.world.entry(t.session)).get("end_reason", ABSENT)
    await t.world.advance(0.1)
    return before, (await t.world.entry(t.session))["end_reason"]


@talk("3.9", "coming back in time saves it", ABSENT)
async def _(t: Talk) -> Any:
    async with reattached(t, away_s=199) as again:
        await t.world.advance(60)
        return (await t.world.entry(again.session)).get("end_reason", ABSENT)


@table.row("3.9", "a reaped session is billed for its time", (4, "996.00"))
async def _(w: World) -> Any:
    session = await w.session()
    await w.advance(300)
    return (await w.entry(session))["credits_consumed"], await w.credits()


@talk("3.9", "a session without credit ends, and says so", "NO_CREDITS")
async def _(t: Talk) -> Any:
    await t.world.knobs(credits=0)
    await t.world.advance(57.5)
    await t.socket.closed()
    return t.socket.events[0]["end_reason"]


async def connector(world: World, seconds: float) -> Any:
    started = await world.start(openai_realtime_config={"secret_id": WAYNE})
    await world.advance(seconds)
    entry = await world.call("GET", f"/sessions/{started.json()['data']['session_id']}")
    return entry.json()["data"].get("end_reason", ABSENT)


table.add("3.9", "a connector's session is not reaped for want of a socket", lambda w: connector(w, 299), ABSENT)
table.add("3.9", "a connector's session has an idle limit", lambda w: connector(w, 300), "IDLE_TIMEOUT")

# -- 3.10: what official clients need


async def plugin_turn(t: Talk) -> None:
    """Speak a sentence as the LiveKit plugin does: an id per chunk, and listening while it still talks."""
    await t.speak(event_id="a")
    await t.pass_(0.5)
    await t.speak(event_id="b")
    await t.send("agent.speak_end", event_id="c")
    await t.send("agent.start_listening", event_id="d")
    await t.pass_(3)
    await t.send("agent.stop_listening", event_id="e")


@talk("3.10", "1 the plugin's listening commands in wrong poses are silent", [])
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return [kind for kind in await t.types() if kind in ("warning", "error")]


@talk("3.10", "1 and change no pose", ["idle→talking", "talking→idle"])
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.10", "1 a knob warns of them", 2, warn_wrong_pose=True)
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return (await t.types()).count("warning")


for profile, order in (
    ("modern", ["audio_buffer_cleared", "speak_interrupted", "talking→idle"]),
    ("acks_only", ["audio_buffer_cleared", "talking→idle"]),
):

    @talk("3.10", f"2 {profile}: after an interrupt idle comes last", order, profile=profile)
    async def _(t: Talk) -> Any:
        await interrupt(t)
        await t.pass_(1)
        return await t.types()


@talk("3.10", "3 classic: an interrupt is followed by speak_ended", "speak_ended", profile="classic")
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(1)
    return (await t.types())[-1]


@talk("3.10", "3 classic: which cites the utterance", "u1", profile="classic")
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(1)
    return (await t.event("agent.speak_ended"))["event_id"]


DRY_TURN = ["audio_buffer_appended", "idle→talking", "speak_started"]


@talk(
    "3.10", "4 running dry is silent, and the utterance plays on", [*DRY_TURN, "audio_buffer_appended"], into=table
)
async def _(t: Talk) -> Any:
    await starve(t)
    await t.pass_(0.5)
    return await t.types()


@talk("3.10", "4 an utterance that ran dry ends once", 1)
async def _(t: Talk) -> Any:
    await starve(t)
    await t.send("agent.speak_end", event_id="u1")
    await t.pass_(5)
    return (await t.types()).count("speak_ended")


@talk(
    "3.10",
    "4 a knob tells idle in between",
    [*DRY_TURN, "talking→idle", "idle→talking", "audio_buffer_appended"],
    idle_on_underrun=True,
)
async def _(t: Talk) -> Any:
    await starve(t)
    return await t.types()


for field in ("livekit_url", "livekit_agent_token", "livekit_client_token"):
    table.answer(
        "3.10",
        f"5 own room: {field} is a text by default",
        lambda w: w.start(**livekit_room()),
        **{f"data__{field}": TEXT},
    )
table.answer(
    "3.10",
    "5 own room: max_session_duration is a number",
    lambda w: w.start(**livekit_room(), max_session_duration=300),
    data__max_session_duration=300,
)


@talk("3.10", "6 no event that the plugin does not handle", [])
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    handled = ("session.state_updated", "agent.state_updated", "agent.speak_", "agent.audio_buffer_")
    return [event["type"] for event in t.socket.events if not event["type"].startswith(handled)]


async def _pipecat_stop(w: World) -> Any:
    session = await w.session(
        video_settings={"quality": "high", "encoding": "H264"}, max_session_duration=300, is_sandbox=False
    )
    body = {"session_id": session.id}
    answer = await w.call("POST", "/sessions/stop", key=None, bearer=session.token, json=body)
    return answer.status_code, (await w.entry(session))["end_reason"]


table.add(
    "3.10", "7 pipecat stops with bearer and session_id, and names no reason", _pipecat_stop, (200, "UNKNOWN")
)


@talk("3.10", "8 a closed socket ends nothing", ABSENT)
async def _(t: Talk) -> Any:
    await t.socket.connection.close()
    await t.world.advance(60)
    return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.10", "8 what was accepted plays on without a socket", "ended")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.socket.connection.close()
    await t.world.advance(5)
    return (await t.recording())["utterances"][0]["outcome"]


@talk("3.10", "8 stop after the socket was closed", "USER_DISCONNECTED")
async def _(t: Talk) -> Any:
    await t.socket.connection.close()
    body = {"session_id": t.session.id, "reason": "USER_DISCONNECTED"}
    await t.world.call("POST", "/sessions/stop", key=None, bearer=t.session.token, json=body)
    return (await t.world.entry(t.session))["end_reason"]


@talk(
    "3.10",
    "9 the starter's `start` within an utterance, after a re-attach, leaves it open",
    [["a", "b"]],
)
async def _(t: Talk) -> Any:
    await t.speak(event_id="a")
    async with reattached(t) as again:
        await again.send("start", encoding="pcm_s16le", sample_rate=24000, channels=1)
        await again.speak(event_id="b")
        await again.send("agent.speak_end")
    return [utterance["event_ids"] for utterance in (await t.recording())["utterances"]]


@table.row("3.10", "10 key and bearer on stop: the bearer wins", "USER_CLOSED")
async def _(w: World) -> Any:
    session = await w.session()
    await w.call("POST", "/sessions/stop", bearer=session.token)
    return (await w.entry(session))["end_reason"]


@talk("3.10", "11 an interrupt whose id is null does no harm", None)
async def _(t: Talk) -> Any:
    await interrupt(t, event_id=None)
    await t.pass_(0.19)
    return (await t.event("agent.audio_buffer_cleared"))["source_event_id"]


@talk("3.10", "12 only the head of the queue is told to be interrupted", ["u1"])
async def _(t: Talk) -> Any:
    await t.sentence("u1", seconds=3)
    await t.sentence("u2")
    await t.sentence("u3")
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(5)
    return [event["source_event_id"] for event in t.socket.events if event["type"] == "agent.speak_interrupted"]


@talk("3.10", "12 idle between queued utterances", ["idle→talking", "talking→idle"] * 2)
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.sentence("u2")
    await t.pass_(5)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.10", "12 running dry at the end is no underrun", 0)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(5)
    await t.send("agent.speak_end", event_id="u1")
    return (await t.recording())["underruns"]["count"]


@talk("3.10", "12 a million characters are one megabyte", 1009)
async def _(t: Talk) -> Any:
    await t.raw(frame_of(1_000_000))
    await t.socket.connection.send(frame_of(1_000_001))
    return await t.socket.closed()


table.answer(
    "3.10", "12 a wrong room in the avatar's token", lambda w: w.start(**livekit_room(room="desk-8")), status=500
)

# -- 4: audio


@talk("4", "audio drains at 48 000 bytes per second", 24_000)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=3)
    await t.pass_(0.7)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("4", "`speed` multiplies that", 96_000, speed=4)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=3)
    await t.pass_(0.7)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("4", "a burst far ahead of real time is taken", 20 * 48_000)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=20)
    await t.read()
    return (await t.recording())["received_bytes"]


@talk("4", "a knob bounds what may be queued", "audio buffer is full", max_queued_s=2)
async def _(t: Talk) -> Any:
    for _ in range(3):
        await t.speak()
    return (await t.event("error"))["error"]["message"]


for what, size_bytes in (("20 ms", 960), ("400 ms", 19_200), ("600 ms", 28_800), ("1 s", 48_000)):

    @talk("4", f"chunks of {what}", [size_bytes] * 2)
    async def _(t: Talk, size_bytes: int = size_bytes) -> Any:
        await t.speak(bytes(size_bytes))
        await t.speak(bytes(size_bytes))
        return [packet["size_bytes"] for packet in (await t.recording())["packets"]]


@talk("4", "what was sent is what was received", wanted=True)
async def _(t: Talk) -> Any:
    pcm = bytes(range(256)) * 100
    await t.speak(pcm)
    return (await t.world.http.get(f"/_emulator/sessions/{t.session.id}/audio")).content == pcm
