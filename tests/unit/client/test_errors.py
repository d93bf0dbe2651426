import pickle

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from liveavatar.gateway import errors, refusals
from liveavatar.gateway.v1 import errors_pb2
from liveavatar_gateway.core import errors as server

REASONS = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name][1:]
GROUPS = ("CallerError", "AccessError", "CapacityError", "OwnershipError", "UpstreamError", "InternalError")


def packed(*details):
    holders = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        holders.append(holder)
    return holders


def info(reason, domain="gateway.liveavatar", **metadata):
    return error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)


def refused(code, *details, message="refused"):
    return status_pb2.Status(code=code.value[0], message=message, details=packed(*details))


def failed(code, details="", trailing=()):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


def groups(kind):
    return [name for name in GROUPS if name in {base.__name__ for base in kind.__mro__}]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_class_of_its_own(reason):
    error = refusals.from_status(refused(grpc.StatusCode.INTERNAL, info(reason, a="1")))
    assert type(error) is errors.REASONS[reason]
    assert type(error).reason == error.reason == reason
    assert error.metadata == {"a": "1"}
    assert type(error).__doc__


def test_there_is_no_class_without_a_reason():
    assert set(errors.REASONS) == set(REASONS)


def test_a_reason_is_in_the_same_group_here_and_in_the_gateway():
    """`except CapacityError` means the same in the client and in the gateway."""
    theirs = {
        kind.reason: groups(kind)
        for kind in vars(server).values()
        if isinstance(kind, type) and issubclass(kind, server.GatewayError) and "reason" in vars(kind)
    }
    del theirs["INTERNAL"]
    assert theirs == {reason: groups(errors.REASONS[reason]) for reason in theirs}
    assert len(theirs) >= 29


def test_all_details_are_read():
    error = refusals.from_status(
        refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            info("CAPACITY_EXHAUSTED", scope="upstream_account", limit="5"),
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field="spec", description="too much")
                ]
            ),
            error_details_pb2.QuotaFailure(
                violations=[error_details_pb2.QuotaFailure.Violation(subject="upstream_account", description="5")]
            ),
            error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)),
            message="five sessions live",
        )
    )
    assert isinstance(error, errors.CapacityExhausted)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.message, str(error)) == ("five sessions live", "five sessions live")
    assert error.scope == "upstream_account"
    assert error.retry_after == 1.5
    assert error.field_violations == (errors.FieldViolation("spec", "too much"),)
    assert error.quota_violations == (errors.QuotaViolation("upstream_account", "5"),)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.CallerError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.CapacityError),
        (grpc.StatusCode.ABORTED, errors.OwnershipError),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
        (grpc.StatusCode.UNAVAILABLE, errors.GatewayError),
        (grpc.StatusCode.DATA_LOSS, errors.GatewayError),
    ],
)
def test_a_reason_of_a_newer_gateway_is_raised_by_its_code(code, kind):
    error = refusals.from_status(refused(code, info("MOON_PHASE", phase="full")))
    assert type(error) is kind
    assert error.reason == "MOON_PHASE"
    assert error.metadata == {"phase": "full"}
    assert error.retry_after is None


def test_another_domains_reason_is_not_one_of_ours():
    error = refusals.from_status(refused(grpc.StatusCode.NOT_FOUND, info("SESSION_NOT_FOUND", domain="proxy")))
    assert type(error) is errors.CallerError


def test_a_code_of_a_newer_grpc_is_unknown():
    error = refusals.from_status(status_pb2.Status(code=99, message="?"))
    assert type(error) is errors.GatewayError
    assert error.code is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.ConnectionLost),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
        (grpc.StatusCode.UNIMPLEMENTED, errors.GatewayError),
    ],
)
def test_a_status_without_details_is_the_transports(code, kind):
    error = refusals.from_rpc_error(failed(code, "connection refused"))
    assert type(error) is kind
    assert (error.code, error.reason, error.message) == (code, "", "connection refused")


def test_a_deadline_is_a_timeout_error_too():
    assert issubclass(errors.DeadlineExceeded, TimeoutError)


def test_details_in_the_trailing_metadata_are_found():
    refusal = refused(grpc.StatusCode.FAILED_PRECONDITION, info("AUDIO_GAP", expected="96"), message="resend")
    trailing = (("grpc-status-details-bin", refusal.SerializeToString()),)
    error = refusals.from_rpc_error(failed(grpc.StatusCode.FAILED_PRECONDITION, "resend", trailing))
    assert isinstance(error, errors.AudioGap)
    assert error.expected == 96


def test_a_status_that_was_rewritten_on_the_way_is_believed():
    """Details that contradict the status are not the gateway's any more."""
    refusal = refused(grpc.StatusCode.FAILED_PRECONDITION, info("AUDIO_GAP"), message="resend")
    trailing = (("grpc-status-details-bin", refusal.SerializeToString()),)
    error = refusals.from_rpc_error(failed(grpc.StatusCode.UNAVAILABLE, "upstream reset", trailing))
    assert type(error) is errors.ConnectionLost


def test_numbers_in_metadata_are_numbers_or_nothing():
    assert errors.AudioGap("", metadata={"expected": "x"}).expected is None
    assert errors.AudioGap("").expected is None
    assert errors.EventsCompacted("", metadata={"oldest_sequence": "7"}).oldest_sequence == 7
    assert errors.SessionEnded("", metadata={"end_reason": "IDLE"}).end_reason == "IDLE"


def test_errors_survive_being_pickled():
    """As process pools and task queues do with what was raised."""
    error = errors.AudioGap("resend", code=grpc.StatusCode.FAILED_PRECONDITION, metadata={"expected": "4"})
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.AudioGap
    assert (again.message, again.code, again.expected) == ("resend", error.code, 4)
    assert repr(again) == "AudioGap('resend', code=FAILED_PRECONDITION, reason='AUDIO_GAP')"


def test_details_that_cannot_be_read_are_left_out():
    refusal = refused(grpc.StatusCode.NOT_FOUND, info("SESSION_NOT_FOUND"))
    broken = refusal.details.add()
    broken.Pack(error_details_pb2.RetryInfo())
    broken.value = b"\xff\xff"
    error = refusals.from_status(refusal)
    assert isinstance(error, errors.SessionNotFound)
    assert error.retry_after is None
    trailing = (("grpc-status-details-bin", b"\xff\xff"),)
    assert type(refusals.from_rpc_error(failed(grpc.StatusCode.NOT_FOUND, "", trailing))) is errors.CallerError
