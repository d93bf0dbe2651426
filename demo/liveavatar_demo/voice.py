"""`liveavatar-gateway demo --voice`: somebody talks with the avatar in a browser, until Ctrl-C."""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from liveavatar.gateway import (
    AgentSeat,
    AsyncClient,
    AsyncSession,
    AsyncUtterance,
    GatewayError,
    LiveKitRoom,
    SessionEnded,
    SessionNotFound,
    Viewer,
)
from liveavatar_demo import page_server, recordings, room
from liveavatar_demo.captions import Agent, CaptionsUnavailable
from liveavatar_demo.conversation import Conversation, Entry, Kind, describe
from liveavatar_demo.livekit_server import Room
from liveavatar_demo.page_server import Command, PageServer, PortTaken, Refused
from liveavatar_demo.parrot import Parrot
from liveavatar_demo.room import NoRoom
from liveavatar_demo.run import GREETING, DemoFailed
from liveavatar_demo.servers import Servers
from liveavatar_demo.servers import servers as run_servers
from liveavatar_demo.timeline import Timeline

AVATAR: Final = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
"""Avatar of the emulator. The sandbox avatar would be gone after a minute."""
USER: Final = "you"
"""Identity of the page in the room."""
AVATAR_IDENTITY: Final = "avatar"

GREETING_TEXT: Final = (
    "Hello, and welcome to the LiveAvatar Gateway. Your agent talks, the gateway keeps the pace, and the avatar "
    "speaks. Interrupt whenever you like."
)
"""Words of the recording, see README.md; they are its captions."""

_CALL_TIMEOUT_S: Final = 10.0
_LAST_EVENTS_S: Final = 5.0
_REOPEN_S: Final = 1.0
_MAX_FAILURES: Final = 3
"""Sessions in a row that end within `_SHORT_S`; then the demo gives up."""
_SHORT_S: Final = 5.0


def run(timeline: Timeline, *, port: int, ready_delay_ms: int) -> None:
    """Start the servers and the page, and hold sessions until Ctrl-C.

    Args:
        timeline: Receiver of the address and of what happens.
        port: Port of the page on 127.0.0.1; 0 takes a free one.
        ready_delay_ms: Time that the emulated avatar takes to get ready.

    Raises:
        StartFailed: a server did not become ready.
        DemoFailed: there is no room or no page, or sessions end at once.
        KeyboardInterrupt: Ctrl-C; the session and the servers have been ended.
    """
    # Its warnings are about connections that the demo itself closes.
    logging.getLogger("livekit").setLevel(logging.ERROR)
    if not page_server.is_built():
        raise DemoFailed("the page of the voice demo is not built; build it with: make viewer")
    with room.find(os.environ) as found:
        if isinstance(found, NoRoom):
            raise DemoFailed(found.why)
        with run_servers(
            ready_delay_ms=ready_delay_ms,
            emulator_settings=found.settings(),
            gateway_settings=gateway_settings(found),
        ) as servers:
            try:
                asyncio.run(_converse(servers, found, timeline, port))
            except PortTaken as error:
                raise DemoFailed(str(error)) from error
            except (GatewayError, TimeoutError) as error:
                raise DemoFailed(f"the conversation failed: {error}\n{servers.log_tail()}") from error


def gateway_settings(found: Room) -> dict[str, str]:
    """Return the environment variables under which the gateway issues tokens for rooms of this server."""
    return {
        "GATEWAY_LIVEKIT_URL": found.url,
        "GATEWAY_LIVEKIT_KEY": found.api_key,
        "GATEWAY_LIVEKIT_SECRET": found.api_secret,
    }


async def _converse(servers: Servers, found: Room, timeline: Timeline, port: int) -> None:
    timeline.begin()

    def show(entry: Entry) -> None:
        if entry.kind is not Kind.POSE:
            timeline.mark(entry.kind.value, describe(entry))

    conversation = Conversation(show)
    options = [("grpc.enable_http_proxy", 0)]
    async with AsyncClient(servers.gateway_address, timeout=_CALL_TIMEOUT_S, options=options) as client:
        demo = VoiceDemo(client, conversation, found.url)
        page = PageServer(demo, conversation, livekit_url=found.url)
        async with page.running(port):
            timeline.say(f"Talk with the avatar: {page.url}")
            timeline.say("It repeats what you say. Ctrl-C ends everything.")
            timeline.say("")
            await demo.run()


