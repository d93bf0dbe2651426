"""The /v1 endpoints: what they take, whom they let in, how they word their answers.

Source: LiveAvatar API reference, REST endpoints. Schema errors are the framework's own 422, as on the real
service.
"""

from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from liveavatar_emulator import catalog, errors
from liveavatar_emulator.account import Account, SessionRecord
from liveavatar_emulator.auth import BearerTicket, KeyAccount, KeyOrBearer, TheEmulator
from liveavatar_emulator.gate import GatedRoute, json_response
from liveavatar_emulator.rooms import OwnRoom
from liveavatar_emulator.service import Emulator, Order, Ticket

router = APIRouter(prefix="/v1", route_class=GatedRoute)

EndReason = Literal[
    "USER_CLOSED",
    "USER_DISCONNECTED",
    "IDLE_TIMEOUT",
    "MAX_DURATION_REACHED",
    "NO_CREDITS",
    "ZOMBIE_SESSION_REAP",
    "AVATAR_DELETED",
    "SERVER_ERROR",
    "AGENT_HANG_UP",
    "DISPATCH_FAILED",
    "UNKNOWN",
]


class VideoSettings(BaseModel):
    """Size and codec of the avatar's picture."""

    quality: Literal["very_high", "high", "medium", "low"] = "high"
    encoding: Literal["H264", "VP8"] = "H264"


class LiveKitConfig(BaseModel):
    """The caller's own room, with a join token for the avatar."""

    livekit_url: str
    livekit_room: str
    livekit_client_token: str


class AgoraConfig(BaseModel):
    """The caller's own Agora channel; accepted, with nothing behind it."""

    agora_app_id: str
    agora_token: str
    agora_channel: str
    agora_uid: str


class TokenRequest(BaseModel):
    """Body of POST /v1/sessions/token. Unknown fields are ignored, the plugin's `video_quality` too."""

    avatar_id: UUID
    mode: Literal["LITE", "FULL"] = "LITE"
    is_sandbox: bool = False
    video_settings: VideoSettings | None = None
    max_session_duration: int | None = Field(default=None, ge=1)
    livekit_config: LiveKitConfig | None = None
    agora_config: AgoraConfig | None = None


class SessionRef(BaseModel):
    """Body of keep-alive, and of start, where it says nothing that the bearer token does not."""

    session_id: str | None = None


class StopRequest(SessionRef):
    """Body of stop. Any reason of the enum is taken, also those the service sets itself."""

    reason: EndReason = "USER_CLOSED"


class Paging(BaseModel):
    """Which page of a list."""

    page: int = Field(default=1, ge=1)
    page_size: int = Field(default=20, ge=1, le=100)


class SessionFilter(Paging):
    """Which sessions to list. embed_id and context_id exist on the service and match nothing here."""

    type: Literal["active", "historic"]
    avatar_id: str | None = None
    embed_id: str | None = None
    context_id: str | None = None


@router.post("/sessions/token", name="token")
async def mint(emulator: TheEmulator, account: KeyAccount, body: TokenRequest) -> Response:
    """Mint a session token: free, starts nothing."""
    if body.mode == "FULL":
        raise errors.FieldError("mode", "FULL mode is not emulated", body.mode)
    settings = emulator.settings
    plan_s = settings.sandbox_s if body.is_sandbox else settings.max_duration_s
    video = body.video_settings or VideoSettings()
    own = body.livekit_config
    order = Order(
        avatar_id=str(body.avatar_id),
        is_sandbox=body.is_sandbox,
        quality=video.quality,
        encoding=video.encoding,
        max_session_duration=plan_s if body.max_session_duration is None else body.max_session_duration,
        own_room=OwnRoom(own.livekit_url, own.livekit_room, own.livekit_client_token) if own else None,
    )
    ticket, token = emulator.mint(account, order)
    return _success(emulator, {"session_id": ticket.session_id, "session_token": token})


@router.post("/sessions/start", name="start")
async def start(
    request: Request, emulator: TheEmulator, ticket: BearerTicket, body: SessionRef | None = None
) -> Response:
    """Start a minted session; billing begins. Answers 201."""
    del body
    return _success(emulator, emulator.start(ticket, _ws_base(request, emulator)), status=201)


