"""A greeting through a running gateway, with the installed client alone. Run by test_wheels.py.

Usage: hello.py ADDRESS
"""

import asyncio
import json
import math
import struct
import sys
from importlib.metadata import version

from liveavatar.gateway import AsyncClient, AudioFormat, CallerError, Client

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
RATE_HZ = 16_000
SECONDS = 0.5


def tone() -> bytes:
    samples = (round(8000 * math.sin(2 * math.pi * 440 * n / RATE_HZ)) for n in range(round(SECONDS * RATE_HZ)))
    return b"".join(struct.pack("<h", sample) for sample in samples)


async def asynchronous(address: str) -> str:
    async with AsyncClient(address) as client, client.open_session(AVATAR) as session:
        spoken = await session.say(tone(), format=AudioFormat(sample_rate_hz=RATE_HZ))
        return spoken.kind.name


def blocking(address: str) -> str:
    with Client(address) as client, client.open_session(AVATAR) as session:
        return session.say(tone(), format=AudioFormat(sample_rate_hz=RATE_HZ)).result(timeout=30).kind.name


def refused(address: str) -> str:
    """Read the typed details of a refusal, which come in the trailing metadata."""
    with Client(address) as client:
        try:
            client.get_session("no such session")
        except CallerError as error:
            return error.reason
    return "not refused"


def main() -> None:
    address = sys.argv[1]
    told = {
        "spoken": [asyncio.run(asynchronous(address)), blocking(address)],
        "refused": refused(address),
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "googleapis-common-protos")},
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
