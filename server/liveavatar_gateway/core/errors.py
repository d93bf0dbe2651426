"""Everything the gateway refuses, as one tree.

GatewayError
├── CallerError      the caller must change something
├── CapacityError    a limit, with its scope and a wait
├── OwnershipError   another stream or process has it, or nobody can tell who does
├── UpstreamError    LiveAvatar, with what it said
└── InternalError    a fault of our own

Each class has a `reason`, which is public API (`ErrorReason` in `errors.proto`), and keeps every value its
message mentions in `metadata`. `rpc/errors.py` is the only place that turns them into gRPC statuses.
"""

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """Base of everything the gateway refuses."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        facts: Mapping[str, object] | None = None,
        **metadata: object,
    ) -> None:
        """Keep what a caller needs to act on.

        Args:
            message: What happened and the next step, for a human.
            field: Path of the request field at fault, as in `spec.avatar_id`.
            retry_after_s: How long to wait before the same call may succeed.
            facts: Values in the message, for a program.
            metadata: The same, by name.
        """
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata: Mapping[str, str] = {
            key: str(value) for key, value in {**(facts or {}), **metadata}.items()
        }


class CallerError(GatewayError):
    """The caller must change something; the same call fails again."""


class CapacityError(GatewayError):
    """A limit was hit; waiting helps."""


class OwnershipError(GatewayError):
    """Another stream or process holds what was asked for, or nobody can tell who does."""


class UpstreamError(GatewayError):
    """LiveAvatar refused or failed; `metadata` holds its HTTP status and code."""


class InternalError(GatewayError):
    """A fault of the gateway's own."""

    reason = "INTERNAL"


class InvalidField(CallerError):
    """A request field is missing or out of its documented range."""

    reason = "INVALID_FIELD"


class HeaderRequired(CallerError):
    """A stream's first message was not its header."""

    reason = "HEADER_REQUIRED"


class UnexpectedMessage(CallerError):
    """A message came where the stream's grammar does not allow it."""

    reason = "UNEXPECTED_MESSAGE"


class AudioFormatUnsupported(CallerError):
    """Encoding, sample rate or channel count is not one that is taken."""

    reason = "AUDIO_FORMAT_UNSUPPORTED"


class AudioContainerDetected(CallerError):
    """A file was sent where raw audio was announced."""

    reason = "AUDIO_CONTAINER_DETECTED"

    def __init__(self, container: str) -> None:
        super().__init__(
            f"this is a {container} file, not raw samples; decode it first, or strip its header",
            field="chunk.audio",
            container=container,
        )


class AudioMisaligned(CallerError):
    """Audio ends inside a sample.

    Not raised here any more, since chunks may be cut anywhere; kept for records of earlier versions in a registry.
    """

    reason = "AUDIO_MISALIGNED"

    def __init__(self, size_bytes: int, frame_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes are no whole number of {frame_bytes}-byte samples; cut chunks between samples",
            field="chunk.audio",
            size_bytes=size_bytes,
            frame_bytes=frame_bytes,
        )


class ChunkTooLarge(CallerError):
    """A chunk is above the limit told in `ready`."""

    reason = "CHUNK_TOO_LARGE"

    def __init__(self, size_bytes: int, max_chunk_bytes: int) -> None:
        super().__init__(
            f"a chunk of {size_bytes} bytes is above the limit of {max_chunk_bytes}; send it in several",
            field="chunk.audio",
            size_bytes=size_bytes,
            max_chunk_bytes=max_chunk_bytes,
        )


class AudioGap(CallerError):
    """Audio skips bytes of its utterance."""

    reason = "AUDIO_GAP"

    def __init__(self, utterance_id: str, expected: int, got: int) -> None:
        super().__init__(
            f"audio goes on at byte {got}, expected {expected}; resend from {expected}",
            field="chunk.offset_bytes",
            utterance_id=utterance_id,
            expected=expected,
            got=got,
        )