class VoiceDemo:
    """Sessions with a parrot, one after the other, in one room. Implements `Controls` of the page.

    Invariant: at most one session is open, and commands reach that one.
    """

    def __init__(self, client: AsyncClient, conversation: Conversation, livekit_url: str) -> None:
        self._client = client
        self._conversation = conversation
        self._livekit_url = livekit_url
        self._room_name = f"voice-demo-{secrets.token_hex(4)}"
        self._session: AsyncSession | None = None
        self._parrot: Parrot | None = None
        self._agent: Agent | None = None
        self._captioning: set[asyncio.Task[None]] = set()
        audio_format, self._greeting = recordings.read(GREETING)
        self._greeting_s = len(self._greeting) / audio_format.byte_rate

    async def run(self) -> None:
        """Hold one session after the other, until it is cancelled.

        Raises:
            DemoFailed: several sessions in a row ended at once.
            GatewayError: the gateway was lost.
        """
        failures = 0
        while True:
            began_mono_s = time.monotonic()
            # The next session is opened as after any other end.
            with contextlib.suppress(SessionEnded, SessionNotFound):
                await self._hold_session()
            failures = 0 if time.monotonic() - began_mono_s > _SHORT_S else failures + 1
            if failures == _MAX_FAILURES:
                raise DemoFailed(
                    f"{failures} sessions in a row ended within {_SHORT_S:.0f} s; see the lines above"
                )
            await asyncio.sleep(_REOPEN_S)

    async def access(self) -> Mapping[str, str]:
        """Return url, token and identities for the room, with a fresh token."""
        session = self._present()
        viewer = Viewer(identity=USER, name="You", can_publish=True)
        (access,) = await self._client.create_viewer_tokens(session.id, [viewer])
        return {"url": self._livekit_url, "token": access.token, "session": session.id}

    async def command(self, command: Command) -> None:
        """Carry out a command of the page."""
        session, parrot = self._present(), self._parrot
        match command:
            case Command.START:
                if parrot is not None and not parrot.has_spoken:
                    self._greet(session, parrot)
            case Command.INTERRUPT:
                if parrot is None or not parrot.is_speaking:
                    raise Refused("The avatar says nothing that could be interrupted.")
                await parrot.interrupt("button")
            case Command.PAUSE:
                await session.pause()
            case Command.CONTINUE:
                continuation = await session.continue_speech()
                if not continuation.was_paused:
                    raise Refused("The avatar is not paused.")

    async def _hold_session(self) -> None:
        opening = self._client.open_session(
            AVATAR,
            livekit_room=LiveKitRoom(name=self._room_name, avatar_identity=AVATAR_IDENTITY),
            agent_seat=AgentSeat.CALLER,
            auto_rotate=True,
            labels={"caller": "voice-demo"},
        )
        async with opening as session, self._agent_in_room(session) as agent:
            parrot = Parrot(session, self._conversation, user=USER)
            self._session, self._parrot, self._agent = session, parrot, agent
            following = asyncio.create_task(self._follow(session), name="voice/events")
            hearing = asyncio.create_task(parrot.run(), name="voice/parrot")
            try:
                done, _ = await asyncio.wait([following, hearing], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                # Both end with the session; its last events are still to be noted.
                await asyncio.wait([following], timeout=_LAST_EVENTS_S)
            finally:
                self._session = self._parrot = self._agent = None
                tasks = [following, hearing, *self._captioning]
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _follow(self, session: AsyncSession) -> None:
        async for event in session.events():
            self._conversation.on_event(event)

    @contextlib.asynccontextmanager
    async def _agent_in_room(self, session: AsyncSession) -> AsyncIterator[Agent | None]:
        """Bring the agent into the room for a block; None if it cannot join, which costs only the captions."""
        agent = Agent()
        try:
            try:
                await agent.join(session.room.url, session.room.agent_token)
            except CaptionsUnavailable:
                yield None
            else:
                yield agent
        finally:
            await agent.leave()

    def _greet(self, session: AsyncSession, parrot: Parrot) -> None:
        greeting = session.say(GREETING)
        parrot.say(greeting)
        if self._agent is not None:
            self._caption(self._agent, greeting)

    def _caption(self, agent: Agent, greeting: AsyncUtterance) -> None:
        captioning = asyncio.create_task(
            agent.caption(greeting, GREETING_TEXT, self._greeting_s), name="voice/captions"
        )
        self._captioning.add(captioning)
        captioning.add_done_callback(self._captioning.discard)

    def _present(self) -> AsyncSession:
        if self._session is None:
            raise Refused("No session is open at the moment; the next one is being opened.")
        return self._session
