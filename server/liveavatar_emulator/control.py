"""The /_emulator API: look at what happened, turn knobs, arm faults. JSON, without auth: for tests only."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from liveavatar_emulator import recording as rec
from liveavatar_emulator.auth import TheEmulator
from liveavatar_emulator.clock import ManualClock
from liveavatar_emulator.config import InvalidSetting, UnknownSetting
from liveavatar_emulator.fault_injector import NoSession
from liveavatar_emulator.faults import Fault
from liveavatar_emulator.gate import json_response
from liveavatar_emulator.scenario import BadScenario, Restart, check_rooms, parse
from liveavatar_emulator.scenario_run import Busy
from liveavatar_emulator.service import Emulator, Entry
from liveavatar_emulator.state import state_of

router = APIRouter(prefix="/_emulator")


class DropRequest(BaseModel):
    """How to close a socket."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[int, Field(ge=1000, le=4999)] | None = None
    reason: Annotated[str, Field(max_length=100)] = ""


class AdvanceRequest(BaseModel):
    """How far to move the clock."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0, le=31_622_400)]


@router.get("/state")
async def state(emulator: TheEmulator) -> Response:
    """Counters."""
    emulator.refresh()
    return json_response(state_of(emulator))


@router.get("/clock")
async def clock(emulator: TheEmulator) -> Response:
    """What time it is, and how it moves."""
    return json_response(_clock_row(emulator))


@router.post("/clock/advance")
async def advance_clock(emulator: TheEmulator, by: AdvanceRequest) -> Response:
    """Move a manual clock; answers when everything that was due on the way has happened."""
    if not isinstance(emulator.clock, ManualClock):
        raise HTTPException(409, "the clock is real and moves by itself; start the emulator with --clock manual")
    # What came before has its turn first, the end of a socket that was reset too: it is noted before this.
    await emulator.clock.settle()
    emulator.log.note("clock.advance", seconds=by.seconds)
    called = await emulator.clock.advance(by.seconds)
    return json_response({**_clock_row(emulator), "timers": called})


@router.delete("/clock/late", status_code=204)
async def forget_lateness(emulator: TheEmulator) -> Response:
    """Begin a new window for `state.clock.late`."""
    emulator.lateness.forget()
    return Response(status_code=204)


@router.get("/settings")
async def settings(emulator: TheEmulator) -> Response:
    """All knobs."""
    return json_response(emulator.settings.model_dump())


@router.patch("/settings")
@router.put("/settings")
async def change_settings(emulator: TheEmulator, changes: Annotated[dict[str, Any], Body()]) -> Response:
    """Change the knobs that are named; answers with all of them."""
    try:
        emulator.change_settings(changes)
    except (UnknownSetting, InvalidSetting) as error:
        raise HTTPException(422, detail={"setting": error.name, "message": str(error)}) from error
    return json_response(emulator.settings.model_dump())


@router.get("/faults")
async def armed_faults(emulator: TheEmulator) -> Response:
    """Armed faults, with the calls each still hits."""
    return json_response(emulator.faults.armed())


@router.post("/faults", status_code=201)
async def arm_fault(emulator: TheEmulator, fault: Fault) -> Response:
    """Arm one; the answer's Location says how to disarm it again."""
    try:
        number = emulator.faults.arm(fault)
    except NoSession as error:
        raise HTTPException(409, str(error)) from error
    response = json_response(emulator.faults.armed(), 201)
    response.headers["Location"] = f"/_emulator/faults/{number}"
    return response


@router.delete("/faults", status_code=204)
async def disarm_faults(emulator: TheEmulator) -> Response:
    """Disarm all."""
    emulator.faults.clear()
    return Response(status_code=204)


@router.delete("/faults/{number}", status_code=204)
async def disarm_fault(emulator: TheEmulator, number: int) -> Response:
    """Disarm one, and end what it does."""
    if not emulator.faults.disarm(number):
        raise HTTPException(404, f"fault {number} is not armed")
    return Response(status_code=204)


@router.get("/scenario")
async def scenario(emulator: TheEmulator) -> Response:
    """The scenario under way, and how far it is."""
    if emulator.run is None:
        raise HTTPException(404, "no scenario is under way")
    return json_response(emulator.run.row())