class UtteranceIdReused(CallerError):
    """The utterance id was used before in this session."""

    reason = "UTTERANCE_ID_REUSED"

    def __init__(self, utterance_id: str) -> None:
        super().__init__(
            f"utterance id {utterance_id!r} was used before in this session; take a fresh one",
            field="begin.utterance_id",
            utterance_id=utterance_id,
        )


class UtteranceNotFound(CallerError):
    """The session never had an utterance of that id."""

    reason = "UTTERANCE_NOT_FOUND"

    def __init__(self, utterance_id: str) -> None:
        super().__init__(
            f"no utterance {utterance_id!r} in this session; leave the id empty to cut whatever is spoken",
            field="utterance_id",
            utterance_id=utterance_id,
        )


class SessionNotFound(CallerError):
    """No session of that id, or not the caller's."""

    reason = "SESSION_NOT_FOUND"

    def __init__(self, session_id: str, *, field: str = "session_id") -> None:
        super().__init__(
            f"no session {session_id!r}; it never was, or it ended long ago",
            field=field,
            session_id=session_id,
        )


class SessionEnded(CallerError):
    """The session is over."""

    reason = "SESSION_ENDED"

    def __init__(self, session_id: str, end_reason: str, upstream_reason: str = "") -> None:
        said = f" (LiveAvatar: {upstream_reason})" if upstream_reason else ""
        super().__init__(
            f"session {session_id} has ended: {end_reason}{said}; create a new one",
            session_id=session_id,
            end_reason=end_reason,
            upstream_reason=upstream_reason,
        )


class EventsCompacted(CallerError):
    """Events after the given sequence are no longer kept."""

    reason = "EVENTS_COMPACTED"

    def __init__(self, after_sequence: int, oldest_sequence: int) -> None:
        super().__init__(
            f"events after {after_sequence} are not kept, the oldest is {oldest_sequence}; "
            f"resume after {oldest_sequence - 1} or with skip_compacted, and read the session for what is true",
            field="resume.after_sequence",
            after_sequence=after_sequence,
            oldest_sequence=oldest_sequence,
        )


class RequestIdReused(CallerError):
    """The request id was used with another spec."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id {request_id!r} was used with another spec; take a fresh one for a new session",
            field="request_id",
            request_id=request_id,
        )


class UtteranceIdle(CallerError):
    """No audio came for an utterance within the idle limit that its caller set."""

    reason = "UTTERANCE_IDLE"

    def __init__(self, utterance_id: str, idle_timeout_s: float) -> None:
        super().__init__(
            f"no audio came for {idle_timeout_s:g} s and the utterance was not ended; begin a new one",
            utterance_id=utterance_id,
            idle_timeout_s=f"{idle_timeout_s:g}",
        )


class FirstMessageTimeout(CallerError):
    """A stream was opened and its first message did not come in time."""

    reason = "FIRST_MESSAGE_TIMEOUT"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"no first message came within {timeout_s:g} s; open the stream when there is something to send",
            timeout_s=f"{timeout_s:g}",
        )


class MalformedMessage(CallerError):
    """The bytes of a message are not what its method takes."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self, method: str, size_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes are no request of {method}; send what the contract's protos describe",
            method=method,
            size_bytes=size_bytes,
        )


class MetadataTooLarge(CallerError):
    """The metadata of a call is larger than any gateway takes."""

    reason = "METADATA_TOO_LARGE"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the call's metadata has {size_bytes} bytes, more than {limit_bytes}; send fewer or shorter headers",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


class CreditExceeded(CapacityError):
    """More audio came than the credit allowed."""

    reason = "CREDIT_EXCEEDED"

    def __init__(self, size_bytes: int, credit_bytes: int, retry_after_s: float) -> None:
        super().__init__(
            f"a chunk of {size_bytes} bytes exceeds the credit of {credit_bytes}; wait for an ack with more",
            field="chunk.audio",
            retry_after_s=retry_after_s,
            size_bytes=size_bytes,
            credit_bytes=credit_bytes,
        )


