"""Errors of the gateway, as one tree.

GatewayError
├── CallerError      the caller must change something
├── AccessError      the caller is unknown, or may not make the call
├── CapacityError    a limit, with its scope and a wait
├── OwnershipError   another stream or process holds it, or its owner cannot be determined
├── UpstreamError    LiveAvatar refused or failed, with its own code and message; or a LiveKit server
└── InternalError    a fault of the gateway's own

Each class has a `reason`, which is public API (`ErrorReason` in `errors.proto`), and keeps every value of its
message in `metadata`. `rpc/errors.py` alone turns errors into gRPC statuses.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

_MAX_ID_CHARS: Final = 36
"""Length of a session's id, a UUID."""


def id_or_nothing(text: str) -> str:
    """Return the id of a session that a caller has sent; empty for a longer text.

    A handle, a key or a token in the place of an id must get into no error and no log.
    """
    return text if len(text) <= _MAX_ID_CHARS else ""


class GatewayError(Exception):
    """Base of all errors that the gateway returns to a caller."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        values: Mapping[str, object] | None = None,
        **metadata: object,
    ) -> None:
        """Create an error that tells a caller how to react.

        Args:
            message: What happened and the next step, for a human.
            field: Path of the request field at fault, as in `spec.avatar_id`.
            retry_after_s: Wait after which the same call may succeed; None when no wait helps.
            values: Values in the message, for a program.
            metadata: More of these values, as keyword arguments.
        """
        super().__init__(message)
        self.message = message
        self.detail = ""
        """More about the cause, for operators; never sent to a caller."""
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata: Mapping[str, str] = {
            key: str(value) for key, value in {**(values or {}), **metadata}.items()
        }


class CallerError(GatewayError):
    """The caller must change something; the same call fails again."""


class AccessError(GatewayError):
    """The caller is unknown, or may not make the call."""


class CapacityError(GatewayError):
    """A limit was hit; waiting helps."""


class OwnershipError(GatewayError):
    """Another stream or process holds the session, or its owner cannot be determined."""


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
    """The order of messages on the stream does not allow this message."""

    reason = "UNEXPECTED_MESSAGE"


class AudioFormatUnsupported(CallerError):
    """Encoding, sample rate or channel count is not supported."""

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

    No longer raised, since chunks may be cut anywhere; kept for records of earlier versions in a registry.
    """

    reason = "AUDIO_MISALIGNED"

    def __init__(self, size_bytes: int, frame_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes are not a multiple of {frame_bytes}-byte samples; cut chunks between samples",
            field="chunk.audio",
            size_bytes=size_bytes,
            frame_bytes=frame_bytes,
        )


class ChunkTooLarge(CallerError):
    """A chunk is larger than the limit in `ready`."""

    reason = "CHUNK_TOO_LARGE"

    def __init__(self, size_bytes: int, max_chunk_bytes: int) -> None:
        super().__init__(
            f"a chunk of {size_bytes} bytes is above the limit of {max_chunk_bytes}; send several smaller ones",
            field="chunk.audio",
            size_bytes=size_bytes,
            max_chunk_bytes=max_chunk_bytes,
        )


class AudioGap(CallerError):
    """Audio skips bytes of its utterance."""

    reason = "AUDIO_GAP"

    def __init__(self, utterance_id: str, expected: int, got: int) -> None:
        super().__init__(
            f"audio continues at byte {got}, expected {expected}; resend from {expected}",
            field="chunk.offset_bytes",
            utterance_id=utterance_id,
            expected=expected,
            got=got,
        )


