"""Agent that says again what the user said, and falls silent when the user speaks.

It stands for an agent with speech recognition, a language model and a voice: it hears the user over `ListenAudio`,
speaks over `StreamAudio`, and interrupts over `Attach`.
"""

import asyncio
import time
from typing import Final

from liveavatar.gateway import AsyncListener, AsyncSession, AsyncUtterance, AudioFormat, GatewayError, UserAudio
from liveavatar_demo.conversation import Conversation, Kind
from liveavatar_demo.speech_gate import GateConfig, GateEvent, GateState, SpeechBegan, SpeechEnded, SpeechGate

_COMMAND_TIMEOUT_S: Final = 10.0
_SHORTEST_S: Final = 0.25
"""Shorter sounds are a cough: they interrupt, and are not repeated."""
_POLL_S: Final = 0.1
_LATE_S: Final = 0.3
"""Time by which audio may be late before its silence counts."""


class Parrot:
    """Agent of one session. `run` ends with the session."""

    def __init__(
        self, session: AsyncSession, conversation: Conversation, *, user: str, config: GateConfig | None = None
    ) -> None:
        """Prepare the agent.

        Args:
            session: Open session.
            conversation: Record that gets the user's speech.
            user: Identity of the user in the room; nobody else is heard.
            config: Levels and times by which speech is found.
        """
        self._session = session
        self._conversation = conversation
        self._user = user
        self._config = config or GateConfig()
        self._format = AudioFormat(sample_rate_hz=self._config.rate_hz)
        self._gate = SpeechGate(self._config)
        self._utterances: list[AsyncUtterance] = []
        self._heard_mono_s = 0.0

    @property
    def has_spoken(self) -> bool:
        """True once anything was given to the avatar to speak."""
        return bool(self._utterances)

    @property
    def is_speaking(self) -> bool:
        """True while something is spoken, or waits to be."""
        return any(utterance.outcome is None for utterance in self._utterances)

    def say(self, utterance: AsyncUtterance) -> None:
        """Take note of speech that falls silent when the user speaks."""
        # The last one is kept, so that `has_spoken` stays true.
        self._utterances = [one for one in self._utterances if one.outcome is None]
        self._utterances.append(utterance)

    async def run(self) -> None:
        """Hear and answer until the session ends.

        Raises:
            GatewayError: the gateway cannot hear the room, or was lost.
        """
        listener = self._session.listen(audio_format=self._format, participants=[self._user])
        watch = asyncio.create_task(self._watch_silence(), name="parrot/silence")
        try:
            async with listener:
                await self._hear(listener)
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _hear(self, listener: AsyncListener) -> None:
        async for chunk in listener:
            self._heard_mono_s = time.monotonic()
            for event in self._gate.take(chunk.audio, _captured_s(chunk)):
                await self._on_speech(event)

    async def _watch_silence(self) -> None:
        """End speech whose audio stops coming, because the user has muted or left."""
        while True:
            await asyncio.sleep(_POLL_S)
            overdue_s = time.monotonic() - self._heard_mono_s
            if self._gate.state is GateState.SPEAKING and overdue_s > self._config.silence_s + _LATE_S:
                try:
                    for event in self._gate.close():
                        await self._on_speech(event)
                except GatewayError:
                    return  # the listener ends for the same reason

    async def _on_speech(self, event: GateEvent) -> None:
        match event:
            case SpeechBegan(began_s):
                self._conversation.add(Kind.USER_BEGAN, began_s)
                if self.is_speaking:
                    await self.interrupt("voice")
            case SpeechEnded(began_s, ended_s, audio):
                duration_s = ended_s - began_s
                self._conversation.add(Kind.USER_ENDED, ended_s, duration_ms=round(duration_s * 1000))
                if duration_s >= _SHORTEST_S:
                    answer = self._session.say(audio, format=self._format)
                    self._conversation.expect_answer(answer.id, ended_s)
                    self.say(answer)

    async def interrupt(self, by: str) -> None:
        """Silence the avatar.

        Args:
            by: "voice" of the user, or "button".

        Raises:
            GatewayError: the session is over.
            TimeoutError: the gateway did not answer in time.
        """
        self._conversation.add(Kind.INTERRUPTED, time.time(), by=by)
        async with asyncio.timeout(_COMMAND_TIMEOUT_S):
            await self._session.interrupt()


def _captured_s(chunk: UserAudio) -> float:
    return chunk.captured_at.timestamp()