class CapacityExhausted(CapacityError):
    """No session can be created now."""

    reason = "CAPACITY_EXHAUSTED"

    def __init__(
        self, message: str, *, scope: str, retry_after_s: float, facts: Mapping[str, object] | None = None
    ) -> None:
        """Name whose limit it is: `upstream_account`, `replica`, `session` or `stream`."""
        super().__init__(message, retry_after_s=retry_after_s, facts=facts, scope=scope)

    @property
    def scope(self) -> str:
        """Owner of the limit."""
        return self.metadata.get("scope", "")


class AttachSuperseded(OwnershipError):
    """Another `Attach` took over."""

    reason = "ATTACH_SUPERSEDED"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "another Attach took this session over; stop here, or resume to take it back",
            session_id=session_id,
        )


class AudioStreamSuperseded(OwnershipError):
    """Another `StreamAudio` took over."""

    reason = "AUDIO_STREAM_SUPERSEDED"

    def __init__(self, session_id: str) -> None:
        super().__init__("another StreamAudio took this session's speech over", session_id=session_id)


class Draining(OwnershipError):
    """This process takes nothing new and ends what it has, since it exits or an operator drains it."""

    reason = "DRAINING"

    def __init__(self) -> None:
        # The same sentence is in the contract, the client and docs/errors.md; the wait in it is that of RetryInfo.
        super().__init__(
            "this gateway process is draining: it takes nothing new and ends its sessions; "
            "come back in 1 s to reach another process",
            retry_after_s=1.0,
            wait_s="1",
        )


class OwnerMoved(OwnershipError):
    """Another process of the gateway drives the session."""

    reason = "OWNER_MOVED"

    def __init__(self, session_id: str, *, address: str = "") -> None:
        where = f" at {address}" if address else ""
        super().__init__(
            f"another process of the gateway drives session {session_id} now{where}; resume there",
            session_id=session_id,
            address=address,
        )


class RegistryUnavailable(OwnershipError):
    """The registry cannot be used, and without it nobody would know of a new session after a crash."""

    reason = "REGISTRY_UNAVAILABLE"

    def __init__(self, message: str, *, facts: Mapping[str, object] | None = None) -> None:
        super().__init__(message, retry_after_s=1.0, facts=facts)


class UpstreamUnauthenticated(UpstreamError):
    """LiveAvatar refuses the gateway's API key."""

    reason = "UPSTREAM_UNAUTHENTICATED"


class UpstreamCreditsExhausted(UpstreamError):
    """The LiveAvatar account has no credits left."""

    reason = "UPSTREAM_CREDITS_EXHAUSTED"


class UpstreamPlanRequired(UpstreamError):
    """The plan does not include what was asked for."""

    reason = "UPSTREAM_PLAN_REQUIRED"


class UpstreamRejected(UpstreamError):
    """LiveAvatar refused the request's content."""

    reason = "UPSTREAM_REJECTED"


class UpstreamRateLimited(UpstreamError):
    """LiveAvatar's rate limit was hit."""

    reason = "UPSTREAM_RATE_LIMITED"


class UpstreamUnreachable(UpstreamError):
    """LiveAvatar could not be reached, or failed with a server error."""

    reason = "UPSTREAM_UNREACHABLE"


class UpstreamProtocol(UpstreamError):
    """LiveAvatar answered with something that is not its protocol."""

    reason = "UPSTREAM_PROTOCOL"


class UpstreamTimeout(UpstreamError):
    """LiveAvatar did not answer in time."""

    reason = "UPSTREAM_TIMEOUT"


class ReadyTimeout(UpstreamError):
    """The avatar did not become ready in time."""

    reason = "READY_TIMEOUT"


class UpstreamStalled(UpstreamError):
    """Audio was sent, and LiveAvatar gave no sign of having taken it."""

    reason = "UPSTREAM_STALLED"
