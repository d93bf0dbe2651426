"""Connectors: hosted agents that drive an avatar, as LiveAvatar's API takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

VariableValue = str | bool | float


class ConnectorKind(StrEnum):
    """Provider of a hosted agent; the value is the field of LiveAvatar's request.

    Source: LiveAvatar's OpenAPI schema, POST /v1/sessions/token; it has no connector of Cartesia yet.
    """

    ELEVENLABS_AGENT = "elevenlabs_agent_config"
    OPENAI_REALTIME = "openai_realtime_config"
    GEMINI_REALTIME = "gemini_realtime_config"
    CARTESIA_AGENT = "cartesia_agent_config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connector:
    """Hosted agent that hears the user in the avatar's room and answers through the avatar.

    A text that is empty and a temperature that is None are left to LiveAvatar's defaults.
    """

    kind: ConnectorKind
    secret_id: str
    """Id of the secret at LiveAvatar with the provider's key; the key itself never comes to the gateway."""
    agent_id: str = ""
    """Agent at ElevenLabs or Cartesia."""
    context_id: str = ""
    """Context at LiveAvatar that instructs an agent of OpenAI or Gemini."""
    voice: str = ""
    model: str = ""
    temperature: float | None = None
    dynamic_variables: Mapping[str, VariableValue] = field(default_factory=dict, repr=False, compare=False)
    """Variables of an ElevenLabs agent. They are personal, such as the user's name, and may differ in a retry."""

    def body(self) -> dict[str, Any]:
        """Return the value of the field `kind` in LiveAvatar's request."""
        voice = "voice_id" if self.kind is ConnectorKind.ELEVENLABS_AGENT else "voice"
        named = {
            "agent_id": self.agent_id,
            "context_id": self.context_id,
            voice: self.voice,
            "model": self.model,
            "temperature": self.temperature,
            "dynamic_variables": dict(self.dynamic_variables),
        }
        return {"secret_id": self.secret_id} | {
            name: value for name, value in named.items() if value is not None and value not in ("", {})
        }

    @property
    def without_secrets(self) -> "Connector":
        """The connector for the registry. LiveAvatar needs the variables once, for the session's only avatar."""
        return replace(self, dynamic_variables={})