class TimingsInvalid(CallerError):
    """The times of an utterance's text are missing, out of order or impossible."""

    reason = "TIMINGS_INVALID"

    def __init__(
        self, utterance_id: str, problem: str, *, field: str, values: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(
            f"{problem}; correct the timings and send them with first_item, the audio is not affected",
            field=field,
            values=values,
            utterance_id=utterance_id,
        )


class TimingsGap(CallerError):
    """Timings skip items of their utterance's text."""

    reason = "TIMINGS_GAP"

    def __init__(self, utterance_id: str, expected: int, got: int, *, field: str) -> None:
        super().__init__(
            f"timings continue at item {got}, expected {expected}; send them from {expected}",
            field=field,
            utterance_id=utterance_id,
            expected=expected,
            got=got,
        )


class TimingsLimit(CallerError):
    """An utterance, or the unfinished utterances of a session, have too much text."""

    reason = "TIMINGS_LIMIT"

    def __init__(self, utterance_id: str, limit: int, scope: str, *, field: str) -> None:
        super().__init__(
            f"the text is above the limit of {limit} characters for each {scope}; the rest of it is left out of "
            "heard_text, the audio is not affected",
            field=field,
            utterance_id=utterance_id,
            limit=limit,
            scope=scope,
        )


class UtteranceIdReused(CallerError):
    """The utterance id was used before in this session."""

    reason = "UTTERANCE_ID_REUSED"

    def __init__(self, utterance_id: str) -> None:
        super().__init__(
            f"utterance id {utterance_id!r} was used before in this session; choose a new one",
            field="begin.utterance_id",
            utterance_id=utterance_id,
        )


class UtteranceNotFound(CallerError):
    """The session never had an utterance with this id."""

    reason = "UTTERANCE_NOT_FOUND"

    def __init__(self, utterance_id: str) -> None:
        super().__init__(
            f"no utterance {utterance_id!r} in this session; leave the id empty to interrupt all speech",
            field="utterance_id",
            utterance_id=utterance_id,
        )


class SessionNotFound(CallerError):
    """No session has this id, or the session is not the caller's."""

    reason = "SESSION_NOT_FOUND"

    def __init__(self, session_id: str, *, field: str = "session_id") -> None:
        known = id_or_nothing(session_id)
        super().__init__(
            f"no session {known!r}; the id is wrong, or the session ended long ago"
            if known or not session_id
            else "no session has this id: ids of sessions are shorter",
            field=field,
            session_id=known,
        )


class AccountNotFound(CallerError):
    """No LiveAvatar account of the gateway has this name."""

    reason = "ACCOUNT_NOT_FOUND"

    def __init__(self, account: str) -> None:
        known = id_or_nothing(account)
        super().__init__(
            f"no account {known!r}; `liveavatar-gateway pool show` lists the accounts",
            field="account",
            account=known,
        )


class ReservationNotFound(CallerError):
    """No prepared avatar waits under this id, or it is not the caller's."""

    reason = "RESERVATION_NOT_FOUND"

    def __init__(self, reservation_id: str) -> None:
        known = id_or_nothing(reservation_id)
        super().__init__(
            f"no reservation {known!r}: it has expired, was taken, or the id is wrong; open the session "
            "without it",
            field="reservation_id",
            reservation_id=known,
        )


class ReservationMismatch(CallerError):
    """The spec differs from the spec of the reservation in a property of its avatar."""

    reason = "RESERVATION_MISMATCH"

    def __init__(self, reservation_id: str, difference: str) -> None:
        super().__init__(
            f"reservation {reservation_id} has another {difference} than the spec; open with the spec that was "
            "prepared, or without the reservation",
            field="reservation_id",
            reservation_id=reservation_id,
            difference=difference,
        )


class SessionEnded(CallerError):
    """The session has ended."""

    reason = "SESSION_ENDED"

    def __init__(self, session_id: str, end_reason: str, upstream_reason: str = "") -> None:
        said = f" (LiveAvatar: {upstream_reason})" if upstream_reason else ""
        super().__init__(
            f"session {session_id} has ended: {end_reason}{said}; create a new one",
            session_id=session_id,
            end_reason=end_reason,
            upstream_reason=upstream_reason,
        )


class AgentSeatTaken(CallerError):
    """The agent's seat of a room of LiveAvatar's is the caller's, so the gateway cannot join the room."""

    reason = "AGENT_SEAT_TAKEN"

    def __init__(self, session_id: str = "", *, field: str | None = None) -> None:
        """Create the error.

        Args:
            session_id: Id of the session; empty if it is refused before it has one.
            field: Field of the request that needs the seat; None without one.
        """
        whose = f" of session {session_id}" if session_id else ""
        super().__init__(
            f"the agent's seat{whose} is the caller's, and LiveAvatar's room has no other; open the session with "
            "agent_seat GATEWAY, or in a livekit_room",
            field=field,
            session_id=session_id,
        )


class ParticipantNotFound(CallerError):
    """A participant that is to get data is not in the room."""

    reason = "PARTICIPANT_NOT_FOUND"

    def __init__(self, identity: str, *, field: str) -> None:
        super().__init__(
            f"no participant {identity!r} in the room, so nothing was sent; leave the list empty to reach all",
            field=field,
            identity=identity,
        )


class DataNotPermitted(CallerError):
    """The gateway may not send data to the room."""

    reason = "DATA_NOT_PERMITTED"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "the gateway may not send data to the session's room: LiveAvatar's token for it does not allow that; "
            "open sessions in a livekit_room to send data",
            session_id=session_id,
        )


