"""Body of POST /v1/sessions/token: the parameters of a session.

Source: LiveAvatar API reference, token; names, ranges and defaults are those of the published schema.
"""

from typing import Any, Literal
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from liveavatar_emulator import errors
from liveavatar_emulator.config import Settings
from liveavatar_emulator.rooms import AgoraRoom, LiveKitRoom
from liveavatar_emulator.session_request import Connector, SessionRequest


class VideoSettings(BaseModel):
    """Size and codec of the avatar's video."""

    quality: Literal["very_high", "high", "medium", "low"] = "high"
    encoding: Literal["H264", "VP8"] = "H264"


class LiveKitConfig(BaseModel):
    """Room of the caller, with a join token for the avatar."""

    livekit_url: str
    livekit_room: str
    livekit_client_token: str


class AgoraConfig(BaseModel):
    """Agora channel of the caller; accepted, but no avatar joins it. Assumed: empty texts are refused."""

    agora_app_id: str = Field(min_length=1)
    agora_token: str = Field(min_length=1)
    agora_channel: str = Field(min_length=1)
    agora_uid: str = Field(min_length=1)


class ElevenLabsAgentConfig(BaseModel):
    """Hosted ElevenLabs agent that speaks through the avatar."""

    secret_id: UUID
    agent_id: str
    voice_id: str | None = None
    dynamic_variables: dict[str, str | int | float | bool] | None = None


class OpenAIRealtimeConfig(BaseModel):
    """Hosted OpenAI Realtime agent that speaks through the avatar."""

    secret_id: UUID
    context_id: UUID | None = None
    voice: Literal[
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    ] = "alloy"
    temperature: float = Field(default=0.8, ge=0.6, le=1.2)
    model: str = "gpt-realtime"


class GeminiRealtimeConfig(BaseModel):
    """Hosted Gemini Live agent that speaks through the avatar. `voice` is any name: the list grows."""

    secret_id: UUID
    context_id: UUID | None = None
    voice: str = "Puck"
    temperature: float = Field(default=0.8, ge=0, le=2)
    model: str = "gemini-3.1-flash-live-preview"


class CartesiaAgentConfig(BaseModel):
    """Hosted Cartesia agent that speaks through the avatar.

    Assumed: the service accepts its secret, but no published schema has the connector. These two fields are
    required by every connector.
    """

    secret_id: UUID
    agent_id: str


class TokenRequest(BaseModel):
    """Parameters of a session. Unknown fields are ignored, also the plugin's `video_quality`."""

    avatar_id: UUID
    mode: Literal["LITE", "FULL"] = "LITE"
    is_sandbox: bool = False
    video_settings: VideoSettings | None = None
    max_session_duration: int | None = Field(default=None, ge=1)
    livekit_config: LiveKitConfig | None = None
    agora_config: AgoraConfig | None = None
    elevenlabs_agent_config: ElevenLabsAgentConfig | None = None
    openai_realtime_config: OpenAIRealtimeConfig | None = None
    gemini_realtime_config: GeminiRealtimeConfig | None = None
    cartesia_agent_config: CartesiaAgentConfig | None = None
    avatar_persona: dict[str, Any] | None = None
    voice_agent: dict[str, Any] | None = None

    def session_request(self, settings: Settings) -> SessionRequest:
        """Return the session request, with the plan's limit as the default duration.

        Raises:
            RequestValidationError: FULL mode without the persona that its schema requires.
            FieldError: FULL mode otherwise, two rooms, or two connectors.
        """
        if self.mode == "FULL":
            self._refuse_full_mode()
        plan_s = settings.sandbox_s if self.is_sandbox else settings.max_duration_s
        video = self.video_settings or VideoSettings()
        own = self.livekit_config
        if own is not None and self.agora_config is not None:
            raise errors.FieldError("agora_config", "livekit_config and agora_config exclude each other", None)
        connector = self._connector()
        return SessionRequest(
            avatar_id=str(self.avatar_id),
            is_sandbox=self.is_sandbox,
            quality=video.quality,
            encoding=video.encoding,
            max_session_duration=plan_s if self.max_session_duration is None else self.max_session_duration,
            livekit_room=LiveKitRoom(own.livekit_url, own.livekit_room, own.livekit_client_token) if own else None,
            agora_room=self._agora_room(),
            connector=connector,
        )

    def _agora_room(self) -> AgoraRoom | None:
        own = self.agora_config
        if own is None:
            return None
        return AgoraRoom(own.agora_app_id, own.agora_channel, own.agora_uid, own.agora_token)

    def _refuse_full_mode(self) -> None:
        if self.avatar_persona is None and self.voice_agent is None:
            missing = {"type": "missing", "loc": ("body", "avatar_persona"), "msg": "Field required", "input": {}}
            raise RequestValidationError([missing])
        raise errors.FieldError("mode", "FULL mode is not emulated", self.mode)

    def _connector(self) -> Connector | None:
        given = {
            "elevenlabs_agent_config": self.elevenlabs_agent_config,
            "openai_realtime_config": self.openai_realtime_config,
            "gemini_realtime_config": self.gemini_realtime_config,
            "cartesia_agent_config": self.cartesia_agent_config,
        }
        asked = [Connector(field, config.model_dump(mode="json")) for field, config in given.items() if config]
        if len(asked) > 1:
            raise errors.FieldError(asked[1].field, f"{asked[0].field} is set already", None)
        return asked[0] if asked else None
