from datetime import timedelta

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from liveavatar.gateway import CapacityExhausted, ConnectionLost, GatewayError, InternalError, MessageRefused
from liveavatar.gateway.refusals import connection_lost, from_rpc_error, from_status, given_up


def packed(*details):
    found = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        found.append(holder)
    return found


def status(*details, code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="full"):
    return status_pb2.Status(code=code.value[0], message=message, details=packed(*details))


class Failure:
    """Failed call."""

    def __init__(self, code, details, rich=None):
        self._code, self._details = code, details
        self._metadata = () if rich is None else (("grpc-status-details-bin", rich.SerializeToString()),)

    def code(self):
        return self._code

    def details(self):
        return self._details

    def trailing_metadata(self):
        return self._metadata


INFO = error_details_pb2.ErrorInfo(domain="gateway.liveavatar", reason="CAPACITY_EXHAUSTED")


def test_a_status_of_the_gateway_has_the_class_and_values_of_its_reason():
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2))
    error = from_rpc_error(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", status(INFO, retry)))
    assert isinstance(error, CapacityExhausted)
    assert (error.retry_after, error.message) == (2.0, "full")


def test_a_status_that_a_proxy_replaced_is_taken_from_grpc():
    error = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE, "reset", status(INFO)))
    assert isinstance(error, ConnectionLost)
    assert (error.message, error.reason) == ("reset", "")


def test_a_reason_of_another_domain_is_not_the_gateways():
    other = error_details_pb2.ErrorInfo(domain="proxy", reason="CAPACITY_EXHAUSTED")
    error = from_status(status(other, code=grpc.StatusCode.INTERNAL))
    assert type(error) is InternalError
    assert error.reason == ""


def test_an_unknown_reason_is_raised_as_its_group():
    newer = error_details_pb2.ErrorInfo(domain="gateway.liveavatar", reason="NEWER")
    assert type(from_status(status(newer, code=grpc.StatusCode.UNAVAILABLE))) is GatewayError


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Sent message larger than max (2 vs. 1)"),
        (grpc.StatusCode.INTERNAL, "Exception serializing request!"),
    ],
)
def test_a_refusal_of_grpc_itself_is_recognized_by_its_text(code, text):
    assert isinstance(from_rpc_error(Failure(code, text)), MessageRefused)


def test_details_that_cannot_be_decoded_are_ignored():
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    error = from_status(status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], details=[broken]))
    assert error.reason == ""


def test_a_delay_is_limited_to_a_day():
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=10**9))
    assert from_status(status(INFO, retry)).retry_after == 86_400.0


def test_giving_up_names_the_last_error_and_the_time():
    cause = connection_lost("reset")
    error = given_up(cause, timedelta(seconds=1.5))
    assert (error.__cause__, error.metadata) == (cause, {"resume_timeout_s": "1.5"})
    assert "reset" in str(error)
