"""Errors of calls, commands and utterances, as one tree.

GatewayError
├── CallerError      the caller must change the request
├── AccessError      the gateway does not know the caller, or does not allow the call
├── CapacityError    a limit, with its scope and a wait
├── OwnershipError   another stream or process owns the session
├── UpstreamError    LiveAvatar refused or failed
├── InternalError    a bug of the gateway
├── TransportError   the gateway was not reached, or a proxy answered
└── ClientError      this library refused; nothing was sent

Each reason of `errors.proto` has a class of its own, such as `AudioGap`. A reason that this library does not know
is raised as the group of its status code, with `reason` set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Invalid field of a request."""

    field: str
    """Path of the field, such as `spec.avatar_id`."""
    description: str
    """Description of the fault."""


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """Limit that was reached."""

    subject: str
    """Scope of the limit: `upstream_account` or `replica`."""
    description: str
    """Description of the limit."""


class GatewayError(Exception):
    """Base of all errors that the gateway or this library raises."""

    reason: str = ""
    """Name of the `ErrorReason` without prefix, such as "AUDIO_GAP"; empty when the error has none."""

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
        """Keep the values that a program acts on.

        Args:
            message: Description of the error and of the next step, for people.
            code: gRPC status code.
            reason: Reason, if not the class's own.
            metadata: All values that the message mentions.
            field_violations: Invalid fields of the request.
            quota_violations: Limits that were reached.
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
    """Error that the caller must correct; the same call fails again."""


class AccessError(GatewayError):
    """Refusal of the credential, or of a call that the credential does not allow."""


class CapacityError(GatewayError):
    """Limit that was reached; waiting helps."""


class OwnershipError(GatewayError):
    """Ownership of the session by another stream or process."""


class UpstreamError(GatewayError):
    """Refusal or failure of LiveAvatar; `metadata` holds its answer."""


class InternalError(GatewayError):
    """Bug of the gateway; `metadata["incident"]` is its id in the gateway's log."""

    reason = "INTERNAL"


class TransportError(GatewayError):
    """Failure to reach the gateway, or an answer of a proxy in front of it."""


class ClientError(GatewayError):
    """Refusal by this library; nothing was sent."""


class InvalidField(CallerError):
    """Missing or invalid field of a request; `field_violations` names the field."""

    reason = "INVALID_FIELD"


class HeaderRequired(CallerError):
    """Missing header: the first message of a stream was another message."""

    reason = "HEADER_REQUIRED"


class UnexpectedMessage(CallerError):
    """Message that the grammar of the stream does not allow at this point."""

    reason = "UNEXPECTED_MESSAGE"


class AudioFormatUnsupported(CallerError):
    """Unsupported encoding, sample rate or channel count."""

    reason = "AUDIO_FORMAT_UNSUPPORTED"


class AudioContainerDetected(CallerError):
    """Bytes of a file, sent as raw samples; give `say` the path of the file instead."""

    reason = "AUDIO_CONTAINER_DETECTED"


class AudioMisaligned(CallerError):
    """Audio that ends inside a sample; later audio would play as noise."""

    reason = "AUDIO_MISALIGNED"


class ChunkTooLarge(CallerError):
    """Chunk above the gateway's limit."""

    reason = "CHUNK_TOO_LARGE"


class AudioGap(CallerError):
    """Missing bytes of an utterance."""

    reason = "AUDIO_GAP"

    @property
    def expected(self) -> int | None:
        """Offset of the missing bytes in the utterance."""
        return _integer(self.metadata.get("expected"))


class UtteranceIdReused(CallerError):
    """Utterance id that was used before in this session."""

    reason = "UTTERANCE_ID_REUSED"


class UtteranceNotFound(CallerError):
    """Utterance id that the session never had."""

    reason = "UTTERANCE_NOT_FOUND"


class AccountNotFound(CallerError):
    """Unknown LiveAvatar account of the gateway; only operators name accounts."""

    reason = "ACCOUNT_NOT_FOUND"


