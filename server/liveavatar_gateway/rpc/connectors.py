"""Mapping of connectors: hosted agents that drive an avatar instead of the caller."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from liveavatar.gateway.v1 import connector_pb2, session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc.field_bounds import (
    MAX_VARIABLE_CHARS,
    MAX_VARIABLE_NAME_CHARS,
    MAX_VARIABLES,
    MAX_VOICE_CHARS,
    is_printable,
)
from liveavatar_gateway.rpc.mapping import checked_id
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind, VariableValue

_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_OPENAI_TEMPERATURES: Final = (0.6, 1.2)
_GEMINI_TEMPERATURES: Final = (0.0, 2.0)
_MAX_WHOLE: Final = 2**53
"""Largest number of which every whole number below is exact in a double."""


def connector(message: session_pb2.SessionSpec, field: str) -> Connector | None:
    """Return the hosted agent of a session; None if its caller speaks.

    Args:
        message: Spec of the session.
        field: Path of the spec in its request, for errors.

    Raises:
        InvalidField: a value is missing or out of its bounds, or other fields exclude the agent.
    """
    kind = message.WhichOneof("connector")
    if kind is None:
        return None
    _require_alone(message, kind, field)
    return _READERS[kind](getattr(message, kind), f"{field}.{kind}")


def _require_alone(message: session_pb2.SessionSpec, kind: str, field: str) -> None:
    for room in ("livekit_room", "agora_room"):
        if message.HasField(room):
            raise InvalidField(
                f"{field}.{kind} excludes {room}: LiveAvatar creates the room of a hosted agent; leave out one of "
                "them",
                field=f"{field}.{kind}",
            )
    if message.agent_seat == session_pb2.AGENT_SEAT_CALLER:
        raise InvalidField(
            f"{field}.agent_seat must not be CALLER with {kind}: the seat is the hosted agent's; leave it out",
            field=f"{field}.agent_seat",
        )
    if message.auto_rotate:
        raise InvalidField(
            f"{field}.auto_rotate excludes {kind}: a fresh agent would not know the conversation; leave it out, "
            "and open a new session before the limit",
            field=f"{field}.auto_rotate",
        )


def _elevenlabs(message: connector_pb2.ElevenLabsAgent, field: str) -> Connector:
    return Connector(
        kind=ConnectorKind.ELEVENLABS_AGENT,
        secret_id=_secret(message.secret_id, f"{field}.secret_id"),
        agent_id=checked_id(message.agent_id, f"{field}.agent_id", required=True),
        voice=checked_id(message.voice_id, f"{field}.voice_id", required=False),
        dynamic_variables=_variables(message.dynamic_variables, f"{field}.dynamic_variables"),
    )


def _openai(message: connector_pb2.OpenAIRealtime, field: str) -> Connector:
    return _realtime(message, ConnectorKind.OPENAI_REALTIME, _OPENAI_TEMPERATURES, field)


def _gemini(message: connector_pb2.GeminiRealtime, field: str) -> Connector:
    return _realtime(message, ConnectorKind.GEMINI_REALTIME, _GEMINI_TEMPERATURES, field)


def _realtime(
    message: connector_pb2.OpenAIRealtime | connector_pb2.GeminiRealtime,
    kind: ConnectorKind,
    temperatures: tuple[float, float],
    field: str,
) -> Connector:
    return Connector(
        kind=kind,
        secret_id=_secret(message.secret_id, f"{field}.secret_id"),
        context_id=_context(message.context_id, f"{field}.context_id"),
        voice=_voice(message.voice, f"{field}.voice"),
        temperature=_temperature(message, temperatures, f"{field}.temperature"),
        model=checked_id(message.model, f"{field}.model", required=False),
    )


def _cartesia(message: connector_pb2.CartesiaAgent, field: str) -> Connector:
    return Connector(
        kind=ConnectorKind.CARTESIA_AGENT,
        secret_id=_secret(message.secret_id, f"{field}.secret_id"),
        agent_id=checked_id(message.agent_id, f"{field}.agent_id", required=True),
    )


_READERS: Final[Mapping[str, Callable[[Any, str], Connector]]] = {
    "elevenlabs_agent": _elevenlabs,
    "openai_realtime": _openai,
    "gemini_realtime": _gemini,
    "cartesia_agent": _cartesia,
}


def _secret(value: str, field: str) -> str:
    if not _UUID.fullmatch(value):
        # The value is not repeated: a caller may have sent the provider's key itself.
        raise InvalidField(
            f"{field} must be the UUID of a secret at LiveAvatar, which holds the provider's key; create one with "
            "POST /v1/secrets, and never send the key itself",
            field=field,
        )
    return value.lower()


def _context(value: str, field: str) -> str:
    if value and not _UUID.fullmatch(value):
        raise InvalidField(f"{field} must be the UUID of a context at LiveAvatar, or empty", field=field)
    return value.lower()


def _voice(value: str, field: str) -> str:
    if len(value) > MAX_VOICE_CHARS or not is_printable(value):
        raise InvalidField(
            f"{field} takes at most {MAX_VOICE_CHARS} printable characters", field=field, limit=MAX_VOICE_CHARS
        )
    return value


def _temperature(
    message: connector_pb2.OpenAIRealtime | connector_pb2.GeminiRealtime, bounds: tuple[float, float], field: str
) -> float | None:
    if not message.HasField("temperature"):
        return None
    least, most = bounds
    # False for NaN too.
    if not least <= message.temperature <= most:
        raise InvalidField(
            f"{field} must be {least:g} to {most:g}, got {message.temperature:g}",
            field=field,
            temperature=message.temperature,
        )
    return message.temperature


def _variables(variables: Mapping[str, connector_pb2.DynamicVariable], field: str) -> dict[str, VariableValue]:
    # Iterated only once their number is known to be small.
    if len(variables) > MAX_VARIABLES:
        raise InvalidField(f"{field} takes at most {MAX_VARIABLES} variables", field=field, limit=MAX_VARIABLES)
    return {_name(name, field): _value(variable, field) for name, variable in sorted(variables.items())}


def _name(name: str, field: str) -> str:
    if not 1 <= len(name) <= MAX_VARIABLE_NAME_CHARS or not is_printable(name):
        raise InvalidField(
            f"{field} takes names of 1 to {MAX_VARIABLE_NAME_CHARS} printable characters",
            field=field,
            limit=MAX_VARIABLE_NAME_CHARS,
        )
    return name


def _value(variable: connector_pb2.DynamicVariable, field: str) -> VariableValue:
    """Return a value; errors repeat neither name nor value, which are personal."""
    match variable.WhichOneof("value"):
        case "text" if len(variable.text) <= MAX_VARIABLE_CHARS:
            return variable.text
        case "text":
            raise InvalidField(
                f"{field} takes texts of at most {MAX_VARIABLE_CHARS} characters",
                field=field,
                limit=MAX_VARIABLE_CHARS,
            )
        case "number" if math.isfinite(variable.number):
            is_whole = variable.number.is_integer() and abs(variable.number) <= _MAX_WHOLE
            return int(variable.number) if is_whole else variable.number
        case "number":
            raise InvalidField(f"{field} takes finite numbers", field=field)
        case "flag":
            return variable.flag
        case _:
            raise InvalidField(f"{field} has a variable without a value; set text, number or flag", field=field)
