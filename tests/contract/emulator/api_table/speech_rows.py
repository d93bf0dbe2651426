"""Sections 3.6 to 3.8: ends of speech, interrupts, silent drops, and closes."""

from functools import partial
from typing import Any

from contract.emulator.api_table.socket_rows import talk as talk_into
from contract.emulator.api_table.table import WAYNE, A, Table, Talk, World

table = Table()
talk = partial(talk_into, into=table)

# -- 3.6: speak_end


@talk("3.6", "a sealed utterance is played to its end, and then ends", ("ended", 48_000))
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(1.2)
    utterance = (await t.recording())["utterances"][0]
    return utterance["outcome"], utterance["played_bytes"]


@talk("3.6", "the end comes when the last sample was played", "speak_started")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(1.199)
    return (await t.types())[-1]


@talk("3.6", "without it the utterance stays open", ("open", "talking"))
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(60)
    seen = await t.recording()
    return seen["utterances"][0]["outcome"], seen["pose"]


@talk("3.6", "one endless utterance without it plays all the same", 3 * 48_000)
async def _(t: Talk) -> Any:
    for _ in range(3):
        await t.speak()
        await t.pass_(2)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("3.6", "when the audio is out already it ends at once", "talking→idle")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(5)
    await t.send("agent.speak_end", event_id="u1")
    return (await t.types())[-1]


@talk("3.6", "it flushes what waits for more", "speak_started", start_after_ms=5000)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(0.2)
    return (await t.types())[-1]


@talk("3.6", "without it less than start_after_ms waits", "audio_buffer_appended", start_after_ms=5000)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(30)
    return (await t.types())[-1]


# -- 3.7: interrupt


async def interrupt(t: Talk, at_s: float = 0.5, **fields: Any) -> None:
    """Interrupt a sentence of three seconds so long after its first chunk."""
    await t.sentence(seconds=3)
    await t.pass_(at_s)
    t.socket.events.clear()
    await t.send("agent.interrupt", **{"event_id": "i1", **fields})


@talk(
    "3.7",
    "it takes effect after 190 ms",
    ["audio_buffer_cleared", "speak_interrupted", "talking→idle"],
)
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(0.19)
    return await t.types()


@talk("3.7", "and not before", [])
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(0.189)
    return await t.types()


@talk("3.7", "audio plays on until then", int(0.49 * 48_000))
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(5)
    return (await t.recording())["utterances"][0]["played_bytes"]


@talk("3.7", "a knob makes it sooner or later", ["audio_buffer_cleared"], interrupt_ack_ms=400)
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(0.399)
    assert not await t.types()
    await t.pass_(0.001)
    return (await t.types())[:1]


@talk("3.7", "the ack cites the interrupt", "i1")
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(0.19)
    return (await t.event("agent.audio_buffer_cleared"))["source_event_id"]


@talk("3.7", "audio behind it is a new utterance, which is played", ["interrupted", "ended"])
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.sentence("u2")
    await t.pass_(5)
    return [utterance["outcome"] for utterance in (await t.recording())["utterances"]]


@talk("3.7", "audio behind it with the old id is counted as such", 1)
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.speak(event_id="u1")
    return (await t.recording())["audio_after_interrupt"]["packets"]


@talk("3.7", "the next sentence is as good as the first", ["speak_started", "speak_ended"])
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(1)
    t.socket.events.clear()
    await t.sentence("u2")
    await t.pass_(2)
    return [kind for kind in await t.types() if kind.startswith("speak_")]


@talk("3.7", "while idle it is only acknowledged", ["audio_buffer_cleared"])
async def _(t: Talk) -> Any:
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(1)
    return await t.types()


@talk(
    "3.7",
    "while listening it leads to idle",
    ["idle→listening", "audio_buffer_cleared", "listening→idle"],
)
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(1)
    return await t.types()


@talk("3.7", "within the first chunk's delay it is not lost", "interrupted")
async def _(t: Talk) -> Any:
    await interrupt(t, at_s=0)
    await t.pass_(0.19)
    return (await t.recording())["utterances"][0]["outcome"]


@talk("3.7", "listening can follow", "idle→listening")
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.pass_(0.19)
    await t.send("agent.start_listening", event_id="l1")
    return (await t.types())[-1]