class AgentHosted(CallerError):
    """A hosted agent drives the avatar, so that there is no command socket and no free agent's seat."""

    reason = "AGENT_HOSTED"

    def __init__(self, session_id: str, call: str) -> None:
        super().__init__(
            f"{call} is not possible in session {session_id}: the hosted agent of its connector hears the user "
            "and speaks; to speak yourself, open a session without a connector",
            session_id=session_id,
            call=call,
        )


class RoomNotOwn(CallerError):
    """The avatar is not in a LiveKit room of the caller's own."""

    reason = "ROOM_NOT_OWN"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id} is not in a LiveKit room of the caller's own, where alone the gateway issues "
            "tokens and puts viewers out; open the session with livekit_room",
            session_id=session_id,
        )


class EventsCompacted(CallerError):
    """Events after the given sequence are no longer kept."""

    reason = "EVENTS_COMPACTED"

    def __init__(self, after_sequence: int, oldest_sequence: int) -> None:
        super().__init__(
            f"events after {after_sequence} are not kept, the oldest is {oldest_sequence}; resume after "
            f"{oldest_sequence - 1} or with skip_compacted, and read the session for its current state",
            field="resume.after_sequence",
            after_sequence=after_sequence,
            oldest_sequence=oldest_sequence,
        )


class RequestIdReused(CallerError):
    """The request id was used with another spec."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id {request_id!r} was used with another spec; choose a new one for a new session",
            field="request_id",
            request_id=request_id,
        )


class UtteranceIdle(CallerError):
    """No audio came for an utterance within the idle limit that the caller set."""

    reason = "UTTERANCE_IDLE"

    def __init__(self, utterance_id: str, idle_timeout_s: float) -> None:
        super().__init__(
            f"no audio came for {idle_timeout_s:g} s and the utterance was not ended; begin a new utterance",
            utterance_id=utterance_id,
            idle_timeout_s=f"{idle_timeout_s:g}",
        )


class FirstMessageTimeout(CallerError):
    """The first message of a stream did not come in time."""

    reason = "FIRST_MESSAGE_TIMEOUT"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"no first message came within {timeout_s:g} s; open the stream right before its first message",
            timeout_s=f"{timeout_s:g}",
        )


class MalformedMessage(CallerError):
    """The bytes of a message are not a request of its method."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self, method: str, size_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes are not a request of {method}; encode the message that the proto files describe",
            method=method,
            size_bytes=size_bytes,
        )


class MessageTooLarge(CallerError):
    """A message is larger than any request of its method."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, method: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"a message of {size_bytes} bytes is above the limit of {limit_bytes} for {method}; send less in it",
            method=method,
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


class AnswersUnread(CallerError):
    """The caller did not read an answer in time."""

    reason = "ANSWERS_UNREAD"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"an answer was not read within {timeout_s:g} s; read the call in a task of its own, "
            "or ask for a smaller page_size",
            timeout_s=f"{timeout_s:g}",
        )


class MetadataTooLarge(CallerError):
    """The metadata of a call is larger than the gateway's limit."""

    reason = "METADATA_TOO_LARGE"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"metadata of {size_bytes} bytes is above the limit of {limit_bytes}; send fewer or shorter headers",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


class CredentialMissing(AccessError):
    """The call has no credential."""

    reason = "CREDENTIAL_MISSING"

    def __init__(self) -> None:
        super().__init__(
            "the call has no credential; send the header `authorization: Bearer ...` with an API key or a token"
        )


class CredentialInvalid(AccessError):
    """The credential is malformed, unknown or revoked, or its signature or claims are wrong."""

    reason = "CREDENTIAL_INVALID"

    def __init__(self, cause: str) -> None:
        """Create the error with a cause that repeats no part of the credential."""
        super().__init__(f"the credential is not valid: {cause}", cause=cause)


class CredentialExpired(AccessError):
    """The credential is no longer valid."""

    reason = "CREDENTIAL_EXPIRED"

    def __init__(self, expired_at: str) -> None:
        """Create the error with the end of the credential's validity, ISO 8601."""
        super().__init__(
            f"the credential expired at {expired_at}; call again with a new one", expired_at=expired_at
        )