@router.post("/scenario", status_code=201)
async def play_scenario(request: Request, emulator: TheEmulator) -> Response:
    """Set the knobs of the TOML in the body and begin its timeline now, in place of any other."""
    try:
        new = parse((await request.body()).decode())
        if emulator.stage is not None:
            check_rooms(new)
    except UnicodeDecodeError as error:
        raise HTTPException(422, "a scenario is UTF-8 text") from error
    except BadScenario as error:
        raise HTTPException(422, str(error)) from error
    if new.settings:
        emulator.change_settings(new.settings)
    emulator.play(new)
    return json_response(emulator.run.row() if emulator.run else {"settings": new.settings}, 201)


@router.delete("/scenario", status_code=204)
async def stop_scenario(emulator: TheEmulator) -> Response:
    """End the scenario under way; knobs and what it armed stay."""
    emulator.play(None)
    return Response(status_code=204)


@router.post("/restart", status_code=202)
async def restart(emulator: TheEmulator, order: Restart) -> Response:
    """Go down after this answer, and come back."""
    try:
        emulator.restart(order)
    except Busy as error:
        raise HTTPException(409, str(error)) from error
    return Response(status_code=202, headers={"Connection": "close"})


@router.get("/log")
async def event_log(emulator: TheEmulator, *, after: int = 0) -> Response:
    """What happened, one JSON line each; `?after=n` leaves out lines up to number n."""
    return Response(emulator.log.lines(after), media_type="application/x-ndjson")


@router.post("/reset", status_code=204)
async def reset(emulator: TheEmulator, *, settings: bool = False) -> Response:
    """Forget sessions, counters and faults; with `?settings=true` also go back to the knobs of the start."""
    emulator.reset(restore_settings=settings)
    if emulator.stage is not None:
        await emulator.stage.clear()
    return Response(status_code=204)


@router.get("/sessions")
async def sessions(emulator: TheEmulator) -> Response:
    """All recorded sessions in order of their start, each in short."""
    emulator.refresh()
    return json_response([_summary(emulator, entry) for entry in emulator.sessions.values()])


@router.get("/sessions/{session_id}")
async def session(emulator: TheEmulator, session_id: str) -> Response:
    """One session's full recording, without audio."""
    return json_response(_full(emulator, _entry(emulator, session_id)))


@router.get("/sessions/{session_id}/audio")
async def session_audio(emulator: TheEmulator, session_id: str) -> Response:
    """All PCM the session received, in order."""
    try:
        pcm = _entry(emulator, session_id).live.core.recording.audio()
    except rec.AudioNotKept as error:
        raise HTTPException(409, str(error)) from error
    return Response(pcm, media_type="application/octet-stream")


@router.get("/sessions/{session_id}/utterances/{number}/audio")
async def utterance_audio(
    emulator: TheEmulator, session_id: str, number: int, *, played: bool = False
) -> Response:
    """One utterance's PCM; only what was heard of it with `?played=true`."""
    pcm = _utterance_pcm(emulator, session_id, number, played=played)
    return Response(pcm, media_type="application/octet-stream")


@router.get("/sessions/{session_id}/utterances/{number}/audio.wav")
async def utterance_wav(emulator: TheEmulator, session_id: str, number: int, *, played: bool = False) -> Response:
    """The same as a WAV file."""
    return Response(rec.wav(_utterance_pcm(emulator, session_id, number, played=played)), media_type="audio/wav")


@router.post("/sessions/{session_id}/drop", status_code=204)
async def drop(emulator: TheEmulator, session_id: str, how: DropRequest) -> Response:
    """Close the socket with a code, or abort its TCP connection when code is null. The session lives on."""
    if not _entry(emulator, session_id).live.drop(how.code, how.reason):
        raise HTTPException(409, "no socket is attached")
    return Response(status_code=204)


@router.post("/sessions/{session_id}/inject", status_code=204)
async def inject(request: Request, emulator: TheEmulator, session_id: str) -> Response:
    """Send the request's body to the client as one text frame, as it is."""
    try:
        frame = await request.body()
        frame.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(422, "a text frame must be UTF-8") from error
    if not _entry(emulator, session_id).live.inject(frame):
        raise HTTPException(409, "no socket is attached")
    return Response(status_code=204)


def _clock_row(emulator: Emulator) -> dict[str, Any]:
    clock = emulator.clock
    return {
        "mode": clock.mode,
        "rate": clock.rate,
        "speed": emulator.settings.speed,
        "now_s": clock.now_s(),
        "at_s": emulator.at_s(),
        "utc": datetime.fromtimestamp(clock.utc_s(), UTC).isoformat(timespec="milliseconds"),
    }


