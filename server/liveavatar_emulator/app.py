"""ASGI application: REST and control API in one FastAPI application, and the command sockets beside it."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from liveavatar_emulator import control, routing, viewer
from liveavatar_emulator.command_socket import CommandSockets
from liveavatar_emulator.cors import CrossOriginPolicy
from liveavatar_emulator.rest import account, avatars, sessions
from liveavatar_emulator.service import Emulator


def build(emulator: Emulator) -> ASGIApp:
    """Return the whole emulator as one ASGI application.

    Sockets bypass the web framework, whose cost per message matters at 200 talking sessions.
    """
    http = FastAPI(title="LiveAvatar emulator", docs_url="/_emulator/docs", openapi_url="/_emulator/openapi.json")
    http.state.emulator = emulator
    for part in (sessions, avatars, account, control, viewer):
        http.include_router(part.router)
    http.add_exception_handler(HTTPException, routing.unmatched)
    rest = CrossOriginPolicy(http, emulator.config)
    sockets = CommandSockets(emulator)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await sockets(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return application
