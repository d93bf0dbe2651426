"""Everything a call, a command or an utterance can fail with, as one tree.

GatewayError
├── CallerError      the caller must change something
├── CapacityError    a limit, with its scope and a wait
├── OwnershipError   another stream or process has it
├── UpstreamError    LiveAvatar, with what it said
├── InternalError    a fault of the gateway's own
├── TransportError   the gateway was not reached, or something before it answered
└── ClientError      this library refused; nothing was sent

Each reason of `errors.proto` has one class, so `except AudioGap` is all a program needs. A reason that this
library does not know yet is raised as the group its status code belongs to, with `reason` set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A request field that is at fault."""

    field: str
    """Path of the field, as in `spec.avatar_id`."""
    description: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A limit that was hit."""

    subject: str
    """Whose limit: `upstream_account` or `replica`."""
    description: str
    """What the limit is."""


class GatewayError(Exception):
    """Base of everything this library raises for a gateway's or its own refusal."""

    reason: str = ""
    """One of `ErrorReason` without its prefix, such as "AUDIO_GAP"; empty when there is none."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        field_violations: Iterable[FieldViolation] = (),
        quota_violations: Iterable[QuotaViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        """Keep what a program needs to act on.

        Args:
            message: What happened and the next step, for a human.
            code: The gRPC status.
            reason: The reason, where it is not the class's own.
            metadata: Every value the message mentions.
            field_violations: Request fields at fault.
            quota_violations: Limits that were hit.
            retry_after: Seconds to wait before the same call may succeed; None when waiting does not help.
        """
        super().__init__(message)
        self.message = message
        self.code = code
        if reason is not None:
            self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.field_violations = tuple(field_violations)
        self.quota_violations = tuple(quota_violations)
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code.name}, reason={self.reason!r})"


class CallerError(GatewayError):
    """The caller must change something; the same call fails again."""


class CapacityError(GatewayError):
    """A limit was hit; waiting helps."""


class OwnershipError(GatewayError):
    """Another stream or process holds what was asked for."""


class UpstreamError(GatewayError):
    """LiveAvatar refused or failed; `metadata` holds what it said."""


class InternalError(GatewayError):
    """A fault of the gateway's own; `metadata["incident"]` finds it in the gateway's log."""

    reason = "INTERNAL"


class TransportError(GatewayError):
    """The gateway was not reached, or something in front of it answered."""


class ClientError(GatewayError):
    """This library refused; nothing was sent."""


class InvalidField(CallerError):
    """A request field is missing or out of its range; `field_violations` names it."""

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
    """A file's bytes were sent as raw samples; give `say` the file's path instead."""

    reason = "AUDIO_CONTAINER_DETECTED"


class AudioMisaligned(CallerError):
    """Audio ends inside a sample; playing on would be noise."""

    reason = "AUDIO_MISALIGNED"


class ChunkTooLarge(CallerError):
    """A chunk is above the gateway's limit."""

    reason = "CHUNK_TOO_LARGE"


class AudioGap(CallerError):
    """Audio skips bytes of its utterance."""

    reason = "AUDIO_GAP"

    @property
    def expected(self) -> int | None:
        """The byte of the utterance where audio should have gone on."""
        return _integer(self.metadata.get("expected"))


class UtteranceIdReused(CallerError):
    """The utterance id was used before in this session."""

    reason = "UTTERANCE_ID_REUSED"


class UtteranceNotFound(CallerError):
    """The session never had an utterance of that id."""

    reason = "UTTERANCE_NOT_FOUND"


class SessionNotFound(CallerError):
    """No session of that id or handle, or not the caller's."""

    reason = "SESSION_NOT_FOUND"


class SessionEnded(CallerError):
    """The session is over."""

    reason = "SESSION_ENDED"

    @property
    def end_reason(self) -> str:
        """Why it ended, a name of `EndReason` such as "MAX_DURATION"; empty when unknown."""
        return self.metadata.get("end_reason", "")


class EventsCompacted(CallerError):
    """Events after the given sequence are no longer kept."""

    reason = "EVENTS_COMPACTED"

    @property
    def oldest_sequence(self) -> int | None:
        """The oldest event that is kept."""
        return _integer(self.metadata.get("oldest_sequence"))


class RequestIdReused(CallerError):
    """The request id was used with another spec."""

    reason = "REQUEST_ID_REUSED"


class CreditExceeded(CapacityError):
    """More audio was sent than the credit allowed."""

    reason = "CREDIT_EXCEEDED"


class CapacityExhausted(CapacityError):
    """No session can be created now."""

    reason = "CAPACITY_EXHAUSTED"

    @property
    def scope(self) -> str:
        """Whose limit it is: `upstream_account` or `replica`."""
        return self.metadata.get("scope", "")


