"""Page for watching a session: its files, its status data, and its access to the room.

The page is built from `viewer/` in the repository by `make viewer`, into `viewer_page/` beside this module.
"""

import secrets
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import FileResponse, HTMLResponse

from liveavatar_emulator import rooms
from liveavatar_emulator.auth import TheEmulator
from liveavatar_emulator.routing import json_response
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.session_store import StartedSession

router = APIRouter()

PAGE = Path(__file__).parent / "viewer_page"
"""Output folder of the build; absent in a checkout without a build."""

_INDEX = "index.html"
_ASSETS = {
    "page.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "licences.txt": "text/plain",
}
"""Files of the build beside the index, with media types; no other file is served."""

_NEVER_STORED = {"Cache-Control": "no-store"}

_NOT_BUILT = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LiveAvatar emulator</title>
<h1>This page is not built yet</h1>
<p>One command builds it, in a checkout of the project and with Node.js 20 or newer:</p>
<pre>make viewer</pre>
<p>Then reload. The emulator need not be restarted.</p>
"""


@router.get("/viewer", include_in_schema=False)
async def page(emulator: TheEmulator) -> Response:
    """Return the page, or a 503 with the command that builds it."""
    headers = _headers(emulator)
    if not (PAGE / _INDEX).is_file():
        return HTMLResponse(_NOT_BUILT, 503, headers)
    return FileResponse(PAGE / _INDEX, media_type="text/html", headers=headers)


@router.get("/viewer/{name}", include_in_schema=False)
async def asset(emulator: TheEmulator, name: str) -> Response:
    """Return one of the page's files."""
    if name not in _ASSETS or not (PAGE / name).is_file():
        raise HTTPException(404, f"the viewer has no file {name!r}")
    return FileResponse(PAGE / name, media_type=_ASSETS[name], headers=_headers(emulator))


@router.get("/_emulator/viewer")
async def status(
    emulator: TheEmulator,
    session: Annotated[str | None, Query(description="Session whose status is added.")] = None,
) -> Response:
    """Return the running sessions in the order of their start, and the watched session."""
    emulator.refresh()
    asked = emulator.sessions.get(session) if session is not None else None
    body = {
        "livekit": emulator.config.livekit is not None,
        "running": [_view(emulator, started) for started in emulator.sessions.active()],
        "session": None if asked is None else _view(emulator, asked),
    }
    return json_response(body, headers=_NEVER_STORED)


@router.get("/_emulator/sessions/{session_id}/viewer")
async def join(emulator: TheEmulator, session_id: str) -> Response:
    """Return access to a running session's room for a new hidden observer."""
    started = emulator.sessions.get(session_id)
    if started is None:
        raise HTTPException(404, f"no session {session_id!r} was started since the last reset")
    if not started.record.active:
        raise HTTPException(409, f"session {session_id!r} is over")
    livekit = emulator.config.livekit
    if livekit is None:
        hint = "start it with --livekit-url, --livekit-key and --livekit-secret"
        raise HTTPException(409, f"the emulator has no LiveKit server, so there is no room to join; {hint}")
    own = started.minted.request.livekit_room
    if started.minted.request.agora_room is not None:
        raise HTTPException(409, "this session is in an Agora channel, which this page cannot join")
    if own is not None and not _same_server(own.url, livekit.url):
        raise HTTPException(
            409, f"the room {own.room!r} is on its caller's own server; join it with a token from that server"
        )
    body = {
        "url": livekit.url,
        "room": rooms.room_name(session_id, own),
        # Each observer has its own identity: LiveKit disconnects a participant whose identity joins again.
        "token": rooms.observer_token(
            livekit,
            session_id,
            own,
            f"watcher-{secrets.token_hex(6)}",
            started.minted.request.max_session_duration,
        ),
    }
    return json_response(body, headers=_NEVER_STORED)


def _view(emulator: Emulator, started: StartedSession) -> dict[str, Any]:
    session, record, own = started.driver.session, started.record, started.minted.request.livekit_room
    return {
        "id": record.id,
        "phase": session.phase.value,
        "pose": session.pose.value,
        "duration_s": round(record.duration_s(emulator.now_s()), 3),
        "end_reason": record.end_reason,
        "livekit_room": own.room if own else None,
    }


def _headers(emulator: Emulator) -> dict[str, str]:
    """Return the headers of every file: the page may run its own script and reach the emulator and LiveKit only.

    Source: Content Security Policy Level 3. `'self'` covers neither another port nor, in all browsers, `ws:`.
    """
    reach = ["'self'"]
    if emulator.config.livekit is not None:
        parts = urlsplit(emulator.config.livekit.url)
        secure = "s" if parts.scheme == "wss" else ""
        # LiveKit's client asks over HTTP why a WebSocket was refused.
        reach += [f"ws{secure}://{parts.netloc}", f"http{secure}://{parts.netloc}"]
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src {' '.join(reach)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _same_server(one: str, other: str) -> bool:
    return urlsplit(one).netloc == urlsplit(other).netloc
