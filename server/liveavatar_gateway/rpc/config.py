"""Limits that callers are told."""

from dataclasses import dataclass

from liveavatar.gateway.v1 import session_service_pb2
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.rpc.mapping import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcConfig:
    """What the servicers need to know."""

    speech: SpeechConfig
    """Bounds of speech, to tell callers."""
    max_chunk_bytes: int = 256 * 1024
    """Largest chunk of audio. Higher takes larger messages; each is held in memory whole."""
    detach_grace_s: float = 30.0
    """How long a session outlives its last stream when its spec does not say."""
    own_rooms: bool = False
    """Whether there is a LiveKit server for rooms of the callers' own."""
    ack_interval_s: float = 1.0
    """How often progress is told. Lower is smoother and costs a message each."""
    heartbeat_s: float = 20.0
    """Longest silence on `Attach` and `StreamAudio`; a heartbeat is sent then. 0 sends none."""
    first_message_timeout_s: float = 30.0
    """How long a call may be open before its first message has come."""
    watch_progress_s: float = 15.0
    """How often a watcher is told that nothing new has happened. Lower notices a dead gateway sooner; each notice
    names every session that is watched."""


def audio_limits(config: RpcConfig) -> session_service_pb2.AudioLimits:
    """Limits for audio, as a message."""
    return session_service_pb2.AudioLimits(
        max_chunk_bytes=config.max_chunk_bytes,
        max_buffered=duration(config.speech.max_buffered_s),
        max_lead=duration(config.speech.scheduler.max_lead_s),
    )
