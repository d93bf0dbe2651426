"""Connectors: hosted agents of other providers that drive an avatar instead of the caller."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from liveavatar.gateway.v1 import connector_pb2, session_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevenLabsAgent:
    """Agent of ElevenLabs; its output must be PCM at 24 kHz."""

    secret_id: str
    """Id of the secret at LiveAvatar that holds the ElevenLabs API key, a UUID; never the key itself."""
    agent_id: str
    """Id of the agent at ElevenLabs."""
    voice_id: str = ""
    """Id of the voice at ElevenLabs. Default: the agent's."""
    dynamic_variables: Mapping[str, str | float | bool] = field(default_factory=dict, repr=False)
    """Values of the agent's dynamic variables, at most 32."""

    def add_to(self, spec: session_pb2.SessionSpec) -> None:
        """Make the agent the connector of the gateway's message."""
        spec.elevenlabs_agent.CopyFrom(
            connector_pb2.ElevenLabsAgent(
                secret_id=self.secret_id,
                agent_id=self.agent_id,
                voice_id=self.voice_id,
                dynamic_variables={name: _variable(value) for name, value in self.dynamic_variables.items()},
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIRealtime:
    """Session of OpenAI Realtime."""

    secret_id: str
    """Id of the secret at LiveAvatar that holds the OpenAI API key, a UUID; never the key itself."""
    context_id: str = ""
    """Id of the context at LiveAvatar that instructs the agent, a UUID. Default: none."""
    voice: str = ""
    """Name of the voice. Default: "alloy"."""
    temperature: float | None = None
    """Temperature, 0.6 to 1.2. Default: 0.8."""
    model: str = ""
    """Name of the model. Default: "gpt-realtime"."""

    def add_to(self, spec: session_pb2.SessionSpec) -> None:
        """Make the agent the connector of the gateway's message."""
        spec.openai_realtime.CopyFrom(
            connector_pb2.OpenAIRealtime(
                secret_id=self.secret_id,
                context_id=self.context_id,
                voice=self.voice,
                temperature=self.temperature,
                model=self.model,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiRealtime:
    """Session of Gemini Live."""

    secret_id: str
    """Id of the secret at LiveAvatar that holds the Gemini API key, a UUID; never the key itself."""
    context_id: str = ""
    """Id of the context at LiveAvatar that instructs the agent, a UUID. Default: none."""
    voice: str = ""
    """Name of the voice. Default: "Puck"."""
    temperature: float | None = None
    """Temperature, 0 to 2. Default: 0.8."""
    model: str = ""
    """Name of the model. Default: "gemini-3.1-flash-live-preview"."""

    def add_to(self, spec: session_pb2.SessionSpec) -> None:
        """Make the agent the connector of the gateway's message."""
        spec.gemini_realtime.CopyFrom(
            connector_pb2.GeminiRealtime(
                secret_id=self.secret_id,
                context_id=self.context_id,
                voice=self.voice,
                temperature=self.temperature,
                model=self.model,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CartesiaAgent:
    """Agent of Cartesia. LiveAvatar has not published its schema of this connector yet."""

    secret_id: str
    """Id of the secret at LiveAvatar that holds the Cartesia API key, a UUID; never the key itself."""
    agent_id: str
    """Id of the agent at Cartesia."""

    def add_to(self, spec: session_pb2.SessionSpec) -> None:
        """Make the agent the connector of the gateway's message."""
        spec.cartesia_agent.CopyFrom(connector_pb2.CartesiaAgent(secret_id=self.secret_id, agent_id=self.agent_id))


Connector = ElevenLabsAgent | OpenAIRealtime | GeminiRealtime | CartesiaAgent
"""Hosted agent that drives an avatar."""


def _variable(value: str | float | bool) -> connector_pb2.DynamicVariable:  # noqa: FBT001 - a value, not a switch
    match value:
        case bool():
            return connector_pb2.DynamicVariable(flag=value)
        case str():
            return connector_pb2.DynamicVariable(text=value)
        case _:
            return connector_pb2.DynamicVariable(number=value)
