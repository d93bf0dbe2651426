"""Bounds of all texts and lists in requests, checked before anything reads them.

A request is checked as a whole right after it was decoded, in time that grows with the bounds and not with the
request: the number of entries comes first. A test compares the table with the contract, so that no field is left
without a bound.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from liveavatar_gateway.core.errors import InvalidField

MAX_ID_CHARS: Final = 128
MAX_CHANNEL_CHARS: Final = 64
MAX_AGORA_TOKEN_CHARS: Final = 4096
MAX_ROOM_TOKEN_CHARS: Final = 4096
MAX_ROOM_URL_CHARS: Final = 2048
MAX_VIEWERS: Final = 32
MAX_TOPICS: Final = 16
MAX_DATA_IDENTITIES: Final = 64
MAX_VOICE_CHARS: Final = 64
MAX_VARIABLES: Final = 32
MAX_VARIABLE_NAME_CHARS: Final = 64
MAX_VARIABLE_CHARS: Final = 1000
_JOINERS: Final = {0x200C: None, 0x200D: None}
"""Marks that are not printable, and yet belong to words and emoji: U+200C and U+200D."""


@dataclass(frozen=True, slots=True)
class Text:
    """Bound of a text."""

    max_chars: int
    printable: bool = True
    """False for opaque tokens, which are compared and never shown."""

    def check(self, value: str, field: str) -> None:
        """Refuse a text that is too long or not printable.

        Raises:
            InvalidField: the text is out of its bound.
        """
        if len(value) > self.max_chars or (self.printable and not is_printable(value)):
            kind = "printable characters" if self.printable else "characters"
            raise InvalidField(f"{field} takes at most {self.max_chars} {kind}", field=field, limit=self.max_chars)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Bound of a repeated field of enums or numbers."""

    max_count: int

    def check(self, values: Any, field: str) -> None:
        """Refuse too many values.

        Raises:
            InvalidField: the field has too many values.
        """
        if len(values) > self.max_count:
            raise InvalidField(f"{field} takes at most {self.max_count} values", field=field, limit=self.max_count)


@dataclass(frozen=True, slots=True)
class Texts:
    """Bound of a repeated field of texts."""

    max_count: int
    text: Text

    def check(self, values: Any, field: str) -> None:
        """Refuse too many texts, and texts that are too long or not printable.

        Raises:
            InvalidField: the field is out of its bound.
        """
        if len(values) > self.max_count:
            raise InvalidField(f"{field} takes at most {self.max_count} values", field=field, limit=self.max_count)
        for value in values:
            self.text.check(value, field)


@dataclass(frozen=True, slots=True)
class Messages:
    """Bound of a repeated field of messages, each of which is checked too."""

    max_count: int

    def check(self, messages: Any, field: str) -> None:
        """Refuse too many messages, and a message with a field out of its bound.

        Raises:
            InvalidField: there are too many, or a field is out of its bound.
        """
        if len(messages) > self.max_count:
            raise InvalidField(
                f"{field} takes at most {self.max_count} entries", field=field, limit=self.max_count
            )
        for number, message in enumerate(messages):
            check(message, f"{field}[{number}].")


@dataclass(frozen=True, slots=True)
class Labels:
    """Bound of labels, of a session or in a filter."""

    max_count: int
    key: Text
    value: Text

    def check(self, labels: Mapping[str, str], field: str) -> None:
        """Refuse too many labels, and labels that are too long or not printable.

        Raises:
            InvalidField: the labels are out of their bound.
        """
        # Iterated only once their number is known to be small.
        fits = len(labels) <= self.max_count and all(
            1 <= len(key) <= self.key.max_chars
            and len(value) <= self.value.max_chars
            and is_printable(key)
            and is_printable(value)
            for key, value in labels.items()
        )
        if not fits:
            raise InvalidField(
                f"{field} takes at most {self.max_count} labels with keys of 1 to {self.key.max_chars} and values "
                f"of at most {self.value.max_chars} printable characters",
                field=field,
                limit=self.max_count,
            )


@dataclass(frozen=True, slots=True)
class ByHandler:
    """Field that its handler checks, since a refusal has another reason there or does not end the stream."""

    where: str
    """Function that checks the field."""


Bound = Text | Texts | Numbers | Messages | Labels | ByHandler

_ID: Final = Text(MAX_ID_CHARS)
_TOKEN: Final = Text(2000, printable=False)
LABELS: Final = Labels(16, key=Text(63), value=Text(128))
_PACKAGE: Final = "liveavatar.gateway.v1"
_REFLECTION: Final = "grpc.reflection.v1alpha"

