"""Limits of calls and streams."""

from dataclasses import dataclass

from liveavatar.gateway.v1 import session_service_pb2
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.rpc.mapping import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcConfig:
    """Settings of the services."""

    speech: SpeechConfig
    """Bounds of speech, announced to callers."""
    max_chunk_bytes: int = 256 * 1024
    """Largest chunk of audio. Higher allows larger messages; each is kept in memory as a whole."""
    detach_grace_s: float = 30.0
    """Time that a session outlives its last stream if its spec sets none."""
    livekit_rooms: bool = False
    """True if the gateway has a LiveKit server for the callers' own rooms."""
    viewer_absence_s: float = 0.0
    """Time without a viewer after which a session in a room of its caller's own ends, if its spec sets none. 0 for
    never: an audience may be outside of the room, and only the caller knows."""
    ack_interval_s: float = 1.0
    """Interval of acks while an utterance progresses. Lower is smoother and costs a message each."""
    heartbeat_s: float = 20.0
    """Longest silence on `Attach`, `StreamAudio` and `ListenAudio` before a heartbeat. 0 sends none."""
    first_message_timeout_s: float = 30.0
    """Longest time from the start of a call to its first message."""
    watch_progress_s: float = 15.0
    """Interval of progress messages on `WatchSessions`. Lower notices a dead gateway sooner; each message names
    every watched session."""


def audio_limits(config: RpcConfig) -> session_service_pb2.AudioLimits:
    """Return the limits for audio as a message."""
    return session_service_pb2.AudioLimits(
        max_chunk_bytes=config.max_chunk_bytes,
        max_buffered=duration(config.speech.max_buffered_s),
        max_lead=duration(config.speech.scheduler.max_lead_s),
    )
