"""Record of an utterance in the registry: its progress at LiveAvatar, or its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from pydantic import TypeAdapter

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.messages import BYTE_RATE
from liveavatar_gateway.core.speech.utterance import Utterance
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.registry.base import Payload
from liveavatar_gateway.sessions.plausibility import require_counts, require_plausible
from liveavatar_gateway.sessions.record import StoredError, restore_error, store_error

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceRecord:
    """An utterance, without its audio."""

    upstream_id: str = ""
    format: str = ""
    """Name of the caller's audio format."""
    taken_bytes: int = 0
    """Audio handed to the operating system to send, in bytes of the caller's format."""
    sent_s: float = 0.0
    """The same audio in seconds."""
    started: bool = False
    end_sent: bool = False
    interrupted: bool = False
    """True after an interrupt, until LiveAvatar has confirmed it."""
    waits: bool = False
    """True when a pause makes LiveAvatar drop its audio: it continues at `taken_bytes`."""
    outcome: Outcome | None = None
    """None until the end."""
    played_s: float = 0.0
    repeated_s: float = 0.0
    inferred: bool = False
    error: StoredError | None = None
    """Error that made the utterance fail."""

    @classmethod
    def of(cls, utterance: Utterance) -> "UtteranceRecord":
        """Return the progress of an utterance; audio that has to be sent again counts as not sent."""
        again_bytes = sum(len(packet.pcm) for packet in utterance.delivery.again)
        held_at = None if utterance.interrupted else utterance.held_at
        waits = held_at is not None or not utterance.is_upstream
        return cls(
            upstream_id=utterance.upstream_id,
            format=utterance.audio_input.format,
            taken_bytes=utterance.taken if held_at is None else held_at,
            sent_s=utterance.sent_s - again_bytes / BYTE_RATE,
            started=utterance.was_heard,
            end_sent=utterance.end_sent and not waits,
            interrupted=utterance.interrupted,
            waits=waits,
            outcome=utterance.outcome,
            played_s=utterance.played_s,
            repeated_s=utterance.repeated_s,
        )

    @classmethod
    def of_end(cls, ended: UtteranceEnded) -> "UtteranceRecord":
        """Return the record of an utterance that ended."""
        return cls(
            outcome=ended.outcome,
            played_s=ended.played_s,
            repeated_s=ended.repeated_s,
            inferred=ended.inferred,
            error=store_error(ended.error),
        )

    def payload(self) -> Payload:
        """Return the record for the registry; written out, since this runs for each packet."""
        return {
            "upstream_id": self.upstream_id,
            "format": self.format,
            "taken_bytes": self.taken_bytes,
            "sent_s": self.sent_s,
            "started": self.started,
            "end_sent": self.end_sent,
            "interrupted": self.interrupted,
            "waits": self.waits,
            "outcome": self.outcome.value if self.outcome else None,
            "played_s": self.played_s,
            "repeated_s": self.repeated_s,
            "inferred": self.inferred,
            "error": self.error,
        }

    def end(self, utterance_id: str) -> UtteranceEnded | None:
        """Return the event of the utterance's end; None before the end."""
        if self.outcome is None:
            return None
        return UtteranceEnded(
            utterance_id,
            self.outcome,
            self.played_s,
            restore_error(self.error),
            self.inferred,
            repeated_s=self.repeated_s,
        )


def read_utterances(stored: Sequence[tuple[str, Payload]]) -> Mapping[str, UtteranceRecord]:
    """Return utterances by their ids, in the order in which they began; an unreadable utterance is left out."""
    records: dict[str, UtteranceRecord] = {}
    for utterance_id, payload in stored:
        try:
            require_plausible(payload, "utterance")
            record = _UTTERANCE.validate_python(payload)
            require_counts(payload)
        except ValueError as error:
            _log.warning("utterance.unreadable", error=str(error))
            continue
        records[utterance_id] = record
    return records


_UTTERANCE: Final[TypeAdapter[UtteranceRecord]] = TypeAdapter(UtteranceRecord)
