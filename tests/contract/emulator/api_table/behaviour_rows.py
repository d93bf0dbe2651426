"""Sections 3.6 to 4: ends, interrupts, silent drops, closes, timers, what official clients need, and playback."""

import base64
from typing import Any

from contract.emulator.api_table.life_rows import own_room
from contract.emulator.api_table.socket_rows import frame_of, reattached, talk
from contract.emulator.api_table.table import ABSENT, SECOND, TEXT, WAYNE, Table, Talk, World

table = Table()

# -- 3.6: speak_end


@talk("3.6", "a sealed utterance is played to its end, and then ends", ("ended", 48_000), into=table)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(1.2)
    utterance = (await t.recording())["utterances"][0]
    return utterance["outcome"], utterance["played_bytes"]


@talk("3.6", "the end comes when the last sample was played", "speak_started", into=table)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(1.199)
    return (await t.types())[-1]


@talk("3.6", "without it the utterance stays open", ("open", "talking"), into=table)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(60)
    seen = await t.recording()
    return seen["utterances"][0]["outcome"], seen["pose"]


@talk("3.6", "one endless utterance without it plays all the same", 3 * 48_000, into=table)
async def _(t: Talk) -> Any:
    for _ in range(3):
        await t.speak()
        await t.pass_(2)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("3.6", "when the audio is out already it ends at once", "talking→idle", into=table)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(5)
    await t.send("agent.speak_end", event_id="u1")
    return (await t.types())[-1]


@talk("3.6", "it flushes what waits for more", "speak_started", into=table, start_after_ms=5000)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(0.2)
    return (await t.types())[-1]


@talk("3.6", "without it less than start_after_ms waits", "audio_buffer_appended", into=table, start_after_ms=5000)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(30)
    return (await t.types())[-1]


# -- 3.7: interrupt


async def barge_in(t: Talk, at_s: float = 0.5, **fields: Any) -> None:
    """Interrupt a sentence of three seconds so long after its first chunk."""
    await t.sentence(seconds=3)
    await t.pass_(at_s)
    t.socket.events.clear()
    await t.send("agent.interrupt", **{"event_id": "i1", **fields})


@talk(
    "3.7",
    "it takes effect after 190 ms",
    ["audio_buffer_cleared", "speak_interrupted", "talking→idle"],
    into=table,
)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(0.19)
    return await t.types()