class CredentialUnverifiable(AccessError):
    """The keys that would verify a token cannot be read at present."""

    reason = "CREDENTIAL_UNVERIFIABLE"

    def __init__(self, issuer: str, retry_after_s: float) -> None:
        super().__init__(
            f"the gateway cannot read the keys of the issuer {issuer} at present; call again",
            retry_after_s=retry_after_s,
            issuer=issuer,
        )


class TenantSuspended(AccessError):
    """The operator has suspended the tenant."""

    reason = "TENANT_SUSPENDED"

    def __init__(self, tenant: str) -> None:
        super().__init__(f"the tenant {tenant} is suspended; ask the operator of the gateway", tenant=tenant)


class RoleMissing(AccessError):
    """The credential's roles do not include the call."""

    reason = "ROLE_MISSING"

    def __init__(self, what: str, roles: str) -> None:
        """Create the error.

        Args:
            what: Method, or message of a method, that was refused.
            roles: Roles of which any suffices.
        """
        super().__init__(
            f"{what} needs the role {roles}, which the credential lacks; ask the operator of the gateway for it",
            what=what,
            roles=roles,
        )


class AvatarNotAllowed(AccessError):
    """The operator does not allow the avatar to the caller's tenant."""

    reason = "AVATAR_NOT_ALLOWED"

    def __init__(self, avatar_id: str, tenant: str, *, field: str) -> None:
        super().__init__(
            f"the tenant {tenant} may not use the avatar {avatar_id}; ListAvatars lists the allowed avatars",
            field=field,
            avatar_id=avatar_id,
            tenant=tenant,
        )


class RoomNotAllowed(AccessError):
    """The tenant may not use the room."""

    reason = "ROOM_NOT_ALLOWED"

    def __init__(self, room: str, allowed: str, *, field: str) -> None:
        """Create the error.

        Args:
            room: Name of the room.
            allowed: Description of the rooms that the tenant may use.
            field: Path of the field with the name.
        """
        super().__init__(f"the room {room!r} is not one of this tenant's: {allowed}", field=field, room=room)