class SessionNotFound(CallerError):
    """Unknown session id or handle."""

    reason = "SESSION_NOT_FOUND"


class ReservationNotFound(CallerError):
    """Reservation that has expired, was taken, or never existed; the session can be opened without it."""

    reason = "RESERVATION_NOT_FOUND"


class ReservationMismatch(CallerError):
    """Reservation of another avatar or video than the options ask for."""

    reason = "RESERVATION_MISMATCH"


class AgentSeatTaken(CallerError):
    """Agent's seat of the session's room that belongs to the caller's own agent, so the gateway cannot join."""

    reason = "AGENT_SEAT_TAKEN"


class ParticipantNotFound(CallerError):
    """Participant that is to get data and is not in the room; nothing was sent."""

    reason = "PARTICIPANT_NOT_FOUND"


class DataNotPermitted(CallerError):
    """Room to which the gateway may not send data, for lack of a permission in LiveAvatar's token."""

    reason = "DATA_NOT_PERMITTED"


class AgentHosted(CallerError):
    """Call that a session with a hosted agent cannot carry out: the agent of its connector hears and speaks."""

    reason = "AGENT_HOSTED"


class RoomNotOwn(CallerError):
    """Call that needs a session in a LiveKit room of the caller's own."""

    reason = "ROOM_NOT_OWN"


class SessionEnded(CallerError):
    """End of the session."""

    reason = "SESSION_ENDED"

    @property
    def end_reason(self) -> str:
        """Name of the `EndReason`, such as "MAX_DURATION"; empty when unknown."""
        return self.metadata.get("end_reason", "")


class EventsCompacted(CallerError):
    """Loss of events after the given sequence, which are no longer kept."""

    reason = "EVENTS_COMPACTED"

    @property
    def oldest_sequence(self) -> int | None:
        """Sequence of the oldest event that is kept."""
        return _integer(self.metadata.get("oldest_sequence"))


class RequestIdReused(CallerError):
    """Request id that was used with another spec."""

    reason = "REQUEST_ID_REUSED"


class TimingsInvalid(CallerError):
    """Refused timings of words; the audio of the utterance is not affected."""

    reason = "TIMINGS_INVALID"


class TimingsGap(CallerError):
    """Missing timings of words; the audio of the utterance is not affected."""

    reason = "TIMINGS_GAP"


class TimingsLimit(CallerError):
    """Too much text in an utterance or a session; the audio of the utterance is not affected."""

    reason = "TIMINGS_LIMIT"


class CreditExceeded(CapacityError):
    """Audio beyond the credit."""

    reason = "CREDIT_EXCEEDED"


class CapacityExhausted(CapacityError):
    """Lack of capacity for a new session or utterance."""

    reason = "CAPACITY_EXHAUSTED"

    @property
    def scope(self) -> str:
        """Scope of the limit: `upstream_account`, `replica` or `session`."""
        return self.metadata.get("scope", "")


class TooManyCalls(CapacityError):
    """Call refused since the gateway process has too many calls at once."""

    reason = "TOO_MANY_CALLS"


class BudgetExhausted(CapacityError):
    """Budget of billed minutes that the tenant has spent; `retry_after` lasts until the next, at most a day."""

    reason = "BUDGET_EXHAUSTED"

    @property
    def period(self) -> str:
        """Period whose budget is spent: `hour`, `day` or `month`."""
        return self.metadata.get("period", "")


class QuotaExceeded(CapacityError):
    """Quota of the tenant that is used up."""

    reason = "QUOTA_EXCEEDED"

    @property
    def scope(self) -> str:
        """Name of the quota, such as `max_sessions`."""
        return self.metadata.get("scope", "")


class AttachSuperseded(OwnershipError):
    """Takeover of the session by another `Attach` stream; resume to take the session back."""

    reason = "ATTACH_SUPERSEDED"


class AudioStreamSuperseded(OwnershipError):
    """Takeover of the session's speech by another `StreamAudio` stream."""

    reason = "AUDIO_STREAM_SUPERSEDED"


