"""Routes of avatars, voices and contexts."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from liveavatar_emulator import catalog, errors, session_request
from liveavatar_emulator.auth import KeyAccount, TheEmulator
from liveavatar_emulator.rest.responses import Paging, page, success
from liveavatar_emulator.routing import ServiceRoute

router = APIRouter(prefix="/v1", route_class=ServiceRoute)


class AvatarChange(BaseModel):
    """Body of PATCH /v1/avatars/{id}; missing fields stay unchanged."""

    name: Annotated[str, Field(min_length=1)] | None = None
    default_voice_id: str | None = None


class VoiceFilter(Paging):
    """Filter of listed voices."""

    voice_type: Literal["public", "private"] = "public"


@router.get("/avatars/public", name="avatars")
async def public_avatars(request: Request, emulator: TheEmulator, paging: Annotated[Paging, Query()]) -> Response:
    """Return the stock avatars; needs no credential."""
    return page(request, emulator, list(catalog.PUBLIC_AVATARS), paging)


@router.get("/avatars", name="avatars")
async def own_avatars(
    request: Request, emulator: TheEmulator, account: KeyAccount, paging: Annotated[Paging, Query()]
) -> Response:
    """Return the account's custom avatars, as many as the knob `own_avatars`, less the deleted ones."""
    return page(request, emulator, account.avatars.rows(emulator.settings.own_avatars), paging)


@router.get("/avatars/{avatar_id}", name="avatars")
async def get_avatar(emulator: TheEmulator, account: KeyAccount, avatar_id: UUID) -> Response:
    """Return one avatar. A readable avatar is not necessarily usable in a session."""
    avatar = session_request.readable_avatar(account, str(avatar_id), emulator.settings)
    if avatar is None:
        raise errors.not_found("Avatar")
    return success(emulator, avatar)


@router.patch("/avatars/{avatar_id}", name="avatars")
async def change_avatar(
    emulator: TheEmulator, account: KeyAccount, avatar_id: UUID, change: AvatarChange
) -> Response:
    """Rename an own avatar, or change its voice. Stock and foreign avatars cannot be changed."""
    voice = None
    if change.default_voice_id is not None:
        voice = catalog.voice(change.default_voice_id)
        if voice is None:
            raise errors.FieldError("default_voice_id", "SpeechRenderer not found", change.default_voice_id)
    avatar = session_request.own_avatar(account, str(avatar_id), emulator.settings)
    changed = account.avatars.change(avatar, name=change.name, voice=voice, now=emulator.now_utc())
    return success(emulator, changed)


@router.delete("/avatars/{avatar_id}", name="avatars")
async def delete_avatar(emulator: TheEmulator, account: KeyAccount, avatar_id: UUID) -> Response:
    """Delete an own avatar; its running sessions end with AVATAR_DELETED."""
    emulator.delete_avatar(account, str(avatar_id))
    return success(emulator, None)


@router.get("/voices", name="voices")
async def voices(
    request: Request, emulator: TheEmulator, account: KeyAccount, which: Annotated[VoiceFilter, Query()]
) -> Response:
    """Return the stock voices; the account has none of its own."""
    del account
    return page(request, emulator, list(catalog.VOICES) if which.voice_type == "public" else [], which)


@router.get("/contexts", name="contexts")
async def contexts(
    request: Request, emulator: TheEmulator, account: KeyAccount, paging: Annotated[Paging, Query()]
) -> Response:
    """Return none: contexts instruct FULL mode and connectors, which have no agent here."""
    del account
    return page(request, emulator, [], paging)
