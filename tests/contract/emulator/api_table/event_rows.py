"""Sections 3.4 and 3.5: events, field by field, and how they belong together."""

from functools import partial
from typing import Any

from contract.emulator.api_table.socket_rows import talk as talk_into
from contract.emulator.api_table.table import ABSENT, TEXT, Table, Talk

table = Table()
talk = partial(talk_into, into=table)

# -- 3.4: events, each with its fields

WHOLE = [
    {"type": "agent.audio_buffer_appended", "event_id": TEXT, "source_event_id": "u1", "task": {"id": TEXT}},
    {"type": "agent.audio_buffer_appended", "event_id": TEXT, "source_event_id": "u1", "task": {"id": TEXT}},
    {"type": "agent.audio_buffer_committed", "event_id": TEXT, "source_event_id": "u1"},
    {
        "type": "agent.state_updated",
        "event_id": TEXT,
        "source_event_id": None,
        "previous_state": "idle",
        "new_state": "talking",
    },
    {"type": "agent.speak_started", "event_id": TEXT, "source_event_id": "u1", "task": {"id": TEXT}},
    {"type": "agent.speak_ended", "event_id": TEXT, "source_event_id": "u1", "task": {"id": TEXT}},
    {
        "type": "agent.state_updated",
        "event_id": TEXT,
        "source_event_id": None,
        "previous_state": "talking",
        "new_state": "idle",
    },
]
for number, event in enumerate(WHOLE):

    @talk("3.4", f"event {number + 1} of an utterance in two chunks: {event['type']}", event)
    async def _(t: Talk, number: int = number) -> Any:
        await t.sentence(seconds=2)
        await t.pass_(3)
        return t.socket.events[number]


@talk("3.4", "and no other events", len(WHOLE))
async def _(t: Talk) -> Any:
    await t.sentence(seconds=2)
    await t.pass_(3)
    return len(t.socket.events)


INTERRUPTED = [
    {"type": "agent.audio_buffer_cleared", "event_id": TEXT, "source_event_id": "i1"},
    {"type": "agent.speak_interrupted", "event_id": TEXT, "source_event_id": "u2", "task": {"id": TEXT}},
    {
        "type": "agent.state_updated",
        "event_id": TEXT,
        "source_event_id": None,
        "previous_state": "talking",
        "new_state": "idle",
    },
]


async def _interrupt(t: Talk) -> list[dict[str, Any]]:
    """Return the events after an interrupt of `u2` by `i1`."""
    await t.sentence("u2", seconds=3)
    await t.pass_(0.5)
    t.socket.events.clear()
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(0.19)
    return list(t.socket.events)


for number, event in enumerate(INTERRUPTED):

    @talk("3.4", f"event {number + 1} of an interrupt: {event['type']}", event)
    async def _(t: Talk, number: int = number) -> Any:
        return (await _interrupt(t))[number]


@talk(
    "3.4",
    "session.state_updated carries the state",
    {"type": "session.state_updated", "event_id": TEXT, "state": "new"},
    ready=False,
)
async def _(t: Talk) -> Any:
    return t.socket.events[0]


@talk("3.4", "the ack of a chunk is at once", ["audio_buffer_appended"])
async def _(t: Talk) -> Any:
    await t.speak()
    return await t.types()


@talk("3.4", "the ack of speak_end comes while the avatar still talks", "talking")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.5)
    await t.send("agent.speak_end", event_id="u1")
    assert (await t.types())[-1] == "audio_buffer_committed"
    return (await t.recording())["pose"]


@talk("3.4", "one ack for each chunk", 5)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=5)
    return (await t.types()).count("audio_buffer_appended")


@talk("3.4", "acks, start and end name one task", 1)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=2)
    await t.pass_(3)
    return len({event["task"]["id"] for event in t.socket.events if "task" in event})


@talk("3.4", "another utterance is another task", 2)
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.sentence("u2")
    await t.pass_(5)
    return len({event["task"]["id"] for event in t.socket.events if "task" in event})


@talk("3.4", "speak_started comes 200 ms after the first chunk", "speak_started")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.2)
    return (await t.types())[-1]


@talk("3.4", "and not before", "audio_buffer_appended")
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.199)
    return (await t.types())[-1]


@talk("3.4", "idle events are not sent", [])
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(3)
    return [kind for kind in await t.types() if kind.startswith("idle_")]


@talk("3.4", "a knob sends them as older builds do", ["idle_ended", "idle_started"], idle_events=True)
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(3)
    return [kind for kind in await t.types() if kind.startswith("idle_")]


async def _farewell(t: Talk) -> list[dict[str, Any]]:
    body = {"session_id": t.session.id, "reason": "USER_DISCONNECTED"}
    await t.world.call("POST", "/sessions/stop", json=body)
    await t.socket.closed()
    return list(t.socket.events)


@talk(
    "3.4",
    "session.stopped names the reason",
    {"type": "session.stopped", "event_id": TEXT, "end_reason": "USER_DISCONNECTED"},
)
async def _(t: Talk) -> Any:
    return (await _farewell(t))[0]


@talk("3.4", "a knob leaves session.stopped out", ["session.state_updated"], session_stopped_event=False)
async def _(t: Talk) -> Any:
    return [event["type"] for event in await _farewell(t)]


@talk("3.4", "classic has no session.stopped", ["session.state_updated"] * 2, profile="classic")
async def _(t: Talk) -> Any:
    return [event["type"] for event in await _farewell(t)]


@talk(
    "3.4",
    "an error names its type, the problem and the command",
    {
        "type": "error",
        "event_id": TEXT,
        "error": {"type": "invalid_request_error", "message": "invalid base64 audio data", "event_id": "u1"},
    },
)
async def _(t: Talk) -> Any:
    await t.send("agent.speak", event_id="u1", audio="not base64!")
    return await t.event("error")


