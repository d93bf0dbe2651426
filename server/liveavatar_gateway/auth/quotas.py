"""Limits of one tenant. The defaults suit a tenant about whom nothing is known."""

from pydantic import BaseModel, ConfigDict, Field


class Quotas(BaseModel):
    """Limits of one tenant in each process of the gateway (docs/decisions, 0018). Durations are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    max_sessions: int = Field(1, ge=0, le=10_000, description="Sessions at once; 0 allows none.")
    opens_per_min: int = Field(6, ge=0, le=60_000, description="Sessions opened per minute.")
    max_waiting: int = Field(2, ge=0, le=100_000, description="Callers that wait for a permit at once.")
    max_wait_s: float = Field(30.0, ge=0, le=600, description="Longest wait for a permit.")
    max_session_s: float = Field(600.0, ge=10, le=86_400, description="Longest session.")
    max_detach_grace_s: float = Field(
        30.0, ge=0, le=300, description="Longest time for which a session without an attached stream is kept."
    )
    max_streams: int = Field(
        8, ge=0, le=100_000, description="Streams of Attach, StreamAudio and ListenAudio at once."
    )
    max_watches: int = Field(2, ge=0, le=10_000, description="Streams of WatchSessions at once.")
    audio_bytes_per_s: int = Field(
        1_000_000,
        ge=0,
        le=1_000_000_000,
        description="Bytes of audio per second. Speech in 24 kHz mono takes 48,000; sources faster than real time "
        "send up to the credit at once.",
    )
    unary_calls_per_s: float = Field(
        10.0, ge=0, le=100_000, description="Unary calls per second, except calls that list."
    )
    list_calls_per_s: float = Field(1.0, ge=0, le=10_000, description="Calls per second that list.")