class Draining(OwnershipError):
    """Drain of the gateway process: it accepts nothing new and ends its sessions.

    Retry after 1 s to reach another process.
    """

    reason = "DRAINING"


class OwnerMoved(OwnershipError):
    """Ownership of the session by another process of the gateway.

    The client tries `address`, then its other targets. The error is raised when none of them has the session, or
    by `end_session` when the owner did not end the session in time; the owner still ends the session.
    """

    reason = "OWNER_MOVED"

    @property
    def address(self) -> str:
        """Address of the owner, `host:port`; empty when unknown."""
        return self.metadata.get("address", "")


class RegistryUnavailable(OwnershipError):
    """Failure of the gateway's registry: no new sessions are accepted, existing sessions go on."""

    reason = "REGISTRY_UNAVAILABLE"


class UpstreamUnauthenticated(UpstreamError):
    """Refusal of the gateway's API key by LiveAvatar."""

    reason = "UPSTREAM_UNAUTHENTICATED"


class UpstreamCreditsExhausted(UpstreamError):
    """LiveAvatar account without credits."""

    reason = "UPSTREAM_CREDITS_EXHAUSTED"


class UpstreamPlanRequired(UpstreamError):
    """Request that the LiveAvatar plan does not include."""

    reason = "UPSTREAM_PLAN_REQUIRED"


class UpstreamRejected(UpstreamError):
    """Refusal of the request by LiveAvatar; the message holds its reason."""

    reason = "UPSTREAM_REJECTED"


class UpstreamRateLimited(UpstreamError):
    """Rate limit of LiveAvatar."""

    reason = "UPSTREAM_RATE_LIMITED"


class UpstreamUnreachable(UpstreamError):
    """Failure to reach LiveAvatar, or a server error of LiveAvatar."""

    reason = "UPSTREAM_UNREACHABLE"


class UpstreamProtocol(UpstreamError):
    """Answer of LiveAvatar that violates its protocol."""

    reason = "UPSTREAM_PROTOCOL"


class UpstreamAddressRefused(UpstreamError):
    """Address named by LiveAvatar that the gateway does not use; the session is being stopped."""

    reason = "UPSTREAM_ADDRESS_REFUSED"


class RoomUnreachable(UpstreamError):
    """Room that the gateway cannot reach, or whose LiveKit server refused; the session continues."""

    reason = "ROOM_UNREACHABLE"


class RoomTokenMissing(UpstreamError):
    """Lack of a token with which the gateway could join the room that LiveAvatar made for the session."""

    reason = "ROOM_TOKEN_MISSING"


class UpstreamTimeout(UpstreamError):
    """Missing answer of LiveAvatar."""

    reason = "UPSTREAM_TIMEOUT"


class ReadyTimeout(UpstreamError):
    """Avatar that did not become ready in time; the session was ended."""

    reason = "READY_TIMEOUT"


class UpstreamStalled(UpstreamError):
    """Audio that LiveAvatar never acknowledged."""

    reason = "UPSTREAM_STALLED"


class UtteranceIdle(CallerError):
    """Utterance without audio for longer than the idle limit."""

    reason = "UTTERANCE_IDLE"


class FirstMessageTimeout(CallerError):
    """Stream whose first message did not arrive in time."""

    reason = "FIRST_MESSAGE_TIMEOUT"


class MalformedMessage(CallerError):
    """Message that the gateway could not decode, since it is not of this contract."""

    reason = "MALFORMED_MESSAGE"


class MessageTooLarge(CallerError):
    """Message above the gateway's limit for its method."""

    reason = "MESSAGE_TOO_LARGE"


class AnswersUnread(CallerError):
    """Call with an answer that was not read in time, such as by a suspended program or over a slow network."""

    reason = "ANSWERS_UNREAD"


class MetadataTooLarge(CallerError):
    """Metadata of a call above the gateway's limit."""

    reason = "METADATA_TOO_LARGE"