@talk(
    "3.4",
    "a warning names its type and says what is odd",
    {"type": "warning", "event_id": TEXT, "warning": {"type": TEXT, "message": TEXT}},
    warn_wrong_pose=True,
)
async def _(t: Talk) -> Any:
    await t.send("agent.stop_listening", event_id="l1")
    return await t.event("warning")


@talk(
    "3.4",
    "a whole run has eight types of events",
    sorted(
        (
            *("agent.speak_started", "agent.speak_ended", "agent.speak_interrupted"),
            *("agent.audio_buffer_appended", "agent.audio_buffer_committed", "agent.audio_buffer_cleared"),
            *("agent.state_updated", "session.state_updated"),
        )
    ),
    ready=False,
)
async def _(t: Talk) -> Any:
    await t.pass_(2.5)
    await t.sentence("u1")
    await t.pass_(2)
    await t.sentence("u2")
    await t.pass_(0.5)
    await t.send("agent.interrupt", event_id="i1")
    await t.pass_(1)
    return sorted({event["type"] for event in t.socket.events})


@talk("3.4", "nothing is nested under payload", [])
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return [event for event in t.socket.events if "payload" in event]


# -- 3.5: what belongs to what, and in which order


@talk("3.5", "modern: every event has an id of its own", wanted=True)
async def _(t: Talk) -> Any:
    await t.sentence(seconds=2)
    await t.pass_(3)
    ids = [event["event_id"] for event in t.socket.events]
    return len(set(ids)) == len(ids) and "u1" not in ids


@talk("3.5", "classic: the command's id comes back as event_id", ["u1", "u1"], profile="classic")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return [event["event_id"] for event in t.socket.events]


@talk("3.5", "classic: no source_event_id", ABSENT, profile="classic")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return t.socket.events[0].get("source_event_id", ABSENT)


@talk("3.5", "classic: an utterance without an id gets one", TEXT, profile="classic")
async def _(t: Talk) -> Any:
    await t.speak(event_id=None)
    await t.pass_(0.2)
    return t.socket.events[0]["event_id"]


@talk("3.5", "acks_only: ids are fresh too", wanted=False, profile="acks_only")
async def _(t: Talk) -> Any:
    await t.sentence()
    return "u1" in [event["event_id"] for event in await t.read()]


@talk("3.5", "an ack cites its own chunk's id", ["a", "b", "c"])
async def _(t: Talk) -> Any:
    for name in "abc":
        await t.speak(event_id=name)
    return [event["source_event_id"] for event in await t.read()]


@talk("3.5", "speak_* cite the first chunk's id", ["a", "a"])
async def _(t: Talk) -> Any:
    for name in "abc":
        await t.speak(event_id=name)
    await t.send("agent.speak_end", event_id="d")
    await t.pass_(4)
    return [event["source_event_id"] for event in t.socket.events if event["type"].startswith("agent.speak_")]


@talk("3.5", "an id that was not given is cited as null", [None] * 2)
async def _(t: Talk) -> Any:
    await t.speak(event_id=None)
    await t.pass_(0.2)
    return [
        event["source_event_id"]
        for event in t.socket.events
        if event["type"] in ("agent.audio_buffer_appended", "agent.speak_started")
    ]


@talk("3.5", "acks come in the order of sending", [str(number) for number in range(8)])
async def _(t: Talk) -> Any:
    for number in range(8):
        await t.speak(bytes(960), str(number))
    return [event["source_event_id"] for event in await t.read()]


@talk(
    "3.5",
    "commands take effect in the order of arrival",
    [
        "audio_buffer_appended",
        "audio_buffer_committed",
        "idle→listening",
        "listening→idle",
        "audio_buffer_appended",
    ],
)
async def _(t: Talk) -> Any:
    await t.sentence("u1")
    await t.send("agent.start_listening", event_id="l1")
    await t.send("agent.stop_listening", event_id="l2")
    await t.speak(event_id="u2")
    return await t.types()


@talk("3.5", "talking is told before speak_started", ["idle→talking", "speak_started"])
async def _(t: Talk) -> Any:
    await t.speak()
    await t.pass_(0.2)
    return (await t.types())[1:]


@talk("3.5", "speak_ended is told before idle", ["speak_ended", "talking→idle"])
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return (await t.types())[-2:]


@talk("3.5", "a late speak_ended may follow an interrupt", ["speak_ended"], late_speak_ended_ms=500)
async def _(t: Talk) -> Any:
    await _interrupt(t)
    await t.pass_(0.499)
    t.socket.events = [event for event in t.socket.events if event["type"] == "agent.speak_ended"]
    assert not t.socket.events
    await t.pass_(0.001)
    return await t.types()


@talk("3.5", "and cites the utterance that was cut", "u2", late_speak_ended_ms=500)
async def _(t: Talk) -> Any:
    await _interrupt(t)
    await t.pass_(0.5)
    return (await t.event("agent.speak_ended"))["source_event_id"]


@talk("3.5", "by default it does not come", {})
async def _(t: Talk) -> Any:
    await _interrupt(t)
    await t.pass_(10)
    return await t.event("agent.speak_ended")


@talk("3.5", "acks_only has no speak_* at all", [], profile="acks_only")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return [kind for kind in await t.types() if kind.startswith("speak_")]


@talk("3.5", "acks_only still tells idle and talking", ["idle→talking", "talking→idle"], profile="acks_only")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return [kind for kind in await t.types() if "→" in kind]


@talk("3.5", "classic has neither acks nor poses", ["speak_started", "speak_ended"], profile="classic")
async def _(t: Talk) -> Any:
    await t.sentence()
    await t.pass_(2)
    return await t.types()
