"""Routes of sessions: mint, start, stop, keep alive, look up, and erase events."""

from typing import Annotated, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from liveavatar_emulator import errors
from liveavatar_emulator.account import Account, EndReason, SessionRecord
from liveavatar_emulator.auth import BearerSession, KeyAccount, KeyOrBearer, TheEmulator
from liveavatar_emulator.rest.responses import Paging, page, success
from liveavatar_emulator.rest.token import TokenRequest
from liveavatar_emulator.routing import ServiceRoute
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.session_store import MintedSession

router = APIRouter(prefix="/v1/sessions", route_class=ServiceRoute)


class SessionRef(BaseModel):
    """Body of keep-alive; with a bearer token it adds nothing to the token."""

    session_id: UUID | None = None


class StopRequest(SessionRef):
    """Body of stop. Any reason of the enum is accepted, also those that the service sets itself."""

    reason: EndReason = "UNKNOWN"


NO_STOP_BODY = StopRequest(reason="USER_CLOSED")
"""Reason of a stop without a body. A body without a reason has another default; the schema has both."""


class SessionFilter(Paging):
    """Filter of listed sessions. A context is always that of a connector; no session comes from an embed."""

    type: Literal["active", "historic"]
    avatar_id: str | None = None
    embed_id: str | None = None
    context_id: str | None = None


class TranscriptSpan(BaseModel):
    """Requested part of a transcript."""

    start_timestamp: int | None = None
    end_timestamp: int | None = None


@router.post("/token", name="token")
async def mint(emulator: TheEmulator, account: KeyAccount, body: TokenRequest) -> Response:
    """Mint a session token; starts nothing and costs nothing."""
    minted, token = emulator.mint(account, body.session_request(emulator.settings))
    return success(emulator, {"session_id": minted.session_id, "session_token": token})


@router.post("/start", name="start")
async def start(request: Request, emulator: TheEmulator, minted: BearerSession) -> Response:
    """Start a minted session with status 201; billing begins. The body is not read."""
    return success(emulator, emulator.start(minted, _ws_base(request, emulator)), status=201)


@router.post("/stop", name="stop")
async def stop(emulator: TheEmulator, caller: KeyOrBearer, body: StopRequest | None = None) -> Response:
    """End a session; 404 for an ended session, which a client may treat as success."""
    body = body or NO_STOP_BODY
    session_id, account = _target(caller, body.session_id)
    emulator.stop(session_id, account, body.reason)
    return success(emulator, None)


@router.post("/keep-alive", name="keep-alive")
async def keep_alive(
    request: Request, emulator: TheEmulator, caller: KeyOrBearer, body: SessionRef | None = None
) -> Response:
    """Restart a session's idle timer. Its duration limit stays."""
    if (
        emulator.settings.strict
        and body is not None
        and body.session_id is None
        and await _is_empty_object(request)
    ):
        raise errors.FieldError("session_id", "session_id is required", None)
    session_id, account = _target(caller, body.session_id if body else None)
    emulator.keep_alive(session_id, account)
    return success(emulator, None)


@router.get("", name="list")
async def list_sessions(
    request: Request, emulator: TheEmulator, account: KeyAccount, which: Annotated[SessionFilter, Query()]
) -> Response:
    """Return the account's active or historic sessions, newest first."""
    records: list[SessionRecord] = []
    if which.embed_id is None:
        emulator.refresh()
        records = account.history(
            active=which.type == "active", avatar_id=which.avatar_id, context_id=which.context_id
        )
    now_s = emulator.now_s()
    return page(request, emulator, [record.row(now_s) for record in records], which)


@router.get("/{session_id}", name="get")
async def get_session(emulator: TheEmulator, account: KeyAccount, session_id: str) -> Response:
    """Return one session, active or historic."""
    return success(emulator, _record(emulator, account, session_id).row(emulator.now_s()))


@router.get("/{session_id}/transcript", name="transcript")
async def transcript(
    emulator: TheEmulator, account: KeyAccount, session_id: str, span: Annotated[TranscriptSpan, Query()]
) -> Response:
    """Return an empty transcript for any span: in LITE mode the service receives only audio."""
    del span
    record = _record(emulator, account, session_id)
    return success(emulator, {"session_active": record.active, "next_timestamp": None, "transcript_data": []})


@router.delete("/{session_id}/events", name="events")
async def erase_events(emulator: TheEmulator, caller: KeyOrBearer, session_id: str) -> Response:
    """Erase a session's events for good. A bearer token gives access to its own session only."""
    if isinstance(caller, MintedSession) and caller.session_id != session_id:
        raise errors.not_found("Session")
    account = caller.account if isinstance(caller, MintedSession) else caller
    _record(emulator, account, session_id).events_erased = True
    return success(emulator, None)


def _target(caller: Account | MintedSession, session_id: UUID | None) -> tuple[str, Account]:
    if isinstance(caller, MintedSession):
        return caller.session_id, caller.account
    if session_id is None:
        raise errors.FieldError("session_id", "session_id is required", None)
    return str(session_id), caller


def _record(emulator: Emulator, account: Account, session_id: str) -> SessionRecord:
    emulator.refresh()
    record = account.records.get(session_id)
    if record is None:
        raise errors.not_found("Session")
    return record


async def _is_empty_object(request: Request) -> bool:
    body = await request.body()
    return bool(orjson.loads(body) == {})


def _ws_base(request: Request, emulator: Emulator) -> str:
    if emulator.config.public_url is not None:
        return emulator.config.public_url.rstrip("/")
    scheme = "wss" if request.url.scheme == "https" else "ws"
    return f"{scheme}://{request.url.netloc}"