def _entry(emulator: Emulator, session_id: str) -> Entry:
    entry = emulator.sessions.get(session_id)
    if entry is None:
        raise HTTPException(404, f"no session {session_id!r} was started since the last reset")
    entry.live.refresh()
    return entry


def _utterance_pcm(emulator: Emulator, session_id: str, number: int, *, played: bool) -> bytes:
    core = _entry(emulator, session_id).live.core
    if not 0 <= number < len(core.recording.utterances):
        raise HTTPException(404, f"session {session_id!r} has no utterance {number}")
    life = core.recording.utterances[number].playback
    played_bytes = core.playback.playhead_bytes(life, emulator.now_s()) if played else None
    try:
        return core.recording.utterance_audio(number, played_bytes=played_bytes)
    except rec.AudioNotKept as error:
        raise HTTPException(409, str(error)) from error


def _summary(emulator: Emulator, entry: Entry) -> dict[str, Any]:
    core, recording, record = entry.live.core, entry.live.core.recording, entry.record
    return {
        "id": record.id,
        "account": record.account,
        "phase": core.phase.value,
        "pose": core.pose.value,
        "socket_open": entry.live.socket_open,
        "started_mono_s": record.started_s,
        "duration_s": round(record.duration_s(emulator.now_s()), 6),
        "end_reason": record.end_reason,
        "utterances": len(recording.utterances),
        "received_bytes": recording.received_bytes,
        "underruns": recording.underruns,
        "commands_before_ready": recording.commands_before_ready,
    }


def _full(emulator: Emulator, entry: Entry) -> dict[str, Any]:
    core, recording, record, order = (
        entry.live.core,
        entry.live.core.recording,
        entry.record,
        entry.ticket.order,
    )
    now_s = emulator.now_s()

    def at(moment_s: float | None) -> float | None:
        return None if moment_s is None else recording.since_start_s(moment_s)

    return {
        **record.row(now_s),
        "avatar_id": record.avatar_id,
        "account": record.account,
        "quality": order.quality,
        "encoding": order.encoding,
        "max_session_duration": order.max_session_duration,
        "livekit_room": order.livekit_room.room if order.livekit_room else None,
        "own_channel": order.own_channel,
        "connector": order.connector.field if order.connector else None,
        "events_erased": record.events_erased,
        "media": entry.avatar.row() if entry.avatar else None,
        "profile": core.events.profile,
        "phase": core.phase.value,
        "pose": core.pose.value,
        "socket_open": entry.live.socket_open,
        "started_mono_s": record.started_s,
        "ready_at_s": at(core.ready_s),
        "ended_at_s": at(record.ended_s),
        "end_reason": record.end_reason,
        "close_code": recording.sockets[-1].close_code if recording.sockets else None,
        "sockets": [
            {
                "opened_at_s": socket.opened_at_s,
                "closed_at_s": socket.closed_at_s,
                "close_code": socket.close_code,
                "close_reason": socket.close_reason,
                "closed_by": socket.closed_by,
            }
            for socket in recording.sockets
        ],
        "received_bytes": recording.received_bytes,
        "kept_bytes": recording.kept_bytes,
        "sha256": recording.sha256,
        "packet_count": recording.packet_count,
        "packets": list(recording.packet_rows()),
        "utterances": [
            recording.utterance_row(utterance, core.playback.playhead_bytes(utterance.playback, now_s))
            for utterance in recording.utterances
        ],
        "interrupts": [
            {
                "event_id": cut.event_id,
                "received_at_s": cut.received_at_s,
                "effective_at_s": cut.effective_at_s,
                "utterance": cut.utterance,
                "played_bytes": cut.played_bytes,
                "dropped_utterances": cut.dropped_utterances,
            }
            for cut in recording.interrupts
        ],
        "underruns": {"count": recording.underruns, "dry_s": round(recording.dry_s, 6)},
        "audio_after_interrupt": {"packets": recording.late_packets, "bytes": recording.late_bytes},
        "commands_before_ready": recording.commands_before_ready,
        "commands_after_end": recording.commands_after_end,
        "unknown_messages": recording.unknown_messages,
        "invalid_messages": recording.invalid_messages,
        "oversize_packets": recording.oversize_packets,
        "odd_size_packets": recording.odd_size_packets,
        "refused_packets": recording.refused_packets,
        "keepalives": [{"at_s": at_s, "via": via} for at_s, via in recording.keepalives],
        "command_count": recording.command_count,
        "commands": [
            {"at_s": at_s, "type": kind, "event_id": event_id} for at_s, kind, event_id in recording.commands
        ],
    }
