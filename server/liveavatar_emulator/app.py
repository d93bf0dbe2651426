"""Wiring: REST and control API in one FastAPI application, the command sockets beside it."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from liveavatar_emulator import control, gate, viewer
from liveavatar_emulator.origins import Origins
from liveavatar_emulator.rest import account, avatars, sessions
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.socket import CommandSockets


def build(emulator: Emulator) -> ASGIApp:
    """The whole emulator as one ASGI application.

    Sockets bypass the web framework: at 200 talking sessions its per-message cost would be felt.
    """
    http = FastAPI(title="LiveAvatar emulator", docs_url="/_emulator/docs", openapi_url="/_emulator/openapi.json")
    http.state.emulator = emulator
    for part in (sessions, avatars, account, control, viewer):
        http.include_router(part.router)
    http.add_exception_handler(HTTPException, gate.unmatched)
    rest = Origins(http)
    sockets = CommandSockets(emulator)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await sockets(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return application