_OWN: Final[Mapping[str, Bound]] = {
    "OpenSession.request_id": _ID,
    "OpenSession.reservation_id": _ID,
    "CreateSessionRequest.request_id": _ID,
    "CreateSessionRequest.reservation_id": _ID,
    "PrepareSessionRequest.request_id": _ID,
    "ResumeSession.handle": ByHandler("handles.session_id_of"),
    "SessionCommand.id": _ID,
    "Interrupt.utterance_id": ByHandler("AttachStream._interrupt"),
    "Pause.utterance_id": ByHandler("mapping.pause_of"),
    "SessionSpec.avatar_id": ByHandler("mapping.spec_of"),
    "SessionSpec.labels": LABELS,
    "LiveKitRoom.name": _ID,
    "LiveKitRoom.avatar_identity": _ID,
    "LiveKitRoom.url": Text(MAX_ROOM_URL_CHARS, printable=False),
    "LiveKitRoom.avatar_token": Text(MAX_ROOM_TOKEN_CHARS, printable=False),
    "LiveKitRoom.listener_token": Text(MAX_ROOM_TOKEN_CHARS, printable=False),
    "LiveKitRoom.viewer_token": Text(MAX_ROOM_TOKEN_CHARS, printable=False),
    "SessionSpec.viewers": Messages(MAX_VIEWERS),
    "Viewer.identity": _ID,
    "Viewer.name": _ID,
    "AgoraRoom.app_id": _ID,
    "AgoraRoom.token": Text(MAX_AGORA_TOKEN_CHARS, printable=False),
    "AgoraRoom.channel": Text(MAX_CHANNEL_CHARS),
    "AgoraRoom.uid": _ID,
    "RoomEvents.data_topics": Texts(MAX_TOPICS, _ID),
    "SendData.payload": ByHandler("room_events.data_of"),
    "SendData.topic": ByHandler("room_events.data_of"),
    "SendData.identities": ByHandler("room_events.data_of"),
    "ElevenLabsAgent.secret_id": _ID,
    "ElevenLabsAgent.agent_id": _ID,
    "ElevenLabsAgent.voice_id": _ID,
    "ElevenLabsAgent.dynamic_variables": ByHandler("connectors.connector"),
    "OpenAIRealtime.secret_id": _ID,
    "OpenAIRealtime.context_id": _ID,
    "OpenAIRealtime.voice": Text(MAX_VOICE_CHARS),
    "OpenAIRealtime.model": _ID,
    "GeminiRealtime.secret_id": _ID,
    "GeminiRealtime.context_id": _ID,
    "GeminiRealtime.voice": Text(MAX_VOICE_CHARS),
    "GeminiRealtime.model": _ID,
    "CartesiaAgent.secret_id": _ID,
    "CartesiaAgent.agent_id": _ID,
    "GetSessionRequest.session_id": _ID,
    "ListSessionsRequest.page_token": _TOKEN,
    "ListSessionsRequest.states": Numbers(16),
    "ListSessionsRequest.labels": LABELS,
    "EndSessionRequest.session_id": _ID,
    "InterruptSessionRequest.session_id": _ID,
    "InterruptSessionRequest.utterance_id": _ID,
    "CreateViewerTokensRequest.session_id": _ID,
    "CreateViewerTokensRequest.viewers": Messages(MAX_VIEWERS),
    "RemoveViewerRequest.session_id": _ID,
    "RemoveViewerRequest.identity": _ID,
    "PauseSessionRequest.session_id": _ID,
    "ContinueSessionRequest.session_id": _ID,
    "AddWatch.session_id": _ID,
    "RemoveWatch.session_id": _ID,
    "WatchFilter.labels": LABELS,
    "ListAvatarsRequest.page_token": _TOKEN,
    "AudioHeader.session_id": _ID,
    "AudioHeader.handle": ByHandler("handles.session_id_of"),
    "ListenHeader.session_id": _ID,
    "ListenHeader.handle": ByHandler("handles.session_id_of"),
    "ListenHeader.participants": Texts(16, _ID),
    "BeginUtterance.utterance_id": ByHandler("AudioStream._begin"),
    "AudioChunk.audio": ByHandler("Utterances.receive"),
    "AudioChunk.utterance_id": ByHandler("AudioStream._receive"),
    "TextTimings.utterance_id": ByHandler("AudioStream._take_timings"),
    "TimedText.texts": ByHandler("words.UtteranceText"),
    "TimedText.start_ms": ByHandler("words.UtteranceText"),
    "TimedText.end_ms": ByHandler("words.UtteranceText"),
    "EndUtterance.utterance_id": ByHandler("AudioStream._require_open"),
    "CancelUtterance.utterance_id": ByHandler("AudioStream._require_open"),
    "ListOwnedSessionsRequest.page_token": _TOKEN,
    "EjectSessionRequest.session_id": _ID,
    "GetUsageRequest.tenant": _ID,
    "GetUsageRequest.first_day": _ID,
    "GetUsageRequest.last_day": _ID,
    "GetUsageRequest.page_token": _TOKEN,
    "PauseAccountRequest.account": _ID,
    "ResumeAccountRequest.account": _ID,
    "DrainAccountRequest.account": _ID,
    "SetAccountLimitRequest.account": _ID,
}
_OTHERS: Final[Mapping[str, Bound]] = {
    "grpc.health.v1.HealthCheckRequest.service": Text(256),
    f"{_REFLECTION}.ServerReflectionRequest.host": Text(256),
    f"{_REFLECTION}.ServerReflectionRequest.file_by_filename": Text(256),
    f"{_REFLECTION}.ServerReflectionRequest.file_containing_symbol": Text(256),
    f"{_REFLECTION}.ServerReflectionRequest.all_extension_numbers_of_type": Text(256),
    f"{_REFLECTION}.ServerReflectionRequest.list_services": Text(256),
    f"{_REFLECTION}.ExtensionRequest.containing_type": Text(256),
}
BOUNDS: Final[Mapping[str, Bound]] = {f"{_PACKAGE}.{name}": bound for name, bound in _OWN.items()} | dict(_OTHERS)
"""Bound of each text, list and map in requests, by the full name of the field."""


def is_printable(text: str) -> bool:
    """Return whether a text has no control characters, marks of direction, or halves of characters."""
    return text.isprintable() or text.translate(_JOINERS).isprintable()


def check(message: Message, path: str = "") -> None:
    """Refuse a request with a field out of its bound.

    Args:
        message: The request, or a message inside it.
        path: Path of the message in the request, with a dot at its end.

    Raises:
        InvalidField: a field is out of its bound; it is named by its path.
    """
    for field, value in message.ListFields():
        bound = BOUNDS.get(field.full_name)
        if bound is not None:
            if not isinstance(bound, ByHandler):
                bound.check(value, f"{path}{field.name}")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            check(value, f"{path}{field.name}.")