class AttachSuperseded(OwnershipError):
    """Another `Attach` took this session over; resume to take it back."""

    reason = "ATTACH_SUPERSEDED"


class AudioStreamSuperseded(OwnershipError):
    """Another `StreamAudio` took this session's speech over."""

    reason = "AUDIO_STREAM_SUPERSEDED"


class Draining(OwnershipError):
    """This gateway process is draining: it takes nothing new and ends its sessions.

    Come back in 1 s to reach another process.
    """

    reason = "DRAINING"


class OwnerMoved(OwnershipError):
    """Another process of the gateway drives the session now.

    It is looked for at `address`, then at the client's other targets; who gets this found it nowhere, or, from
    `end_session`, that process has not ended it in time: it will.
    """

    reason = "OWNER_MOVED"

    @property
    def address(self) -> str:
        """Where that process listens, `host:port`; empty when unknown."""
        return self.metadata.get("address", "")


class RegistryUnavailable(OwnershipError):
    """The gateway cannot write down new sessions now, so it starts none; those that live go on."""

    reason = "REGISTRY_UNAVAILABLE"


class UpstreamUnauthenticated(UpstreamError):
    """LiveAvatar refuses the gateway's API key."""

    reason = "UPSTREAM_UNAUTHENTICATED"


class UpstreamCreditsExhausted(UpstreamError):
    """The LiveAvatar account has no credits left."""

    reason = "UPSTREAM_CREDITS_EXHAUSTED"


class UpstreamPlanRequired(UpstreamError):
    """The LiveAvatar plan does not include what was asked for."""

    reason = "UPSTREAM_PLAN_REQUIRED"


class UpstreamRejected(UpstreamError):
    """LiveAvatar refused the request's content; its words are in the message."""

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
    """The avatar did not become ready in time; the session was ended."""

    reason = "READY_TIMEOUT"


class UpstreamStalled(UpstreamError):
    """Audio was sent, and LiveAvatar gave no sign of having taken it."""

    reason = "UPSTREAM_STALLED"


class UtteranceIdle(CallerError):
    """No audio came for an utterance within its idle limit."""

    reason = "UTTERANCE_IDLE"


class FirstMessageTimeout(CallerError):
    """A stream's first message did not come in time."""

    reason = "FIRST_MESSAGE_TIMEOUT"


class MalformedMessage(CallerError):
    """The gateway could not read a message: what sent it is not of this contract."""

    reason = "MALFORMED_MESSAGE"


class MetadataTooLarge(CallerError):
    """The metadata of a call was larger than the gateway takes."""

    reason = "METADATA_TOO_LARGE"


class ConnectionLost(TransportError):
    """The gateway cannot be reached, or the connection to it broke."""


class DeadlineExceeded(TransportError, TimeoutError):
    """No answer came within the time the caller allowed."""


class Unauthenticated(TransportError):
    """The credentials of this client are missing or refused."""


class PermissionDenied(TransportError):
    """The credentials of this client do not allow the call."""


class SessionClosed(ClientError):
    """The session object is not open: it was never opened, or was detached or closed."""


class ClientClosed(ClientError):
    """The client was closed."""


class ForkedClient(ClientError):
    """The client was made before this process was forked; its thread and its connections stayed with the parent.

    Make clients after the fork, or start processes with the `spawn` method of `multiprocessing`.
    """


class MessageRefused(ClientError):
    """gRPC refused a message: too large for this end or the other, or it could not be encoded or decoded."""


class TooManyUtterances(ClientError):
    """More utterances wait in this session than it keeps."""


REASONS: Mapping[str, type[GatewayError]] = {
    kind.reason: kind
    for kind in (
        InvalidField,
        HeaderRequired,
        UnexpectedMessage,
        AudioFormatUnsupported,
        AudioContainerDetected,
        AudioMisaligned,
        ChunkTooLarge,
        AudioGap,
        CreditExceeded,
        UtteranceIdReused,
        UtteranceNotFound,
        SessionNotFound,
        SessionEnded,
        AttachSuperseded,
        AudioStreamSuperseded,
        EventsCompacted,
        RequestIdReused,
        CapacityExhausted,
        Draining,
        OwnerMoved,
        RegistryUnavailable,
        UpstreamUnauthenticated,
        UpstreamCreditsExhausted,
        UpstreamPlanRequired,
        UpstreamRejected,
        UpstreamRateLimited,
        UpstreamUnreachable,
        UpstreamProtocol,
        UpstreamTimeout,
        ReadyTimeout,
        UpstreamStalled,
        UtteranceIdle,
        FirstMessageTimeout,
        MalformedMessage,
        MetadataTooLarge,
        InternalError,
    )
}
"""The class of each reason the gateway can give."""


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
