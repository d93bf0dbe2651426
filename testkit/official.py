"""An agent as users of LiveKit Agents write it: their AgentSession and the official LiveAvatar plugin, unmodified.

The agent has no models: its sentences are given as sound. Everything that it reports is kept.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator

from livekit import api, rtc
from livekit.agents import Agent, AgentSession, utils
from livekit.agents.voice.io import PlaybackFinishedEvent, PlaybackStartedEvent
from livekit.agents.voice.room_io import RoomOptions
from livekit.agents.voice.speech_handle import SpeechHandle
from livekit.plugins.liveavatar import AvatarSession

from liveavatar_demo.livekit_server import LiveKitServer
from testkit import processes
from testkit.caller import AVATAR

STEP_TIMEOUT_S = 30.0
AVATAR_IDENTITY = "liveavatar-avatar-agent"
_MAIN_TASK = "AvatarSession._main_task"


class Complaints(logging.Handler):
    """Warnings and errors of the plugin and of LiveKit Agents, and what tasks raised that nobody awaited."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # In its debug mode asyncio also warns of slow callbacks, which say something of the machine only.
        least = logging.ERROR if record.name == "asyncio" else logging.WARNING
        if record.name.startswith(("livekit.", "asyncio")) and record.levelno >= least:
            self.lines.append(f"{record.levelname} {record.name}: {self.format(record)}")


class Official:
    """A running agent with its avatar."""

    def __init__(self, session: AgentSession, avatar: AvatarSession, main_task: asyncio.Task[None]) -> None:
        self._session = session
        self._avatar = avatar
        self._main_task = main_task
        self.started: list[PlaybackStartedEvent] = []
        self.finished: list[PlaybackFinishedEvent] = []
        assert session.output.audio is not None
        session.output.audio.on("playback_started", self.started.append)
        session.output.audio.on("playback_finished", self.finished.append)

    @property
    def running(self) -> bool:
        """State of the plugin's session; `stop` raises the error that ended the session."""
        return not self._main_task.done()

    async def joined(self) -> None:
        """Wait until the avatar is in the room with its picture."""
        await self._avatar.wait_for_join(timeout=STEP_TIMEOUT_S)

    def say(self, sound: AsyncIterable[rtc.AudioFrame]) -> SpeechHandle:
        return self._session.say("Some words.", audio=sound)

    async def said(self, handle: SpeechHandle) -> None:
        """Wait until the agent takes a sentence for spoken or cut."""
        await asyncio.wait_for(handle.wait_for_playout(), STEP_TIMEOUT_S)

    async def interrupt(self) -> None:
        """Interrupt the session, as a user's speech does."""
        await asyncio.wait_for(asyncio.shield(self._session.interrupt()), STEP_TIMEOUT_S)

    async def stop(self) -> None:
        """End the session, and wait until the plugin has ended its own; raises what it raised."""
        await self._session.aclose()
        await asyncio.wait_for(self._main_task, STEP_TIMEOUT_S)
        await self._avatar.aclose()


@contextlib.asynccontextmanager
async def official_agent(
    emulator: processes.Emulator, server: LiveKitServer, room_name: str
) -> AsyncIterator[Official]:
    """Put an agent and its avatar into a room of the agent's own."""
    grants = api.VideoGrants(room_join=True, room=room_name, agent=True, can_update_own_metadata=True)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity("agent").with_kind("agent")
    room = rtc.Room()
    async with utils.http_context.open():
        # It listens to nobody, so it subscribes to nothing.
        options = rtc.RoomOptions(auto_subscribe=False)
        await room.connect(server.url, token.with_grants(grants).to_jwt(), options)
        # Without a voice detector there is nothing for a turn detector, and an avatar cannot pause.
        session: AgentSession = AgentSession(
            vad=None,
            turn_handling={"turn_detection": None, "interruption": {"resume_false_interruption": False}},
        )
        avatar = AvatarSession(avatar_id=AVATAR, api_url=f"{emulator.url}/v1/sessions", api_key=processes.API_KEY)
        try:
            before = asyncio.all_tasks()
            await avatar.start(
                session,
                room,
                livekit_url=server.url,
                livekit_api_key=server.api_key,
                livekit_api_secret=server.api_secret,
            )
            main_task = next(task for task in asyncio.all_tasks() - before if task.get_name() == _MAIN_TASK)
            await session.start(
                Agent(instructions="Say what you are told."),
                room=room,
                room_options=RoomOptions(audio_input=False, audio_output=False),
            )
            official = Official(session, avatar, main_task)
            try:
                yield official
            finally:
                await official.stop()
        finally:
            await room.disconnect()


@contextlib.contextmanager
def complaints():
    """Collect what is complained of during a block."""
    handler = Complaints()
    handler.setFormatter(logging.Formatter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.lines
    finally:
        root.removeHandler(handler)
