"""Where the demo's avatar shows its face: a LiveKit server of the caller's, one of the demo's own, or none."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from livekit import api

from liveavatar_gateway.demo.livekit_server import VARIABLE as PROGRAM
from liveavatar_gateway.demo.livekit_server import ServerMissing, StartFailed, find_program, livekit_server

VARIABLES: Final = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
"""What LiveKit's own tools read; together they name a server that runs already."""

_ASK_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A LiveKit server, and a key that may create rooms there."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)

    def settings(self) -> dict[str, str]:
        """The same as environment variables of the emulator."""
        return {
            "EMULATOR_LIVEKIT_URL": self.url,
            "EMULATOR_LIVEKIT_KEY": self.api_key,
            "EMULATOR_LIVEKIT_SECRET": self.api_secret,
        }


@dataclass(frozen=True, slots=True)
class NoRoom:
    """There is no LiveKit server; the call is held all the same."""

    why: str
    """One sentence with the way to get one, for people."""


def expected(environment: Mapping[str, str]) -> bool:
    """Whether `find` will look for a room in earnest: a server is named, or its program is there."""
    if _named(environment):
        return True
    try:
        find_program(environment)
    except ServerMissing:
        return False
    return True


@contextlib.contextmanager
def find(environment: Mapping[str, str]) -> Iterator[Room | NoRoom]:
    """The server that the environment names; else one on free ports of 127.0.0.1, for a block."""
    if named := _named(environment):
        refusal = asyncio.run(_refusal(named))
        yield named if refusal is None else NoRoom(f"No face to watch: {named.url} {refusal}; correct {_all()}.")
        return
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(livekit_server(environment))
        except (ServerMissing, StartFailed) as error:
            found: Room | NoRoom = NoRoom(_why(error, environment))
        else:
            found = Room(url=server.url, api_key=server.api_key, api_secret=server.api_secret)
        yield found


async def _refusal(named: Room) -> str | None:
    """Why no room can be had there; None when the server answers and takes the key."""
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
