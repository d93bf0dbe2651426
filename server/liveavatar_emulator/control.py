"""Routes of the control API under /_emulator, for tests: recordings, knobs, faults, scenario, clock."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from liveavatar_emulator import recording as rec
from liveavatar_emulator import session_views
from liveavatar_emulator.auth import TheEmulator
from liveavatar_emulator.clock import ManualClock
from liveavatar_emulator.config import InvalidSetting, UnknownSetting
from liveavatar_emulator.fault_injector import NoMatchingSession
from liveavatar_emulator.faults import Fault
from liveavatar_emulator.routing import json_response
from liveavatar_emulator.scenario import BadScenario, Restart, check_rooms, parse
from liveavatar_emulator.scenario_run import AlreadyRestarting
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.session_store import StartedSession
from liveavatar_emulator.state import state_of

router = APIRouter(prefix="/_emulator")


class DropRequest(BaseModel):
    """Close code and reason of a socket to drop."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[int, Field(ge=1000, le=4999)] | None = None
    reason: Annotated[str, Field(max_length=100)] = ""


class AdvanceRequest(BaseModel):
    """Time by which to advance the clock."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seconds: Annotated[float, Field(ge=0, le=31_622_400)]


@router.get("/state")
async def state(emulator: TheEmulator) -> Response:
    """Return the counters of the service."""
    emulator.refresh()
    return json_response(state_of(emulator))


@router.get("/clock")
async def clock(emulator: TheEmulator) -> Response:
    """Return the time, and the mode and rate of the clock."""
    return json_response(_clock_row(emulator))


@router.post("/clock/advance")
async def advance_clock(emulator: TheEmulator, by: AdvanceRequest) -> Response:
    """Advance a manual clock; responds once everything due in that time has happened."""
    if not isinstance(emulator.clock, ManualClock):
        raise HTTPException(409, "the clock is real and moves by itself; start the emulator with --clock manual")
    # Pending work, such as the end of a reset socket, is settled first so that it precedes this line in the log.
    await emulator.clock.settle()
    emulator.log.append("clock.advance", seconds=by.seconds)
    called = await emulator.clock.advance(by.seconds)
    return json_response({**_clock_row(emulator), "timers": called})


@router.delete("/clock/late", status_code=204)
async def reset_timer_lag(emulator: TheEmulator) -> Response:
    """Begin a new window for `state.clock.late`."""
    emulator.timer_lag.reset()
    return Response(status_code=204)


@router.get("/settings")
async def settings(emulator: TheEmulator) -> Response:
    """Return all knobs."""
    return json_response(emulator.settings.model_dump())


@router.patch("/settings")
@router.put("/settings")
async def change_settings(emulator: TheEmulator, changes: Annotated[dict[str, Any], Body()]) -> Response:
    """Change the given knobs and return all of them."""
    try:
        emulator.change_settings(changes)
    except (UnknownSetting, InvalidSetting) as error:
        raise HTTPException(422, detail={"setting": error.name, "message": str(error)}) from error
    return json_response(emulator.settings.model_dump())


@router.patch("/accounts/{name}")
async def change_account(emulator: TheEmulator, name: str, changes: Annotated[dict[str, Any], Body()]) -> Response:
    """Change limits and revoked keys of one account and return them; null leaves a limit to its knob."""
    try:
        account = emulator.change_account(name, changes)
    except KeyError:
        raise HTTPException(404, f"no API key belongs to an account {name!r}") from None
    except ValidationError as error:
        raise HTTPException(422, detail=str(error.errors(include_url=False)[0]["msg"])) from error
    return json_response({"name": name, **account.limits.model_dump()})


@router.get("/faults")
async def armed_faults(emulator: TheEmulator) -> Response:
    """Return the armed faults, REST faults with the calls left."""
    return json_response(emulator.faults.armed())


@router.post("/faults", status_code=201)
async def arm_fault(emulator: TheEmulator, fault: Fault) -> Response:
    """Arm a fault; the Location header of the response is its resource for disarming."""
    try:
        number = emulator.faults.arm(fault)
    except NoMatchingSession as error:
        raise HTTPException(409, str(error)) from error
    response = json_response(emulator.faults.armed(), 201)
    response.headers["Location"] = f"/_emulator/faults/{number}"
    return response


@router.delete("/faults", status_code=204)
async def disarm_faults(emulator: TheEmulator) -> Response:
    """Disarm all faults."""
    emulator.faults.clear()
    return Response(status_code=204)


@router.delete("/faults/{number}", status_code=204)
async def disarm_fault(emulator: TheEmulator, number: int) -> Response:
    """Disarm one fault and undo its effect."""
    if not emulator.faults.disarm(number):
        raise HTTPException(404, f"fault {number} is not armed")
    return Response(status_code=204)


@router.get("/scenario")
async def scenario(emulator: TheEmulator) -> Response:
    """Return the running scenario and its progress."""
    if emulator.run is None:
        raise HTTPException(404, "no scenario is under way")
    return json_response(emulator.run.row())


@router.post("/scenario", status_code=201)
async def play_scenario(request: Request, emulator: TheEmulator) -> Response:
    """Set the knobs of the TOML in the body, and begin its timeline in place of the running one."""
    try:
        new = parse((await request.body()).decode())
        if emulator.avatar_host is not None:
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
    """Stop the running scenario; its knobs and armed faults stay."""
    emulator.play(None)
    return Response(status_code=204)


@router.post("/restart", status_code=202)
async def restart(emulator: TheEmulator, restart: Restart) -> Response:
    """Restart the service after this response."""
    try:
        emulator.restart(restart)
    except AlreadyRestarting as error:
        raise HTTPException(409, str(error)) from error
    return Response(status_code=202, headers={"Connection": "close"})


@router.get("/log")
async def event_log(emulator: TheEmulator, *, after: int = 0) -> Response:
    """Return the event log, one JSON line per event; `?after=n` omits lines up to number n."""
    return Response(emulator.log.lines(after), media_type="application/x-ndjson")


@router.post("/reset", status_code=204)
async def reset(emulator: TheEmulator, *, settings: bool = False) -> Response:
    """Forget sessions, counters and faults; `?settings=true` also restores the initial knobs."""
    emulator.reset(restore_settings=settings)
    if emulator.avatar_host is not None:
        await emulator.avatar_host.clear()
    return Response(status_code=204)


@router.get("/sessions")
async def sessions(emulator: TheEmulator) -> Response:
    """Return all recorded sessions in short, in the order of their start."""
    emulator.refresh()
    now_s = emulator.now_s()
    return json_response([session_views.summary(started, now_s) for started in emulator.sessions])


@router.get("/sessions/{session_id}")
async def session(emulator: TheEmulator, session_id: str) -> Response:
    """Return one session's whole recording without audio."""
    return json_response(session_views.full(_started_session(emulator, session_id), emulator.now_s()))