class QuotaExceeded(CapacityError):
    """The tenant is at one of its quotas."""

    reason = "QUOTA_EXCEEDED"

    def __init__(
        self,
        tenant: str,
        scope: str,
        *,
        limit: float,
        used: float | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        """Create the error.

        Args:
            tenant: The tenant.
            scope: Name of the quota, as in the file of tenants.
            limit: Value of the quota.
            used: Present use; None for a rate, or for a value in a request.
            retry_after_s: Time after which the same call may succeed; None when no wait helps.
            field: Path of the field whose value is above the quota.
        """
        use = "" if used is None else f", of which {used:g} are used"
        advice = "ask for less" if field else "wait and call again"
        super().__init__(
            f"the tenant {tenant} has a quota {scope} of {limit:g}{use}; {advice}, or ask the operator for more",
            field=field,
            retry_after_s=retry_after_s,
            tenant=tenant,
            scope=scope,
            limit=f"{limit:g}",
            used="" if used is None else f"{used:g}",
        )


class CreditExceeded(CapacityError):
    """More audio came than the credit allowed."""

    reason = "CREDIT_EXCEEDED"

    def __init__(self, size_bytes: int, credit_bytes: int, retry_after_s: float) -> None:
        super().__init__(
            f"a chunk of {size_bytes} bytes exceeds the credit of {credit_bytes}; wait for the ack that renews it",
            field="chunk.audio",
            retry_after_s=retry_after_s,
            size_bytes=size_bytes,
            credit_bytes=credit_bytes,
        )


class CapacityExhausted(CapacityError):
    """No session can be created now."""

    reason = "CAPACITY_EXHAUSTED"

    def __init__(
        self, message: str, *, scope: str, retry_after_s: float, values: Mapping[str, object] | None = None
    ) -> None:
        """Create the error with the scope of the limit: `upstream_account`, `replica`, `session` or `stream`."""
        super().__init__(message, retry_after_s=retry_after_s, values=values, scope=scope)

    @property
    def scope(self) -> str:
        """Owner of the limit."""
        return self.metadata.get("scope", "")


class TooManyCalls(CapacityError):
    """The process, or the connection, has as many calls or bytes of unread answers as it may have at once."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, scope: str, limit: int, *, retry_after_s: float = 1.0) -> None:
        """Create the error.

        Args:
            scope: Name of the limit: `calls`, `watches`, `health_calls`, `waiting_lists` or `answer_bytes`.
            limit: The limit.
            retry_after_s: Time after which there may be place again.
        """
        super().__init__(
            f"the limit of {limit} {scope.replace('_', ' ')} at once is reached; wait and call again, "
            "with fewer calls at the same time",
            retry_after_s=retry_after_s,
            scope=scope,
            limit=limit,
        )


class BudgetExhausted(CapacityError):
    """The tenant has spent its budget of billed minutes."""

    reason = "BUDGET_EXHAUSTED"

    def __init__(
        self, tenant: str, *, period: str, used: int, limit: int, until: str, retry_after_s: float
    ) -> None:
        """Create the error.

        Args:
            tenant: Tenant of the budget.
            period: Period whose budget is spent: `hour`, `day` or `month`, in UTC.
            used: Minutes that were spent in the period.
            limit: Minutes of the period.
            until: End of the period, ISO 8601.
            retry_after_s: Time until then.
        """
        super().__init__(
            f"the tenant {tenant} has spent {used} of the {limit} minutes of this {period}; open a session after "
            f"{until}, or ask the operator of the gateway for a larger budget",
            retry_after_s=retry_after_s,
            tenant=tenant,
            period=period,
            used=used,
            limit=limit,
            until=until,
        )


class AttachSuperseded(OwnershipError):
    """Another `Attach` took over."""

    reason = "ATTACH_SUPERSEDED"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "another Attach took over this session; stop here, or resume to take it back",
            session_id=session_id,
        )


class AudioStreamSuperseded(OwnershipError):
    """Another `StreamAudio` took over."""

    reason = "AUDIO_STREAM_SUPERSEDED"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "another StreamAudio took over this session's speech; stop here, or open a new one to take it back",
            session_id=session_id,
        )


class Draining(OwnershipError):
    """This process accepts nothing new and ends its sessions, since it exits or an operator drains it."""

    reason = "DRAINING"

    def __init__(self) -> None:
        # The contract, the client and docs/errors.md have the same sentence; its wait is that of RetryInfo.
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
    """The registry cannot be used, and a new session that it does not record would be lost in a crash."""

    reason = "REGISTRY_UNAVAILABLE"

    def __init__(self, detail: str) -> None:
        """Create the error.

        Args:
            detail: Cause, for operators: the text of the error, which callers do not see, as it names files.
        """
        super().__init__(
            "the gateway cannot use its registry at present; call again, or ask the operator of the gateway",
            retry_after_s=1.0,
        )
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or self.message


class UpstreamUnauthenticated(UpstreamError):
    """LiveAvatar refuses the gateway's API key."""

    reason = "UPSTREAM_UNAUTHENTICATED"


class UpstreamCreditsExhausted(UpstreamError):
    """The LiveAvatar account has no credits left."""

    reason = "UPSTREAM_CREDITS_EXHAUSTED"


class UpstreamPlanRequired(UpstreamError):
    """The LiveAvatar plan does not include the requested feature."""

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


class UpstreamAddressRefused(UpstreamError):
    """LiveAvatar named an address that the gateway does not use; its session is stopped."""

    reason = "UPSTREAM_ADDRESS_REFUSED"


class UpstreamTimeout(UpstreamError):
    """LiveAvatar did not answer in time."""

    reason = "UPSTREAM_TIMEOUT"


class ReadyTimeout(UpstreamError):
    """The avatar did not become ready in time."""

    reason = "READY_TIMEOUT"


class UpstreamStalled(UpstreamError):
    """LiveAvatar did not confirm audio that it was sent."""

    reason = "UPSTREAM_STALLED"


class RoomUnreachable(UpstreamError):
    """The room of the session, or its LiveKit server, cannot be reached, or refused the gateway."""

    reason = "ROOM_UNREACHABLE"

    def __init__(self, cause: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(
            f"the session's room cannot be reached ({cause}); call again, and ask the operator of the LiveKit "
            "server if that does not help",
            retry_after_s=retry_after_s,
            cause=cause,
        )


class RoomTokenMissing(UpstreamError):
    """There is no token with which the gateway could join the room of the session."""

    reason = "ROOM_TOKEN_MISSING"

    def __init__(self, session_id: str) -> None:
        super().__init__(
            "there is no token with which the gateway could join the session's room: LiveAvatar gave none, or the "
            "caller left out livekit_room.listener_token; to hear users, open sessions with one of them",
            session_id=session_id,
        )
