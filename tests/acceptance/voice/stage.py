"""Emulator with rooms on a real LiveKit server, and a gateway, for the lines of this area."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from liveavatar_demo.livekit_server import LiveKitServer, livekit_server
from testkit import processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that a line needs."""

    livekit: LiveKitServer
    emulator: processes.Emulator
    gateway: processes.Gateway


@contextlib.contextmanager
def stage(*, video: bool = False, **settings: object) -> Iterator[Stage]:
    """Run a LiveKit server, an emulator and a gateway that knows the server for callers' own rooms.

    Args:
        video: Let the avatars be seen, too.
        settings: Settings of the gateway.
    """
    with (
        livekit_server() as livekit,
        processes.emulator(livekit=livekit, avatar_video=video, credits=1_000_000) as emulator,
        processes.gateway(emulator.url, **{**own_rooms(livekit), "detach_grace_s": 300, **settings}) as gateway,
    ):
        yield Stage(livekit=livekit, emulator=emulator, gateway=gateway)


def own_rooms(livekit: LiveKitServer) -> dict[str, object]:
    """Return the settings of a gateway for callers' own rooms on a LiveKit server."""
    return {
        "livekit_url": livekit.url,
        "livekit_key": livekit.api_key,
        "livekit_secret": livekit.api_secret,
    }
