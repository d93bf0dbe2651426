"""Counts of calls by method and code."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.rpc.interceptors.metrics import MetricsInterceptor

METHOD = "/liveavatar.gateway.v1.SessionService/GetSession"


class Counts:
    """Notes what began and how it ended."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[tuple[str, str]] = []

    def rpc_began(self, method: str) -> None:
        self.began.append(method)

    def rpc_ended(self, method: str, code: str) -> None:
        self.ended.append((method, code))


async def handler(counts: Counts, behaviour, method: str = METHOD):
    async def continuation(_):
        return grpc.stream_unary_rpc_method_handler(behaviour)

    return await MetricsInterceptor(counts).intercept_service(continuation, SimpleNamespace(method=method))


def raising(error: BaseException):
    async def behaviour(_requests, _context):
        raise error

    return behaviour


async def returning(requests, _context):
    return requests


async def test_a_call_that_succeeds_is_counted_as_ok():
    counts = Counts()
    assert await (await handler(counts, returning)).stream_unary("response", None) == "response"
    assert counts.began == [METHOD[1:]]
    assert counts.ended == [(METHOD[1:], "OK")]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (asyncio.CancelledError(), None, "CANCELLED"),
        (grpc.aio.AbortError(), 5, "NOT_FOUND"),
        (grpc.aio.AbortError(), grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (ZeroDivisionError(), None, "UNKNOWN"),
    ],
)
async def test_a_call_that_fails_is_counted_under_its_code(error, status, code):
    counts = Counts()
    found = await handler(counts, raising(error))
    with pytest.raises(type(error)):
        await found.stream_unary(None, SimpleNamespace(code=lambda: status))
    assert counts.ended == [(METHOD[1:], code)]


async def test_calls_of_other_services_are_not_counted():
    counts = Counts()
    found = await handler(counts, returning, "/grpc.health.v1.Health/Check")
    await found.stream_unary("response", None)
    assert counts.began == []
