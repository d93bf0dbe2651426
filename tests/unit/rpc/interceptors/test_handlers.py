"""Method handlers with another behaviour."""

import grpc
import pytest

from liveavatar_gateway.rpc.interceptors.handlers import wrapped


async def _behaviour(requests, _context):
    return requests


def _twice(behaviour):
    async def call(requests, context):
        return 2 * await behaviour(requests, context)

    return call


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (grpc.stream_stream_rpc_method_handler, "stream_stream"),
        (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    ],
)
async def test_a_wrapped_handler_keeps_its_kind_and_its_serializers(make, kind):
    handler = make(_behaviour, request_deserializer=bytes.fromhex, response_serializer=bytes)
    found = wrapped(handler, _twice)
    assert (found.request_streaming, found.response_streaming) == (True, kind == "stream_stream")
    assert (found.request_deserializer, found.response_serializer) == (bytes.fromhex, bytes)
    assert await getattr(found, kind)("ab", None) == "abab"


def test_a_method_that_no_service_has_stays_unknown():
    assert wrapped(None, _twice) is None
