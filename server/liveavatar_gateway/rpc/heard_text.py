"""Text that was heard, in messages of the contract: for those who may speak or control alone."""

from typing import Final

from liveavatar.gateway.v1 import audio_service_pb2, session_service_pb2
from liveavatar_gateway.auth.principal import Principal, Role, Rule
from liveavatar_gateway.core.speech.words import TimedText

READERS: Final[Rule] = frozenset({Role.SPEAK, Role.CONTROL})
"""Roles of which any suffices to read the text of utterances; others see sessions without their content."""


def may_read(principal: Principal) -> bool:
    """Return whether a caller may read the text of utterances."""
    return bool(principal.roles & READERS)


def hide(event: session_service_pb2.SessionEvent) -> None:
    """Remove the text of utterances from an event."""
    match event.WhichOneof("event"):
        case "utterance_ended":
            event.utterance_ended.ClearField("heard_text")
        case "speech_paused":
            event.speech_paused.ClearField("heard_text")
        case _:
            pass


def piece_of(text: audio_service_pb2.TimedText, *, first_item: int | None = None) -> TimedText:
    """Return timings as a caller sent them, unchecked and not copied.

    Args:
        text: The message.
        first_item: Number of the first item where the message has none; None for behind the items before.
    """
    if text.HasField("first_item"):
        first_item = text.first_item
    return TimedText(text.texts, text.start_ms, text.end_ms, first_item)
