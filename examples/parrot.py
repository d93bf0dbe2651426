"""Avatar that repeats what it hears, and falls silent while a user speaks. README.md says how to run it."""

import asyncio
import os

from liveavatar.gateway import AsyncClient

GATEWAY = os.environ.get("GATEWAY_ADDRESS", "localhost:50051")
KEY = os.environ.get("GATEWAY_API_KEY")
AVATAR = os.environ.get("LIVEAVATAR_AVATAR_ID", "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11")


async def main() -> None:
    """Open a session, and repeat each turn of its users."""
    async with AsyncClient(GATEWAY, credentials=KEY) as client, client.open_session(AVATAR) as session:
        await session.ready()
        # Whoever has the token can join the room: send it to your user's browser, and to nobody else.
        print(f"join {session.room.url} with the token {session.room.viewer_token}", flush=True)
        async with session.user_turns() as turns:
            async for turn in turns:
                if turn.interrupted:
                    print(f"{turn.participant} interrupted after {turn.interrupted.played}", flush=True)
                audio = await turn.complete()
                print(f"{turn.participant} spoke for {turn.duration}", flush=True)
                session.say(audio, format=turn.format)


if __name__ == "__main__":
    asyncio.run(main())
