"""Choice of the LiveKit server that shows the avatar: the caller's, one that the demo starts, or none."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from livekit import api

from liveavatar_demo.livekit_server import VARIABLE as PROGRAM
from liveavatar_demo.livekit_server import Room, ServerMissing, find_program, livekit_server
from liveavatar_demo.process import StartFailed

VARIABLES: Final = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
"""Variables that LiveKit's own tools read; together they name a running server."""

_ASK_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Absence of a LiveKit server; the demo runs without a picture."""

    why: str
    """Reason, and the way to get a server, in one sentence for people."""


def expected(environment: Mapping[str, str]) -> bool:
    """Return whether a server is named or its program is installed."""
    if _named(environment):
        return True
    try:
        find_program(environment)
    except ServerMissing:
        return False
    return True


@contextlib.contextmanager
def find(environment: Mapping[str, str]) -> Iterator[Room | NoRoom]:
    """Yield the server that the environment names, else run one on free ports of 127.0.0.1 for a block."""
    if named := _named(environment):
        refusal = asyncio.run(_refusal(named))
        yield named if refusal is None else NoRoom(f"No face to watch: {named.url} {refusal}; correct {_all()}.")
        return
    with contextlib.ExitStack() as stack:
        try:
            found: Room | NoRoom = stack.enter_context(livekit_server(environment))
        except (ServerMissing, StartFailed) as error:
            found = NoRoom(_why(error, environment))
        yield found


async def _refusal(named: Room) -> str | None:
    """Return why no room can be created there; None when the server answers and accepts the key."""
    try:
        async with (
            asyncio.timeout(_ASK_TIMEOUT_S),
            api.LiveKitAPI(named.url, named.api_key, named.api_secret, failover=False) as server,
        ):
            await server.room.list_rooms(api.ListRoomsRequest())
    except api.TwirpError as error:
        return f"refuses the key ({error.message})"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"does not answer ({error or 'in time'})"
    return None


def _named(environment: Mapping[str, str]) -> Room | None:
    url, api_key, api_secret = (environment.get(name, "") for name in VARIABLES)
    return Room(url=url, api_key=api_key, api_secret=api_secret) if url and api_key and api_secret else None


def _why(error: ServerMissing | StartFailed, environment: Mapping[str, str]) -> str:
    missing = [name for name in VARIABLES if not environment.get(name)]
    if len(missing) < len(VARIABLES):
        return f"No face to watch: {', '.join(missing)} is not set, though {_set(environment)} is."
    if isinstance(error, StartFailed) or environment.get(PROGRAM):
        return f"No face to watch: {error}"
    return f"No face to watch without a room: `make livekit-server` installs a LiveKit server; or set {_all()}."


def _all() -> str:
    return ", ".join(VARIABLES)


def _set(environment: Mapping[str, str]) -> str:
    return ", ".join(name for name in VARIABLES if environment.get(name))
