"""Agent's seat in the avatar's room: a participant that publishes captions, and no sound.

The avatar publishes on the agent's behalf (`lk.publish_on_behalf`), so that user interfaces show both as one.
Captions are text streams of LiveKit's own topic for transcriptions, which all its user interfaces read.
"""

import asyncio
import contextlib
import logging
import uuid
from typing import Final

from livekit import rtc

from liveavatar.gateway import AsyncUtterance, OutcomeKind

_log = logging.getLogger(__name__)

TOPIC: Final = "lk.transcription"
"""Source: LiveKit Agents, `TOPIC_TRANSCRIPTION`."""
SEGMENT: Final = "lk.segment_id"
FINAL: Final = "lk.transcription_final"

_JOIN_TIMEOUT_S: Final = 15.0
_SEND_TIMEOUT_S: Final = 5.0
_LEAVE_TIMEOUT_S: Final = 3.0


class CaptionsUnavailable(RuntimeError):
    """The agent cannot join the room; the conversation continues without captions."""


class Agent:
    """Agent in a room. Its owner calls `leave`, also after a failed `join`."""

    def __init__(self) -> None:
        self._room = rtc.Room()

    async def join(self, url: str, token: str) -> None:
        """Join the room without subscribing to anything.

        Raises:
            CaptionsUnavailable: the server cannot be reached, refuses the token, or does not answer in time.
        """
        try:
            async with asyncio.timeout(_JOIN_TIMEOUT_S):
                await self._room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
        except (rtc.ConnectError, TimeoutError) as error:
            # The text of the error may have the address with the token.
            raise CaptionsUnavailable(f"the agent cannot join the room ({type(error).__name__})") from None

    async def caption(self, utterance: AsyncUtterance, text: str, total_s: float) -> None:
        """Send the words of an utterance as they are heard; words that are never heard are never sent.

        Args:
            utterance: The utterance.
            text: Its words.
            total_s: Duration of all of it.
        """
        try:
            await self._caption(utterance, text, total_s)
        except (OSError, RuntimeError) as error:  # a lost room; timeouts are an OSError too
            _log.warning("captions.lost cause=%s", type(error).__name__)

    async def _caption(self, utterance: AsyncUtterance, text: str, total_s: float) -> None:
        if not await utterance.started():
            return
        words = text.split()
        attributes = {SEGMENT: uuid.uuid4().hex, FINAL: "false"}
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            writer = await self._room.local_participant.stream_text(topic=TOPIC, attributes=attributes)
        sent = 0
        async for progress in utterance.progress_updates():
            heard = words_heard(words, progress.played.total_seconds(), total_s)
            if heard > sent:
                async with asyncio.timeout(_SEND_TIMEOUT_S):
                    await writer.write("".join(f"{word} " for word in words[sent:heard]))
                sent = heard
        outcome = utterance.outcome
        rest = words[sent:] if outcome is not None and outcome.kind is OutcomeKind.PLAYED else []
        async with asyncio.timeout(_SEND_TIMEOUT_S):
            if rest:
                await writer.write(" ".join(rest))
            await writer.aclose(attributes={FINAL: "true"})

    async def leave(self) -> None:
        """Leave the room. Idempotent, and bounded in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_TIMEOUT_S):
                await self._room.disconnect()


def words_heard(words: list[str], played_s: float, total_s: float) -> int:
    """Return how many words have begun after `played_s`, if each takes time by its letters."""
    if total_s <= 0:
        return len(words)
    # A word has a pause behind it, which is about as long as a letter.
    letters_heard = sum(len(word) + 1 for word in words) * played_s / total_s
    begun, letters = 0, 0
    for word in words:
        if letters >= letters_heard:
            break
        begun += 1
        letters += len(word) + 1
    return begun