@talk("3.7", "two interrupts are two acks", ["i1", "i2"])
async def _(t: Talk) -> Any:
    await interrupt(t)
    await t.send("agent.interrupt", event_id="i2")
    await t.pass_(1)
    return [event["source_event_id"] for event in t.socket.events if event["type"] == "agent.audio_buffer_cleared"]


@talk("3.7", "the recommended cycle", "listening→idle talking→idle→listening")
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


@talk("3.8", "commands before connected vanish", ["new", "connected"], ready=False)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(10)
    return await t.types()


@talk("3.8", "and are counted", 2, ready=False)
async def _(t: Talk) -> Any:
    await t.sentence()
    return (await t.recording())["commands_before_ready"]


@talk("3.8", "their audio is not kept for later", 0, ready=False)
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

    @talk("3.8", f"{what} draws an error", ("invalid_request_error", message))
    async def _(t: Talk, frame: str | bytes = frame) -> Any:
        return await problem(t, frame)

    @talk("3.8", f"after {what} the socket is as good as before", "audio_buffer_appended")
    async def _(t: Talk, frame: str | bytes = frame) -> Any:
        await t.raw(frame)
        await t.speak()
        return (await t.types())[-1]


@talk("3.8", "a bad chunk leaves the utterance open", [["u1"]])
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

    @talk("3.8", f"{what} draws no error", ["audio_buffer_appended"])
    async def _(t: Talk, pcm: bytes = pcm) -> Any:
        await t.speak(pcm)
        return await t.types()


@talk("3.8", "odd chunks are counted", 1)
async def _(t: Talk) -> Any:
    await t.speak(bytes(961))
    return (await t.recording())["odd_size_packets"]


async def starve(t: Talk) -> None:
    """Audio slower than real time: a second's silence within a sentence."""
    await t.speak()
    await t.pass_(2.2)
    await t.speak()


@talk("3.8", "audio slower than real time is an error in strict mode", "video_starvation", strict=True)
async def _(t: Talk) -> Any:
    await starve(t)
    return (await t.event("error"))["error"]["type"]


@talk("3.8", "and silent otherwise", {})
async def _(t: Talk) -> Any:
    await starve(t)
    return await t.event("error")


@talk("3.8", "but counted, with its length", {"count": 1, "dry_s": 1.0})
async def _(t: Talk) -> Any:
    await starve(t)
    return (await t.recording())["underruns"]


@talk("3.8", "1000 closes a stopped session", 1000)
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


@talk("3.8", "1011 on request", 1011, drop_after_packets=1)
async def _(t: Talk) -> Any:
    await t.socket.connection.send('{"type":"agent.speak","audio":"AAAA"}')
    return await t.socket.closed()


@talk("3.8", "any close code on request", 4001)
async def _(t: Talk) -> Any:
    await t.world.http.post(f"/_emulator/sessions/{t.session.id}/drop", json={"code": 4001})
    return await t.socket.closed()


@talk("3.8", "no close frame at all on request", None)
async def _(t: Talk) -> Any:
    await t.world.http.post(f"/_emulator/sessions/{t.session.id}/drop", json={"code": None})
    return await t.socket.closed()


async def muted(t: Talk) -> None:
    """Past the duration limit, where a knob leaves the socket open."""
    await t.sentence(seconds=5)
    await t.pass_(57.5)
    t.socket.events.clear()


PART = A("370 ms", lambda size_bytes: 17_712 <= size_bytes <= 17_760)
MUTE = {"max_duration_mode": "mute", "max_duration_s": 60}


@talk("3.8", "at the limit the socket may stay open without any event", [], **MUTE)
async def _(t: Talk) -> Any:
    await muted(t)
    return await t.types()


@talk("3.8", "what is sent then vanishes, and is counted", ([], 2), **MUTE)
async def _(t: Talk) -> Any:
    await muted(t)
    await t.sentence("u2")
    await t.pass_(5)
    return await t.types(), (await t.recording())["commands_after_end"]


@talk("3.8", "a sentence is cut off by it", PART, **MUTE)
async def _(t: Talk) -> Any:
    await t.pass_(57.5 - 0.57)
    await t.sentence(seconds=5)
    await t.pass_(5)
    return (await t.recording())["utterances"][0]["played_bytes"]