@talk("3.7", "and not before", [], into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(0.189)
    return await t.types()


@talk("3.7", "audio plays on until then", int(0.49 * 48_000), into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(5)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("3.7", "a knob makes it sooner or later", ["audio_buffer_cleared"], into=table, interrupt_ack_ms=400)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(0.399)
    assert not await t.types()
    await t.pass_(0.001)
    return (await t.types())[:1]


@talk("3.7", "the ack cites the interrupt", "i1", into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(0.19)
    return (await t.event("agent.audio_buffer_cleared"))["source_event_id"]


@talk("3.7", "audio behind it is a new utterance, which is played", ["interrupted", "ended"], into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.sentence("u2")
    await t.pass_(5)
    return [utterance["outcome"] for utterance in (await t.recording())["utterances"]]


@talk("3.7", "audio behind it with the old id is counted as such", 1, into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.speak(event_id="u1")
    return (await t.recording())["audio_after_interrupt"]["packets"]


@talk("3.7", "the next sentence is as good as the first", ["speak_started", "speak_ended"], into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(1)
    t.socket.events.clear()
    await t.sentence("u2")
    await t.pass_(2)
    return [kind for kind in await t.types() if kind.startswith("speak_")]


@talk("3.7", "while idle it is only acknowledged", ["audio_buffer_cleared"], into=table)
async def _(t: Talk) -> Any:
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(1)
    return await t.types()


@talk(
    "3.7",
    "while listening it leads to idle",
    ["idle→listening", "audio_buffer_cleared", "listening→idle"],
    into=table,
)
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(1)
    return await t.types()


@talk("3.7", "within the first chunk's delay it is not lost", "interrupted", into=table)
async def _(t: Talk) -> Any:
    await barge_in(t, at_s=0)
    await t.pass_(0.19)
    return (await t.recording())["utterances"][0]["outcome"]


@talk("3.7", "listening can follow", "idle→listening", into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(0.19)
    await t.send("agent.start_listening", event_id="l1")
    return (await t.types())[-1]


@talk("3.7", "two interrupts are two acks", ["i1", "i2"], into=table)
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.send("agent.interrupt", event_id="i2")
    await t.pass_(1)
    return [event["source_event_id"] for event in t.socket.events if event["type"] == "agent.audio_buffer_cleared"]


@talk("3.7", "the recommended cycle", "listening→idle talking→idle→listening", into=table)
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.stop_listening", event_id="l2")
    await t.sentence()
    await t.pass_(1.2)
    await t.send("agent.start_listening", event_id="l3")
    poses = [kind for kind in await t.types() if "→" in kind]
    assert poses[0] == "idle→listening"
    return f"{poses[1]} {poses[2].split('→')[1]}→{poses[3].split('→')[1]}→{poses[4].split('→')[1]}"


# -- 3.8: silent drops and closes


@talk("3.8", "commands before connected vanish", ["new", "connected"], into=table, ready=False)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(10)
    return await t.types()


@talk("3.8", "and are counted", 2, into=table, ready=False)
async def _(t: Talk) -> Any:
    await t.sentence()
    return (await t.recording())["commands_before_ready"]


@talk("3.8", "their audio is not kept for later", 0, into=table, ready=False)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(10)
    return (await t.recording())["received_bytes"]


async def problem(t: Talk, frame: str | bytes) -> Any:
    """The error that a frame draws."""
    await t.raw(frame)
    error = await t.event("error")
    return error.get("error", {}).get("type"), error.get("error", {}).get("message")


for what, frame, message in (
    ("bad base64", '{"type":"agent.speak","audio":"not base64!"}', "invalid base64 audio data"),
    ("no audio", '{"type":"agent.speak"}', "audio is missing"),
    ("audio that is no text", '{"type":"agent.speak","audio":7}', "audio is missing"),
    ("empty audio", '{"type":"agent.speak","audio":""}', "audio is empty"),
    ("an unknown type", '{"type":"agent.dance"}', "unknown command 'agent.dance'"),
    ("no type", '{"audio":""}', "type is missing"),
    ("an array", "[1]", "message is not a JSON object"),
    ("no JSON", "hello", "message is not valid JSON"),
    ("a binary frame", b"{}", "binary frames are not part of the protocol"),
):

    @talk("3.8", f"{what} draws an error", ("invalid_request_error", message), into=table)
    async def _(t: Talk, frame: str | bytes = frame) -> Any:
        return await problem(t, frame)

    @talk("3.8", f"after {what} the socket is as good as before", "audio_buffer_appended", into=table)
    async def _(t: Talk, frame: str | bytes = frame) -> Any:
        await t.raw(frame)
        await t.speak()
        return (await t.types())[-1]


@talk("3.8", "a bad chunk leaves the utterance open", [["u1"]], into=table)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.raw('{"type":"agent.speak","audio":"???"}')
    await t.speak()
    return [utterance["event_ids"] for utterance in (await t.recording())["utterances"]]


for what, pcm in (
    ("an odd number of bytes", bytes(961)),
    ("a WAV header", b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(28)),
    ("an MP3 frame", b"\xff\xfb\x90\x44" + bytes(416)),
    ("16 kHz, as far as anyone can tell", bytes(32_000)),
):

    @talk("3.8", f"{what} draws no error", ["audio_buffer_appended"], into=table)
    async def _(t: Talk, pcm: bytes = pcm) -> Any:
        await t.speak(pcm)
        return await t.types()


@talk("3.8", "odd chunks are counted", 1, into=table)
async def _(t: Talk) -> Any:
    await t.speak(bytes(961))
    return (await t.recording())["odd_size_packets"]


async def starve(t: Talk) -> None:
    """Audio slower than real time: a second's silence within a sentence."""
    await t.speak()
    await t.pass_(2.2)
    await t.speak()


@talk("3.8", "audio slower than real time is an error in strict mode", "video_starvation", into=table, strict=True)
async def _(t: Talk) -> Any:
    await starve(t)
    return (await t.event("error"))["error"]["type"]


@talk("3.8", "and silent otherwise", {}, into=table)
async def _(t: Talk) -> Any:
    await starve(t)
    return await t.event("error")


@talk("3.8", "but counted, with its length", {"count": 1, "dry_s": 1.0}, into=table)
async def _(t: Talk) -> Any:
    await starve(t)
    return (await t.recording())["underruns"]


@talk("3.8", "1000 closes a stopped session", 1000, into=table)
async def _(t: Talk) -> Any:
    await t.world.call("POST", "/sessions/stop", key=None, bearer=t.session.token)
    return await t.socket.closed()


async def until_limit(world: World, **order: Any) -> tuple[int | None, str]:
    session = await world.session(**order)
    async with world.emulator.socket(session) as socket:
        await socket.until("session.state_updated")
        await world.advance(60)
        code = await socket.closed()
        stopped = [event for event in socket.events if event["type"] == "session.stopped"]
        return code, stopped[0]["end_reason"]


table.add(
    "3.8",
    "1000 closes an expired sandbox session",
    lambda w: until_limit(w, is_sandbox=True, avatar_id=WAYNE),
    (1000, "MAX_DURATION_REACHED"),
)
table.add(
    "3.8",
    "1000 closes a session at its duration limit",
    lambda w: until_limit(w, max_session_duration=60),
    (1000, "MAX_DURATION_REACHED"),
)


@talk("3.8", "1011 on request", 1011, into=table, drop_after_packets=1)
async def _(t: Talk) -> Any:
    await t.socket.connection.send('{"type":"agent.speak","audio":"AAAA"}')
    return await t.socket.closed()


@talk("3.8", "any close code on request", 4001, into=table)
async def _(t: Talk) -> Any:
    await t.world.http.post(f"/_emulator/sessions/{t.session.id}/drop", json={"code": 4001})
    return await t.socket.closed()


@talk("3.8", "no close frame at all on request", None, into=table)
async def _(t: Talk) -> Any:
    await t.world.http.post(f"/_emulator/sessions/{t.session.id}/drop", json={"code": None})
    return await t.socket.closed()


async def muted(t: Talk) -> None:
    """Past the duration limit, where a knob leaves the socket open."""
    await t.sentence(seconds=5)
    await t.pass_(57.5)
    t.socket.events.clear()


MUTE = {"max_duration_mode": "mute", "max_duration_s": 60}


@talk("3.8", "at the limit the socket may stay open without any event", [], into=table, **MUTE)
async def _(t: Talk) -> Any:
    await muted(t)
    return await t.types()


@talk("3.8", "what is sent then vanishes, and is counted", ([], 2), into=table, **MUTE)
async def _(t: Talk) -> Any:
    await muted(t)
    await t.sentence("u2")
    await t.pass_(5)
    return await t.types(), (await t.recording())["commands_after_end"]


@talk("3.8", "a sentence is cut off by it", int(0.37 * 48_000), into=table, **MUTE)
async def _(t: Talk) -> Any:
    await t.pass_(57.5 - 0.57)
    await t.sentence(seconds=5)
    await t.pass_(5)
    return (await t.recording())["utterances"][0]["played_bytes"]


# -- 3.9: timers


async def ended(world: World, seconds: float, **order: Any) -> Any:
    """Why a session without a socket ended within so many seconds."""
    session = await world.session(**order)
    await world.advance(seconds)
    return (await world.entry(session)).get("end_reason", ABSENT)


async def ended_attached(t: Talk, seconds: float) -> Any:
    """The same with the socket left open; `seconds` are since the start."""
    await t.world.advance(seconds - 2.5)
    return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.9", "five idle minutes end a session", "IDLE_TIMEOUT", into=table)
async def _(t: Talk) -> Any:
    return await ended_attached(t, 300)


@talk("3.9", "and nothing less", ABSENT, into=table)
async def _(t: Talk) -> Any:
    return await ended_attached(t, 299.9)


@talk("3.9", "at the idle limit the socket is closed with 1000", 1000, into=table)
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

    @talk("3.9", f"{what} resets the idle timer", ABSENT, into=table)
    async def _(t: Talk, what: str = what, fields: dict[str, Any] = fields) -> Any:
        await t.world.advance(290)
        await t.send(what, event_id="x", **fields)
        await t.world.advance(299)
        return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.9", "what is no command does not", "IDLE_TIMEOUT", into=table)
async def _(t: Talk) -> Any:
    await t.world.advance(290)
    await t.send("agent.dance")
    return await ended_attached(t, 10 + 2.5)


@talk("3.9", "REST keep-alive and the socket's share one timer", "IDLE_TIMEOUT", into=table)
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


@talk("3.9", "a session that was left is reaped 200 s later", (ABSENT, "ZOMBIE_SESSION_REAP"), into=table)
async def _(t: Talk) -> Any:
    await t.world.advance(50)
    await t.socket.connection.close()
    await t.world.emulator.recorded(t.session, lambda seen: not seen["socket_open"])
    await t.world.advance(199.9)
    before = (await t.world.entry(t.session)).get("end_reason", ABSENT)
    await t.world.advance(0.1)
    return before, (await t.world.entry(t.session))["end_reason"]


@talk("3.9", "coming back in time saves it", ABSENT, into=table)
async def _(t: Talk) -> Any:
    async with reattached(t, away_s=199) as again:
        await t.world.advance(60)
        return (await t.world.entry(again.session)).get("end_reason", ABSENT)


@table.row("3.9", "a reaped session is billed for its time", (4, "996.00"))
async def _(w: World) -> Any:
    session = await w.session()
    await w.advance(300)
    return (await w.entry(session))["credits_consumed"], await w.credits()


@talk("3.9", "a session without credit ends, and says so", "NO_CREDITS", into=table)
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
    """One sentence as the LiveKit plugin sends it: an id for each chunk, and listening while it still talks."""
    await t.speak(event_id="a")
    await t.pass_(0.5)
    await t.speak(event_id="b")
    await t.send("agent.speak_end", event_id="c")
    await t.send("agent.start_listening", event_id="d")
    await t.pass_(3)
    await t.send("agent.stop_listening", event_id="e")


@talk("3.10", "1 the plugin's listening commands in wrong poses are silent", [], into=table)
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return [kind for kind in await t.types() if kind in ("warning", "error")]


@talk("3.10", "1 and change no pose", ["idle→talking", "talking→idle"], into=table)
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.10", "1 a knob warns of them", 2, into=table, warn_wrong_pose=True)
async def _(t: Talk) -> Any:
    await plugin_turn(t)
    return (await t.types()).count("warning")


for profile, order in (
    ("modern", ["audio_buffer_cleared", "speak_interrupted", "talking→idle"]),
    ("acks_only", ["audio_buffer_cleared", "talking→idle"]),
):

    @talk("3.10", f"2 {profile}: after an interrupt idle comes last", order, into=table, profile=profile)
    async def _(t: Talk) -> Any:
        await barge_in(t)
        await t.pass_(1)
        return await t.types()


@talk("3.10", "3 classic: an interrupt is followed by speak_ended", "speak_ended", into=table, profile="classic")
async def _(t: Talk) -> Any:
    await barge_in(t)
    await t.pass_(1)
    return (await t.types())[-1]


@talk("3.10", "3 classic: which cites the utterance", "u1", into=table, profile="classic")
async def _(t: Talk) -> Any:
    await barge_in(t)
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


@talk("3.10", "4 an utterance that ran dry ends once", 1, into=table)
async def _(t: Talk) -> Any:
    await starve(t)
    await t.send("agent.speak_end", event_id="u1")
    await t.pass_(5)
    return (await t.types()).count("speak_ended")


@talk(
    "3.10",
    "4 a knob tells idle in between",
    [*DRY_TURN, "talking→idle", "idle→talking", "audio_buffer_appended"],
    into=table,
    idle_on_underrun=True,
)
async def _(t: Talk) -> Any:
    await starve(t)
    return await t.types()


for field in ("livekit_url", "livekit_agent_token", "livekit_client_token"):
    table.answer(
        "3.10",
        f"5 own room: {field} is a text by default",
        lambda w: w.start(**own_room()),
        **{f"data__{field}": TEXT},
    )
table.answer(
    "3.10",
    "5 own room: max_session_duration is a number",
    lambda w: w.start(**own_room(), max_session_duration=300),
    data__max_session_duration=300,
)


@talk("3.10", "6 no event that the plugin does not handle", [], into=table)
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


@talk("3.10", "8 a closed socket ends nothing", ABSENT, into=table)
async def _(t: Talk) -> Any:
    await t.socket.connection.close()
    await t.world.advance(60)
    return (await t.world.entry(t.session)).get("end_reason", ABSENT)


@talk("3.10", "8 what was accepted plays on without a socket", "ended", into=table)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.socket.connection.close()
    await t.world.advance(5)
    return (await t.recording())["utterances"][0]["outcome"]


@talk("3.10", "8 stop after the socket was closed", "USER_DISCONNECTED", into=table)
async def _(t: Talk) -> Any:
    await t.socket.connection.close()
    body = {"session_id": t.session.id, "reason": "USER_DISCONNECTED"}
    await t.world.call("POST", "/sessions/stop", key=None, bearer=t.session.token, json=body)
    return (await t.world.entry(t.session))["end_reason"]


@talk(
    "3.10",
    "9 the starter's `start` within an utterance, after a re-attach, leaves it open",
    [["a", "b"]],
    into=table,
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


@talk("3.10", "11 an interrupt whose id is null does no harm", None, into=table)
async def _(t: Talk) -> Any:
    await barge_in(t, event_id=None)
    await t.pass_(0.19)
    return (await t.event("agent.audio_buffer_cleared"))["source_event_id"]


@talk("3.10", "12 only the head of the queue is told to be interrupted", ["u1"], into=table)
async def _(t: Talk) -> Any:
    await t.sentence("u1", seconds=3)
    await t.sentence("u2")
    await t.sentence("u3")
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(5)
    return [event["source_event_id"] for event in t.socket.events if event["type"] == "agent.speak_interrupted"]


@talk("3.10", "12 idle between queued utterances", ["idle→talking", "talking→idle"] * 2, into=table)
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.sentence("u2")
    await t.pass_(5)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.10", "12 running dry at the end is no underrun", 0, into=table)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(5)
    await t.send("agent.speak_end", event_id="u1")
    return (await t.recording())["underruns"]["count"]


@talk("3.10", "12 a million characters are one megabyte", 1009, into=table)
async def _(t: Talk) -> Any:
    await t.raw(frame_of(1_000_000))
    await t.socket.connection.send(frame_of(1_000_001))
    return await t.socket.closed()


table.answer(
    "3.10", "12 a wrong room in the avatar's token", lambda w: w.start(**own_room(room="desk-8")), status=500
)

# -- 4: audio


@talk("4", "audio drains at 48 000 bytes per second", 24_000, into=table)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=3)
    await t.pass_(0.7)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("4", "`speed` multiplies that", 96_000, into=table, speed=4)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=3)
    await t.pass_(0.7)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("4", "a burst far ahead of real time is taken", 20 * 48_000, into=table)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=20)
    return (await t.recording())["received_bytes"]


@talk("4", "a knob bounds what may be queued", "audio buffer is full", into=table, max_queued_s=2)
async def _(t: Talk) -> Any:
    for _ in range(3):
        await t.speak()
    return (await t.event("error"))["error"]["message"]


for what, size_bytes in (("20 ms", 960), ("400 ms", 19_200), ("600 ms", 28_800), ("1 s", 48_000)):

    @talk("4", f"chunks of {what}", [size_bytes] * 2, into=table)
    async def _(t: Talk, size_bytes: int = size_bytes) -> Any:
        await t.speak(bytes(size_bytes))
        await t.speak(bytes(size_bytes))
        return [packet["size_bytes"] for packet in (await t.recording())["packets"]]


@talk("4", "what was sent is what was received", wanted=True, into=table)
async def _(t: Talk) -> Any:
    pcm = bytes(range(256)) * 100
    await t.speak(pcm)
    return (await t.world.http.get(f"/_emulator/sessions/{t.session.id}/audio")).content == pcm
