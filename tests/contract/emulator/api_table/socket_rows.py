"""Sections 3.1 to 3.3: the connection, its states, and its commands."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from contract.emulator.api_table.table import SECOND, Table, Talk, World
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

table = Table()
Speech = Callable[[Talk], Awaitable[Any]]


def talk(
    section: str, rule: str, wanted: Any, *, ready: bool = True, into: Table = table, **knobs: Any
) -> Callable[[Speech], Speech]:
    """A row over one session with a socket attached, under changed knobs."""

    def keep(speech: Speech) -> Speech:
        async def see(world: World) -> Any:
            async with world.talk(ready=ready, knobs=knobs) as talk:
                return await speech(talk)

        into.add(section, rule, see, wanted)
        return speech

    return keep


# -- 3.1: connection


@talk("3.1", "every frame is one JSON object with a type", wanted=[True])
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return sorted({isinstance(event, dict) and isinstance(event["type"], str) for event in t.socket.events})


@talk("3.1", "no hello is needed, and connected comes 2.5 s after the socket", ["new", "connected"], ready=False)
async def _(t: Talk) -> Any:
    await t.pass_(2.5)
    return await t.types()


@talk("3.1", "connected does not come sooner", ["new"], ready=False)
async def _(t: Talk) -> Any:
    await t.pass_(2.499)
    return await t.types()


@table.row("3.1", "the delay begins with the socket, not with start", ["new"])
async def _(w: World) -> Any:
    session = await w.session()
    await w.advance(10)
    async with w.emulator.socket(session) as socket:
        t = Talk(w, session, socket)
        await socket.until("session.state_updated")
        await t.pass_(2.499)
        return await t.types()


START = {"encoding": "pcm_s16le", "sample_rate": 24000, "channels": 1}


@talk("3.1", "the starter's `start` frame is ignored", [])
async def _(t: Talk) -> Any:
    await t.send("start", **START)
    return await t.types()


@talk("3.1", "the starter's `start` frame before every utterance does no harm", 2)
async def _(t: Talk) -> Any:
    for name in ("u1", "u2"):
        await t.send("start", **START)
        await t.sentence(name)
    return len((await t.recording())["utterances"])


@talk("3.1", "the `start` frame draws an error in strict mode", "invalid_request_error", strict=True)
async def _(t: Talk) -> Any:
    await t.send("start", **START)
    return (await t.event("error"))["error"]["type"]


@talk("3.1", "a client's ping is answered", wanted=True)
async def _(t: Talk) -> Any:
    return await (await t.socket.connection.ping()) >= 0


@talk("3.1", "no subprotocol is chosen", None)
async def _(t: Talk) -> Any:
    return t.socket.connection.subprotocol


async def _status_of(url: str) -> int:
    try:
        async with connect(url):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code


@table.row("3.1", "an unknown ws_url is refused", 403)
async def _(w: World) -> Any:
    return await _status_of((await w.session()).ws_url[:-4] + "none")


@table.row("3.1", "the ws_url of an ended session is refused", 403)
async def _(w: World) -> Any:
    session = await w.session()
    await w.call("POST", "/sessions/stop", key=None, bearer=session.token)
    return await _status_of(session.ws_url)


@talk("3.1", "a second socket closes the first with 1000", 1000)
async def _(t: Talk) -> Any:
    async with t.world.emulator.socket(t.session):
        return await t.socket.closed()


@asynccontextmanager
async def reattached(t: Talk, away_s: float = 0) -> AsyncIterator[Talk]:
    """The same session over a new socket, some time after the old one was closed."""
    await t.socket.connection.close()
    await t.world.emulator.recorded(t.session, lambda seen: not seen["socket_open"])
    await t.world.advance(away_s)
    async with t.world.emulator.socket(t.session) as socket:
        await t.world.emulator.recorded(t.session, lambda seen: seen["socket_open"])
        yield Talk(t.world, t.session, socket)


@talk("3.1", "a new socket on the same ws_url is told connected again", ["connected"])
async def _(t: Talk) -> Any:
    async with reattached(t) as again:
        return await again.types()


@talk("3.1", "or, by a knob, nothing", [], reconnect_emits_connected=False)
async def _(t: Talk) -> Any:
    async with reattached(t) as again:
        return await again.types()


@talk(
    "3.1", "after a re-attach commands count at once", ["audio_buffer_appended"], reconnect_emits_connected=False
)
async def _(t: Talk) -> Any:
    async with reattached(t) as again:
        await again.speak()
        return await again.types()


@talk("3.1", "events of the gap are not replayed", ["connected"])
async def _(t: Talk) -> Any:
    await t.sentence()
    async with reattached(t, away_s=5) as again:
        return await again.types()


@talk("3.1", "a re-attach does not begin the delay anew", ["new", "connected"], ready=False)
async def _(t: Talk) -> Any:
    await t.pass_(2)
    async with reattached(t) as again:
        await again.pass_(0.5)
        return await again.types()


# -- 3.2: states

for profile, states in (
    ("modern", ["new", "connected", "disconnected"]),
    ("classic", ["connecting", "connected", "closing", "closed"]),
    ("acks_only", ["new", "connected", "disconnected"]),
):

    @talk("3.2", f"session states of {profile}", states, ready=False, profile=profile)
    async def _(t: Talk) -> Any:
        await t.pass_(2.5)
        await t.world.call("POST", "/sessions/stop", key=None, bearer=t.session.token)
        await t.socket.closed()
        return [event["state"] for event in t.socket.events if event["type"] == "session.state_updated"]


@talk("3.2", "idle to talking", ["idle→talking"])
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.2)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.2", "talking to idle", ["idle→talking", "talking→idle"])
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(1.2)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.2", "idle to listening and back", ["idle→listening", "listening→idle"])
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.stop_listening", event_id="l2")
    return await t.types()


@talk("3.2", "listening to talking", ["idle→listening", "listening→talking"])
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.speak()
    await t.pass_(0.2)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.2", "a knob never says connected", ["new"], ready=False, never_connected=True)
async def _(t: Talk) -> Any:
    await t.pass_(10)
    return await t.types()


@talk("3.2", "and is ready all the same", "audio_buffer_appended", ready=False, never_connected=True)
async def _(t: Talk) -> Any:
    await t.pass_(2.5)
    await t.speak()
    return (await t.types())[-1]


# -- 3.3: commands


async def _utterances(t: Talk) -> list[list[str]]:
    return [utterance["event_ids"] for utterance in (await t.recording())["utterances"]]


@talk("3.3", "speak opens an utterance", [["u1"]])
async def _(t: Talk) -> Any:
    await t.speak()
    return await _utterances(t)


@talk("3.3", "speak appends to the open utterance", 2 * len(SECOND))
async def _(t: Talk) -> Any:
    await t.speak()
    await t.speak()
    return (await t.recording())["utterances"][0]["received_bytes"]


@talk("3.3", "an id of its own for each chunk is one utterance", [["a", "b", "c"]])
async def _(t: Talk) -> Any:
    for name in "abc":
        await t.speak(event_id=name)
    return await _utterances(t)


@talk("3.3", "speak without an id", ["audio_buffer_appended"])
async def _(t: Talk) -> Any:
    await t.send("agent.speak", audio=base64.b64encode(SECOND).decode())
    return await t.types()


@talk("3.3", "speak with the id null", ["audio_buffer_appended"])
async def _(t: Talk) -> Any:
    await t.speak(event_id=None)
    return await t.types()


@talk("3.3", "speak queues: a second utterance does not cut the first", ["ended", "ended"])
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.sentence("u2")
    await t.pass_(5)
    return [utterance["outcome"] for utterance in (await t.recording())["utterances"]]


@talk("3.3", "speak_end without an id", ["audio_buffer_appended", "audio_buffer_committed"])
async def _(t: Talk) -> Any:
    await t.speak()
    await t.send("agent.speak_end")
    return await t.types()


@talk("3.3", "speak_end seals: what follows is another utterance", [["u1"], ["u2"]])
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.speak(event_id="u2")
    return await _utterances(t)


@talk("3.3", "speak_end may bring a last piece of audio", len(SECOND) + 960)
async def _(t: Talk) -> Any:
    await t.speak()
    await t.send("agent.speak_end", event_id="u1", audio=base64.b64encode(bytes(960)).decode())
    return (await t.recording())["utterances"][0]["received_bytes"]


@talk("3.3", "speak_end with nothing open is only acknowledged", ["audio_buffer_committed"])
async def _(t: Talk) -> Any:
    await t.send("agent.speak_end", event_id="e1")
    await t.pass_(1)
    return await t.types()


for what, fields, source in (
    ("its own id", {"event_id": "i1"}, "i1"),
    ("the utterance's id", {"event_id": "u1"}, "u1"),
    ("the id null", {"event_id": None}, None),
    ("no id", {}, None),
):

    @talk("3.3", f"interrupt with {what}", source)
    async def _(t: Talk, fields: dict[str, Any] = fields) -> Any:
        await t.sentence(seconds=3)
        await t.pass_(0.5)
        await t.send("agent.interrupt", **fields)
        await t.pass_(0.19)
        return (await t.event("agent.audio_buffer_cleared"))["source_event_id"]


@talk("3.3", "interrupt drops what is queued", ["interrupted", "interrupted"])
async def _(t: Talk) -> Any:
    await t.sentence("u1", seconds=3)
    await t.sentence("u2")
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(10)
    return [utterance["outcome"] for utterance in (await t.recording())["utterances"]]


@talk("3.3", "interrupt seals the utterance", [["u1"], ["u1"]])
async def _(t: Talk) -> Any:
    await t.speak()
    await t.send("agent.interrupt", event_id="i1")
    await t.speak()
    return await _utterances(t)


@talk("3.3", "interrupt returns to idle", "idle")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.3)
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(0.19)
    return (await t.recording())["pose"]


@talk("3.3", "start_listening while talking changes nothing", "talking")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.3)
    await t.send("agent.start_listening", event_id="l1")
    return (await t.recording())["pose"]


@talk("3.3", "stop_listening while not listening changes nothing", [])
async def _(t: Talk) -> Any:
    await t.send("agent.stop_listening", event_id="l1")
    return await t.types()


@talk("3.3", "start_listening twice counts once", ["idle→listening"])
async def _(t: Talk) -> Any:
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.start_listening", event_id="l2")
    return await t.types()


@talk("3.3", "keep_alive is not answered", [])
async def _(t: Talk) -> Any:
    await t.send("session.keep_alive", event_id="k1")
    await t.pass_(1)
    return await t.types()


@talk("3.3", "keep_alive resets the idle timer", [])
async def _(t: Talk) -> Any:
    await t.pass_(297)
    await t.send("session.keep_alive", event_id="k1")
    await t.pass_(299)
    return await t.types()


def frame_of(characters: int) -> str:
    """A speak frame of exactly so many characters."""
    audio = base64.b64encode(bytes(699_000)).decode()
    bare = len(json.dumps({"type": "agent.speak", "audio": audio, "pad": ""}))
    return json.dumps({"type": "agent.speak", "audio": audio, "pad": "x" * (characters - bare)})


@talk("3.3", "a frame of one million characters passes", 699_000)
async def _(t: Talk) -> Any:
    await t.raw(frame_of(1_000_000))
    return (await t.recording())["received_bytes"]


@talk("3.3", "one character more closes the socket with 1009", 1009)
async def _(t: Talk) -> Any:
    await t.socket.connection.send(frame_of(1_000_001))
    return await t.socket.closed()


@talk("3.3", "or, by a knob, vanishes", (1, 0, True), oversize="drop")
async def _(t: Talk) -> Any:
    await t.socket.connection.send(frame_of(1_000_001))
    seen = await t.world.emulator.recorded(t.session, lambda seen: seen["oversize_packets"] == 1)
    return seen["oversize_packets"], seen["received_bytes"], seen["socket_open"]


@talk("3.3", "700 000 bytes of PCM fit into a frame", 700_000)
async def _(t: Talk) -> Any:
    await t.speak(bytes(700_000))
    return (await t.recording())["received_bytes"]
