"""Conversion of gRPC errors and `google.rpc.Status` messages into the exceptions of `errors`."""

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from liveavatar.gateway.errors import (
    REASONS,
    CallerError,
    CapacityError,
    ConnectionLost,
    DeadlineExceeded,
    FieldViolation,
    GatewayError,
    InternalError,
    MessageRefused,
    OwnershipError,
    PermissionDenied,
    QuotaViolation,
    TransportError,
    Unauthenticated,
)

_Detail = TypeVar("_Detail")

DOMAIN = "gateway.liveavatar"
"""`ErrorInfo.domain` of the gateway; reasons of other domains come from proxies."""

_DETAILS_KEY = "grpc-status-details-bin"
"""Key of the trailing metadata that holds a `google.rpc.Status`, in the gRPC of every language."""

_BY_CODE: Mapping[grpc.StatusCode, type[GatewayError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: CallerError,
    grpc.StatusCode.FAILED_PRECONDITION: CallerError,
    grpc.StatusCode.OUT_OF_RANGE: CallerError,
    grpc.StatusCode.NOT_FOUND: CallerError,
    grpc.StatusCode.ALREADY_EXISTS: CallerError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: CapacityError,
    grpc.StatusCode.ABORTED: OwnershipError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.UNAVAILABLE: ConnectionLost,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: ConnectionLost,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_LOCAL: Mapping[grpc.StatusCode, tuple[str, ...]] = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("message larger than max",),
    grpc.StatusCode.INTERNAL: ("Exception serializing", "Exception deserializing", "Exception iterating"),
}
# Texts of gRPC's local refusals. The same message would be refused again at any gateway.
_LONGEST_WAIT_S = 86_400.0


class RpcFailure(Protocol):
    """Common interface of the synchronous and asyncio gRPC errors."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""

    def details(self) -> str | None:
        """Return the status message."""

    def trailing_metadata(self) -> Any:
        """Return the metadata of the status."""


def from_rpc_error(error: RpcFailure) -> GatewayError:
    """Convert a `grpc.RpcError` or `grpc.aio.AioRpcError` into the exception of its reason.

    Without details of the gateway (a proxy or gRPC itself answered) the status code determines the class.
    """
    status = _rich_status(error)
    if status is None:
        code, message = error.code(), error.details() or ""
        local = any(text in message for text in _LOCAL.get(code, ()))
        kind = MessageRefused if local else _BY_CODE.get(code, GatewayError)
        return kind(message or code.name.lower(), code=code, reason="")
    return from_status(status)


def from_status(status: status_pb2.Status) -> GatewayError:
    """Convert a `google.rpc.Status` other than OK, of a call, a command or an utterance, into an exception."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = _detail(status, error_details_pb2.ErrorInfo())
    bad_request = _detail(status, error_details_pb2.BadRequest())
    quota = _detail(status, error_details_pb2.QuotaFailure())
    retry = _detail(status, error_details_pb2.RetryInfo())
    retry_after = _wait_s(retry.retry_delay) if retry.HasField("retry_delay") else None
    ours = info.domain == DOMAIN
    kind = REASONS.get(info.reason) if ours else None
    return (kind or _group(code, ours=ours))(
        status.message or code.name.lower(),
        code=code,
        # A reason of another domain comes from a proxy and says nothing about the gateway.
        reason=info.reason if ours else "",
        metadata=dict(info.metadata),
        field_violations=[FieldViolation(v.field, v.description) for v in bad_request.field_violations],
        quota_violations=[QuotaViolation(v.subject, v.description) for v in quota.violations],
        retry_after=retry_after,
    )


def _wait_s(delay: duration_pb2.Duration) -> float:
    """Return the seconds to wait, limited to the range of 0 to a day."""
    return min(max(delay.seconds + delay.nanos / 1e9, 0.0), _LONGEST_WAIT_S)


def connection_lost(message: str) -> ConnectionLost:
    """Return the error of a broken stream for which gRPC has no status."""
    return ConnectionLost(message, code=grpc.StatusCode.UNAVAILABLE)


def given_up(error: GatewayError, resume_timeout: timedelta) -> ConnectionLost:
    """Return the error of a stream that could not be resumed in time.

    Args:
        error: Error of the last attempt.
        resume_timeout: Time for which resuming was tried.
    """
    lost = ConnectionLost(
        f"no gateway resumed the stream within {resume_timeout.total_seconds():g} s; last error: {error}",
        code=grpc.StatusCode.UNAVAILABLE,
        metadata={"resume_timeout_s": f"{resume_timeout.total_seconds():g}"},
    )
    lost.__cause__ = error
    return lost


def _rich_status(error: RpcFailure) -> status_pb2.Status | None:
    """Return the `google.rpc.Status` of an error; None without a status that agrees with the error."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            with contextlib.suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
                # A difference means that a proxy replaced the status, and the status of gRPC is right.
                if status.code == error.code().value[0] and status.message == (error.details() or ""):
                    return status
            return None
    return None


def _detail(status: status_pb2.Status, empty: _Detail) -> _Detail:
    """Return the detail of a status that has the type of `empty`; `empty` itself when there is none."""
    for packed in status.details:
        with contextlib.suppress(DecodeError):
            if packed.Unpack(empty):
                break
    return empty


def _group(code: grpc.StatusCode, *, ours: bool) -> type[GatewayError]:
    """Return the class for a reason without a class.

    UNAVAILABLE and similar codes mean the transport only if the status does not come from the gateway.
    """
    kind = _BY_CODE.get(code, GatewayError)
    return GatewayError if ours and issubclass(kind, TransportError) else kind
