"""Only mapping from the gateway's errors to gRPC statuses with `google.rpc` details."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.upstream.bounds import bounded

DOMAIN: Final = "gateway.liveavatar"
_HELP_URL: Final = "https://docs.liveavatar.com"
_MAX_TRAILER_BYTES: Final = 6500
_CUT_MESSAGE_BYTES: Final = 400
_CUT_VALUE_BYTES: Final = 100

CODES: Final[Mapping[type[e.GatewayError], grpc.StatusCode]] = {
    e.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    e.HeaderRequired: grpc.StatusCode.INVALID_ARGUMENT,
    e.UnexpectedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioFormatUnsupported: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioContainerDetected: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioMisaligned: grpc.StatusCode.INVALID_ARGUMENT,
    e.ChunkTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    e.TimingsInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    e.TimingsLimit: grpc.StatusCode.INVALID_ARGUMENT,
    e.MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    e.MessageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    e.MetadataTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    e.ReservationMismatch: grpc.StatusCode.INVALID_ARGUMENT,
    e.UpstreamRejected: grpc.StatusCode.INVALID_ARGUMENT,
    e.CredentialMissing: grpc.StatusCode.UNAUTHENTICATED,
    e.CredentialInvalid: grpc.StatusCode.UNAUTHENTICATED,
    e.CredentialExpired: grpc.StatusCode.UNAUTHENTICATED,
    e.TenantSuspended: grpc.StatusCode.PERMISSION_DENIED,
    e.RoleMissing: grpc.StatusCode.PERMISSION_DENIED,
    e.RoomNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    e.AvatarNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    e.AudioGap: grpc.StatusCode.FAILED_PRECONDITION,
    e.TimingsGap: grpc.StatusCode.FAILED_PRECONDITION,
    e.SessionEnded: grpc.StatusCode.FAILED_PRECONDITION,
    e.AgentSeatTaken: grpc.StatusCode.FAILED_PRECONDITION,
    e.DataNotPermitted: grpc.StatusCode.FAILED_PRECONDITION,
    e.AgentHosted: grpc.StatusCode.FAILED_PRECONDITION,
    e.RoomNotOwn: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamUnauthenticated: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamCreditsExhausted: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamPlanRequired: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamAddressRefused: grpc.StatusCode.FAILED_PRECONDITION,
    e.RoomTokenMissing: grpc.StatusCode.FAILED_PRECONDITION,
    e.CreditExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.CapacityExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.TooManyCalls: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.BudgetExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.UpstreamRateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.UtteranceIdReused: grpc.StatusCode.ALREADY_EXISTS,
    e.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    e.UtteranceNotFound: grpc.StatusCode.NOT_FOUND,
    e.ParticipantNotFound: grpc.StatusCode.NOT_FOUND,
    e.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    e.AccountNotFound: grpc.StatusCode.NOT_FOUND,
    e.ReservationNotFound: grpc.StatusCode.NOT_FOUND,
    e.AttachSuperseded: grpc.StatusCode.ABORTED,
    e.AudioStreamSuperseded: grpc.StatusCode.ABORTED,
    e.OwnerMoved: grpc.StatusCode.ABORTED,
    e.EventsCompacted: grpc.StatusCode.OUT_OF_RANGE,
    e.Draining: grpc.StatusCode.UNAVAILABLE,
    e.RegistryUnavailable: grpc.StatusCode.UNAVAILABLE,
    e.CredentialUnverifiable: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamUnreachable: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamProtocol: grpc.StatusCode.UNAVAILABLE,
    e.RoomUnreachable: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.ReadyTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.UpstreamStalled: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.UtteranceIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.FirstMessageTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.AnswersUnread: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.InternalError: grpc.StatusCode.UNKNOWN,
}
"""Status code of each error. A test compares it with the tree in `core/errors.py`."""

_RESOURCES: Final[Mapping[type[e.GatewayError], tuple[str, str]]] = {
    e.SessionNotFound: ("session", "session_id"),
    e.ParticipantNotFound: ("participant", "identity"),
    e.ReservationNotFound: ("reservation", "reservation_id"),
    e.AccountNotFound: ("account", "account"),
}
"""Kind of the resource that an error misses, and the value with its name."""
_NEEDS_A_HUMAN: Final = (e.UpstreamUnauthenticated, e.UpstreamCreditsExhausted, e.UpstreamPlanRequired)


def status_of(error: e.GatewayError) -> status_pb2.Status:
    """Return the full status of an error: code, message, and every detail that a caller can act on."""
    code: int = CODES[type(error)].value[0]
    details = [_packed(detail) for detail in _details(error)]
    return status_pb2.Status(code=code, message=error.message, details=details)


def fit_to_trailers(error: e.GatewayError) -> e.GatewayError:
    """Return the error, with shorter texts if they would not fit into trailers, which gRPC limits to 8 kB."""
    # On the wire, the message is percent-encoded and the details are in base64.
    size = len(quote(error.message)) + len(status_of(error).SerializeToString()) * 4 // 3
    if size <= _MAX_TRAILER_BYTES:
        return error
    return _changed(
        error,
        bounded(error.message, _CUT_MESSAGE_BYTES),
        {key: bounded(value, _CUT_VALUE_BYTES) for key, value in error.metadata.items()},
    )


def with_incident(error: e.GatewayError, incident: str) -> e.GatewayError:
    """Return the error with the id under which the log has more about its cause."""
    return _changed(error, f"{error.message} (incident {incident})", {**error.metadata, "incident": incident})


def _changed(error: e.GatewayError, message: str, metadata: Mapping[str, str]) -> e.GatewayError:
    # Without the constructor of the class, which builds message and metadata from other values.
    changed = type(error).__new__(type(error))
    vars(changed).update(vars(error))
    changed.message, changed.metadata = message, metadata
    return changed


def _details(error: e.GatewayError) -> list[Message]:
    metadata = {key: value for key, value in error.metadata.items() if value}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if CODES[type(error)] is grpc.StatusCode.INVALID_ARGUMENT or error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field or "", description=error.message, reason=error.reason
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if CODES[type(error)] is grpc.StatusCode.FAILED_PRECONDITION:
        subject = error.metadata.get("session_id", "") or error.metadata.get("utterance_id", "")
        precondition = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=subject, description=error.message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[precondition]))
    if isinstance(error, e.CapacityExhausted | e.TooManyCalls):
        subject = error.metadata.get("scope", "")
        quota = error_details_pb2.QuotaFailure.Violation(subject=subject, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if isinstance(error, e.BudgetExhausted):
        subject = f"tenant:{error.metadata.get('tenant', '')}"
        spent = error_details_pb2.QuotaFailure.Violation(subject=subject, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[spent]))
    if isinstance(error, e.QuotaExceeded):
        subject = f"tenant:{error.metadata.get('tenant', '')}/{error.metadata.get('scope', '')}"
        quota = error_details_pb2.QuotaFailure.Violation(subject=subject, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if (resource := _RESOURCES.get(type(error))) is not None:
        kind, key = resource
        name = error.metadata.get(key, "")
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if isinstance(error, _NEEDS_A_HUMAN):
        link = error_details_pb2.Help.Link(description="LiveAvatar documentation", url=_HELP_URL)
        details.append(error_details_pb2.Help(links=[link]))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