class CredentialMissing(AccessError):
    """Call without a credential."""

    reason = "CREDENTIAL_MISSING"


class CredentialInvalid(AccessError):
    """Malformed, unknown or revoked credential, or one with a wrong signature or wrong claims."""

    reason = "CREDENTIAL_INVALID"


class CredentialExpired(AccessError):
    """Credential that is no longer valid."""

    reason = "CREDENTIAL_EXPIRED"


class CredentialUnverifiable(AccessError):
    """Token that the gateway cannot verify at present, since it cannot read the issuer's keys."""

    reason = "CREDENTIAL_UNVERIFIABLE"


class TenantSuspended(AccessError):
    """Tenant that the operator has suspended."""

    reason = "TENANT_SUSPENDED"


class RoleMissing(AccessError):
    """Call that none of the credential's roles includes."""

    reason = "ROLE_MISSING"


class RoomNotAllowed(AccessError):
    """LiveKit room that the tenant may not use."""

    reason = "ROOM_NOT_ALLOWED"


class AvatarNotAllowed(AccessError):
    """Avatar that the operator does not allow to the caller's tenant."""

    reason = "AVATAR_NOT_ALLOWED"


class ConnectionLost(TransportError):
    """Unreachable gateway, or a broken connection to the gateway."""


class DeadlineExceeded(TransportError, TimeoutError):
    """Missing answer within the timeout of the caller."""


class Unauthenticated(TransportError):
    """Missing or refused credentials of this client."""


class PermissionDenied(TransportError):
    """Call that the credentials of this client do not allow."""


class PlaintextRefused(ClientError):
    """Credential that would travel without TLS to another machine; `tls=True` encrypts the connection."""


class TokenUnavailable(ClientError):
    """Failure of the token source; its exception is the `__cause__`."""


class SessionClosed(ClientError):
    """Session object that is not open: never opened, detached or closed."""


class ClientClosed(ClientError):
    """Call on a closed client."""


class ForkedClient(ClientError):
    """Use of a client that was created before a fork: its thread and connections stay with the parent process.

    Create clients after the fork, or start processes with the `spawn` method of `multiprocessing`.
    """


class MessageRefused(ClientError):
    """Message that gRPC refused: too large for either side, or not to be encoded or decoded."""


class ExtraMissing(ClientError):
    """Lack of a package that only an extra of this library brings; `extra` names the extra."""

    @property
    def extra(self) -> str:
        """Name of the extra, for `pip install 'liveavatar-gateway-client[extra]'`."""
        return self.metadata.get("extra", "")


class TooManyUtterances(ClientError):
    """Too many utterances without an outcome in one session."""


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
        TimingsInvalid,
        TimingsGap,
        TimingsLimit,
        CreditExceeded,
        UtteranceIdReused,
        UtteranceNotFound,
        AccountNotFound,
        SessionNotFound,
        ReservationNotFound,
        ReservationMismatch,
        AgentSeatTaken,
        ParticipantNotFound,
        DataNotPermitted,
        AgentHosted,
        RoomNotOwn,
        SessionEnded,
        AttachSuperseded,
        AudioStreamSuperseded,
        EventsCompacted,
        RequestIdReused,
        CapacityExhausted,
        BudgetExhausted,
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
        UpstreamAddressRefused,
        UpstreamTimeout,
        ReadyTimeout,
        UpstreamStalled,
        RoomUnreachable,
        RoomTokenMissing,
        UtteranceIdle,
        FirstMessageTimeout,
        MalformedMessage,
        MessageTooLarge,
        AnswersUnread,
        TooManyCalls,
        MetadataTooLarge,
        CredentialMissing,
        CredentialInvalid,
        CredentialExpired,
        CredentialUnverifiable,
        TenantSuspended,
        RoleMissing,
        RoomNotAllowed,
        QuotaExceeded,
        AvatarNotAllowed,
        InternalError,
    )
}
"""Class of each reason of the gateway."""


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
