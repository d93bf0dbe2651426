"""What gRPC says of a failed call, and what became of an attempt, as exceptions of `errors`."""

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
"""`ErrorInfo.domain` of the gateway; a reason of another domain is not one of ours."""

_DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that carries a `google.rpc.Status`, in every language's gRPC."""

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
# How gRPC's own library words what it refused itself. The same message would be refused again at any gateway.
_LONGEST_WAIT_S = 86_400.0


class RpcFailure(Protocol):
    """What the synchronous and the asyncio gRPC errors have in common."""

    def code(self) -> grpc.StatusCode:
        """The status code."""

    def details(self) -> str | None:
        """The status message."""

    def trailing_metadata(self) -> Any:
        """What was sent with the status."""


def from_rpc_error(error: RpcFailure) -> GatewayError:
    """Turn a `grpc.RpcError` or `grpc.aio.AioRpcError` into the exception of its reason.

    Without the gateway's details (a proxy or gRPC itself answered) the class follows from the status code.
    """
    status = _rich_status(error)
    if status is None:
        code, said = error.code(), error.details() or ""
        local = any(words in said for words in _LOCAL.get(code, ()))
        kind = MessageRefused if local else _BY_CODE.get(code, GatewayError)
        return kind(said or code.name.lower(), code=code, reason="")
    return from_status(status)


def from_status(status: status_pb2.Status) -> GatewayError:
    """Turn a `google.rpc.Status` that is not OK, as commands and utterances carry it, into an exception."""
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
        # A reason in another domain is a proxy's word, which says nothing about the gateway.
        reason=info.reason if ours else "",
        metadata=dict(info.metadata),
        field_violations=[FieldViolation(v.field, v.description) for v in bad_request.field_violations],
        quota_violations=[QuotaViolation(v.subject, v.description) for v in quota.violations],
        retry_after=retry_after,
    )


def _wait_s(delay: duration_pb2.Duration) -> float:
    """Seconds to wait, between 0 and a day, whatever the peer sent."""
    return min(max(delay.seconds + delay.nanos / 1e9, 0.0), _LONGEST_WAIT_S)


def connection_lost(message: str) -> ConnectionLost:
    """What a stream breaks with that gRPC gave no status for."""
    return ConnectionLost(message, code=grpc.StatusCode.UNAVAILABLE)


def given_up(error: GatewayError, patience: timedelta) -> ConnectionLost:
    """What is raised when nothing could be resumed in time.

    Args:
        error: What the last attempt failed with.
        patience: How long it was tried.
    """
    lost = ConnectionLost(
        f"no gateway went on with it within {patience.total_seconds():g} s; at last: {error}",
        code=grpc.StatusCode.UNAVAILABLE,
        metadata={"patience_s": f"{patience.total_seconds():g}"},
    )
    lost.__cause__ = error
    return lost


def _rich_status(error: RpcFailure) -> status_pb2.Status | None:
    """Return the `google.rpc.Status` that came with an error; None if there is none that agrees with the error."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            with contextlib.suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
                # Where they differ, a proxy rewrote the status, and what gRPC says is the truth.
                if status.code == error.code().value[0] and status.message == (error.details() or ""):
                    return status
            return None
    return None


def _detail(status: status_pb2.Status, empty: _Detail) -> _Detail:
    """The status's detail of a kind; `empty` when it has none that can be read."""
    for packed in status.details:
        with contextlib.suppress(DecodeError):
            if packed.Unpack(empty):
                break
    return empty


def _group(code: grpc.StatusCode, *, ours: bool) -> type[GatewayError]:
    """The class for a reason without one.

    UNAVAILABLE and the like mean the transport only where the gateway itself has not spoken.
    """
    kind = _BY_CODE.get(code, GatewayError)
    return GatewayError if ours and issubclass(kind, TransportError) else kind
