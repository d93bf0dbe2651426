"""The only map from our errors to gRPC statuses with `google.rpc` details."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn
from urllib.parse import quote

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.upstream.bounds import bounded

DOMAIN: Final = "gateway.liveavatar"
_DETAILS_KEY: Final = "grpc-status-details-bin"
_HELP_URL: Final = "https://docs.liveavatar.com"
_MAX_TRAILER_BYTES: Final = 6500
_CUT_MESSAGE_BYTES: Final = 400
_CUT_VALUE_BYTES: Final = 100

_log = structlog.get_logger(__name__)

CODES: Final[Mapping[type[e.GatewayError], grpc.StatusCode]] = {
    e.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    e.HeaderRequired: grpc.StatusCode.INVALID_ARGUMENT,
    e.UnexpectedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioFormatUnsupported: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioContainerDetected: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioMisaligned: grpc.StatusCode.INVALID_ARGUMENT,
    e.ChunkTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    e.MalformedMessage: grpc.StatusCode.INVALID_ARGUMENT,
    e.MetadataTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    e.UpstreamRejected: grpc.StatusCode.INVALID_ARGUMENT,
    e.AudioGap: grpc.StatusCode.FAILED_PRECONDITION,
    e.SessionEnded: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamUnauthenticated: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamCreditsExhausted: grpc.StatusCode.FAILED_PRECONDITION,
    e.UpstreamPlanRequired: grpc.StatusCode.FAILED_PRECONDITION,
    e.CreditExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.CapacityExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.UpstreamRateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    e.UtteranceIdReused: grpc.StatusCode.ALREADY_EXISTS,
    e.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    e.UtteranceNotFound: grpc.StatusCode.NOT_FOUND,
    e.SessionNotFound: grpc.StatusCode.NOT_FOUND,
    e.AttachSuperseded: grpc.StatusCode.ABORTED,
    e.AudioStreamSuperseded: grpc.StatusCode.ABORTED,
    e.OwnerMoved: grpc.StatusCode.ABORTED,
    e.EventsCompacted: grpc.StatusCode.OUT_OF_RANGE,
    e.Draining: grpc.StatusCode.UNAVAILABLE,
    e.RegistryUnavailable: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamUnreachable: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamProtocol: grpc.StatusCode.UNAVAILABLE,
    e.UpstreamTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.ReadyTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.UpstreamStalled: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.UtteranceIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.FirstMessageTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    e.InternalError: grpc.StatusCode.UNKNOWN,
}
"""The status code of each error. A test holds it against the tree in `core/errors.py`."""

_NEEDS_A_HUMAN: Final = (e.UpstreamUnauthenticated, e.UpstreamCreditsExhausted, e.UpstreamPlanRequired)


def status_of(error: e.GatewayError) -> status_pb2.Status:
    """Return the full status of an error: code, message, and every detail a caller can act on."""
    code: int = CODES[type(error)].value[0]
    details = [_packed(detail) for detail in _details(error)]
    return status_pb2.Status(code=code, message=error.message, details=details)


def _fitting(error: e.GatewayError) -> e.GatewayError:
    """Return the error, its texts cut if they would not fit into trailers, which gRPC limits to 8 kB."""
    # The message is percent-encoded and the details are in base64.
    size = len(quote(error.message)) + len(status_of(error).SerializeToString()) * 4 // 3
    if size <= _MAX_TRAILER_BYTES:
        return error
    # Not through the class's own constructor, which makes message and metadata from other values.
    shorter = type(error).__new__(type(error))
    vars(shorter).update(vars(error))
    shorter.message = bounded(error.message, _CUT_MESSAGE_BYTES)
    shorter.metadata = {key: bounded(value, _CUT_VALUE_BYTES) for key, value in error.metadata.items()}
    return shorter


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: e.GatewayError) -> NoReturn:
    """End a call with an error's status and details."""
    error = _fitting(error)
    status = status_of(error)
    metadata = ((_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(CODES[type(error)], error.message, metadata)
    raise AssertionError("unreachable: abort raises")


@asynccontextmanager
async def answered(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Turn whatever a servicer raises into a status; faults of our own are logged under an incident id."""
    try:
        yield
    except e.GatewayError as error:
        await abort(context, error)
    except ExceptionGroup as group:
        refused = _first(group)
        if refused is not None:
            await abort(context, refused)
        faults = group.split(_is_end_of_call)[1]
        if faults is not None:
            await abort(context, _incident(faults))
    except (grpc.aio.AbortError, grpc.RpcError):
        raise
    except Exception as fault:  # noqa: BLE001 - the root of a call: whatever it is ends here, logged
        # A caller that is gone, or a server that was stopped: there is nobody to tell, and nothing is wrong here.
        if not _is_end_of_call(fault):
            await abort(context, _incident(fault))


def _is_end_of_call(error: BaseException) -> bool:
    """Return whether gRPC raised an error since the call has ended: its caller is gone, or its server was stopped.

    The error for a stopped server has no public name; of the public ones, a misuse and our own abort remain.
    """
    return isinstance(error, grpc.aio.BaseError) and not isinstance(
        error, grpc.aio.UsageError | grpc.aio.AbortError
    )


def _first(group: ExceptionGroup[Any]) -> e.GatewayError | None:
    """The refusal in what several tasks raised together."""
    for error in group.exceptions:
        found = _first(error) if isinstance(error, ExceptionGroup) else error
        if isinstance(found, e.GatewayError):
            return found
    return None


def _incident(fault: BaseException) -> e.InternalError:
    incident = str(uuid.uuid4())
    _log.error("rpc.fault", incident=incident, exc_info=fault)
    return e.InternalError(f"a fault of the gateway; its log has it under incident {incident}", incident=incident)


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
    if isinstance(error, e.CapacityExhausted):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.scope, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if isinstance(error, e.SessionNotFound):
        name = error.metadata.get("session_id", "")
        details.append(error_details_pb2.ResourceInfo(resource_type="session", resource_name=name))
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