@router.get("/sessions/{session_id}/audio")
async def session_audio(emulator: TheEmulator, session_id: str) -> Response:
    """Return all PCM that the session received, in order."""
    try:
        pcm = _started_session(emulator, session_id).driver.session.recording.audio()
    except rec.AudioNotKept as error:
        raise HTTPException(409, str(error)) from error
    return Response(pcm, media_type="application/octet-stream")


@router.get("/sessions/{session_id}/utterances/{number}/audio")
async def utterance_audio(
    emulator: TheEmulator, session_id: str, number: int, *, played: bool = False
) -> Response:
    """Return one utterance's PCM; with `?played=true` only the part that was played."""
    pcm = _utterance_pcm(emulator, session_id, number, played=played)
    return Response(pcm, media_type="application/octet-stream")


@router.get("/sessions/{session_id}/utterances/{number}/audio.wav")
async def utterance_wav(emulator: TheEmulator, session_id: str, number: int, *, played: bool = False) -> Response:
    """Return one utterance as a WAV file; with `?played=true` only the part that was played."""
    return Response(rec.wav(_utterance_pcm(emulator, session_id, number, played=played)), media_type="audio/wav")


@router.post("/sessions/{session_id}/drop", status_code=204)
async def drop(emulator: TheEmulator, session_id: str, how: DropRequest) -> Response:
    """Close the socket with a code, or reset its TCP connection if the code is null. The session lives on."""
    if not _started_session(emulator, session_id).driver.drop(how.code, how.reason):
        raise HTTPException(409, "no socket is attached")
    return Response(status_code=204)


@router.post("/sessions/{session_id}/inject", status_code=204)
async def inject(request: Request, emulator: TheEmulator, session_id: str) -> Response:
    """Send the request's body to the client as one unchanged text frame."""
    try:
        frame = await request.body()
        frame.decode()
    except UnicodeDecodeError as error:
        raise HTTPException(422, "a text frame must be UTF-8") from error
    if not _started_session(emulator, session_id).driver.inject(frame):
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


def _started_session(emulator: Emulator, session_id: str) -> StartedSession:
    started = emulator.sessions.get(session_id)
    if started is None:
        raise HTTPException(404, f"no session {session_id!r} was started since the last reset")
    started.driver.refresh()
    return started


def _utterance_pcm(emulator: Emulator, session_id: str, number: int, *, played: bool) -> bytes:
    session = _started_session(emulator, session_id).driver.session
    recording = session.recording
    if not 0 <= number < len(recording.utterances):
        raise HTTPException(404, f"session {session_id!r} has no utterance {number}")
    playback = recording.utterances[number].playback
    played_bytes = session.playback.playhead_bytes(playback, emulator.now_s()) if played else None
    try:
        return recording.utterance_audio(number, played_bytes=played_bytes)
    except rec.AudioNotKept as error:
        raise HTTPException(409, str(error)) from error