@router.post("/sessions/stop", name="stop")
async def stop(emulator: TheEmulator, caller: KeyOrBearer, body: StopRequest | None = None) -> Response:
    """End a session; 404 when it is gone, which a client may take for success."""
    body = body or StopRequest()
    session_id, account = _target(caller, body.session_id)
    emulator.stop(session_id, account, body.reason)
    return _success(emulator, None)


@router.post("/sessions/keep-alive", name="keep-alive")
async def keep_alive(
    request: Request, emulator: TheEmulator, caller: KeyOrBearer, body: SessionRef | None = None
) -> Response:
    """Reset a session's idle timer. Its duration limit stays."""
    if (
        emulator.settings.strict
        and body is not None
        and body.session_id is None
        and await _is_empty_object(request)
    ):
        raise errors.FieldError("session_id", "session_id is required", None)
    session_id, account = _target(caller, body.session_id if body else None)
    emulator.keep_alive(session_id, account)
    return _success(emulator, None)


@router.get("/sessions", name="list")
async def list_sessions(
    request: Request, emulator: TheEmulator, account: KeyAccount, which: Annotated[SessionFilter, Query()]
) -> Response:
    """The account's active or historic sessions, newest first."""
    records: list[SessionRecord] = []
    if which.embed_id is None and which.context_id is None:
        emulator.refresh()
        records = account.history(active=which.type == "active", avatar_id=which.avatar_id)
    now_s = emulator.now_s()
    return _page(request, emulator, [record.row(now_s) for record in records], which)


@router.get("/sessions/{session_id}", name="get")
async def get_session(emulator: TheEmulator, account: KeyAccount, session_id: str) -> Response:
    """One session, active or historic."""
    return _success(emulator, _record(emulator, account, session_id).row(emulator.now_s()))


@router.get("/sessions/{session_id}/transcript", name="transcript")
async def transcript(emulator: TheEmulator, account: KeyAccount, session_id: str) -> Response:
    """Always empty: in LITE mode the service hears only audio."""
    record = _record(emulator, account, session_id)
    return _success(emulator, {"session_active": record.active, "next_timestamp": None, "transcript_data": []})


@router.get("/avatars/public", name="avatars")
async def public_avatars(request: Request, emulator: TheEmulator, paging: Annotated[Paging, Query()]) -> Response:
    """Stock avatars; needs no credential."""
    return _page(request, emulator, list(catalog.PUBLIC_AVATARS), paging)


@router.get("/avatars", name="avatars")
async def own_avatars(
    request: Request, emulator: TheEmulator, account: KeyAccount, paging: Annotated[Paging, Query()]
) -> Response:
    """The account's custom avatars: none."""
    del account
    return _page(request, emulator, list(catalog.OWN_AVATARS), paging)


@router.get("/avatars/{avatar_id}", name="avatars")
async def get_avatar(emulator: TheEmulator, account: KeyAccount, avatar_id: UUID) -> Response:
    """One avatar. Being able to read it does not prove that a session may use it."""
    del account
    avatar = catalog.find(str(avatar_id))
    if avatar is None:
        raise errors.not_found("Avatar")
    return _success(emulator, avatar)


@router.get("/users/credits", name="credits")
async def user_credits(emulator: TheEmulator, account: KeyAccount) -> Response:
    """The balance, as a string with two decimals."""
    return _success(emulator, {"credits_left": f"{account.balance:.2f}"})


def _success(emulator: Emulator, data: Any, status: int = 200) -> Response:
    return json_response({"code": emulator.settings.success_code, "data": data, "message": "Success"}, status)


def _page(request: Request, emulator: Emulator, rows: list[dict[str, Any]], paging: Paging) -> Response:
    def link(page: int) -> str:
        query = {**request.query_params, "page": page, "page_size": paging.page_size}
        return str(request.url.replace(query=urlencode(query)))

    first = (paging.page - 1) * paging.page_size
    more = first + paging.page_size < len(rows)
    data = {
        "count": len(rows),
        "next": link(paging.page + 1) if more else None,
        "previous": link(paging.page - 1) if paging.page > 1 else None,
        "results": rows[first : first + paging.page_size],
    }
    return _success(emulator, data)


def _target(caller: Account | Ticket, session_id: str | None) -> tuple[str, Account]:
    if isinstance(caller, Ticket):
        return caller.session_id, caller.account
    if session_id is None:
        raise errors.FieldError("session_id", "session_id is required", None)
    return session_id, caller


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
