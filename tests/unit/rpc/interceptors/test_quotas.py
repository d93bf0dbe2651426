"""Quotas on calls: each method has the quota of its kind, and a stream holds its place while it runs."""

from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.auth.limiter import Limited, Limiter
from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import RULES, Method, Principal
from liveavatar_gateway.auth.quotas import Quotas
from liveavatar_gateway.core.errors import QuotaExceeded
from liveavatar_gateway.rpc.interceptors.authentication import set_current_call
from liveavatar_gateway.rpc.interceptors.quotas import QuotaInterceptor, kind_of

SESSIONS = "liveavatar.gateway.v1.SessionService/"


@pytest.fixture(autouse=True)
async def caller():
    principal = Principal(tenant="acme", roles=frozenset(), method=Method.API_KEY, credential="k", expires_at=None)
    set_current_call(OpenCall(principal, lambda: None))


@pytest.mark.parametrize("method", RULES)
def test_every_method_but_those_of_operators_has_a_quota(method):
    assert (kind_of(method) is None) == ("AdminService" in method)


def test_methods_have_the_quota_of_their_kind():
    assert kind_of("grpc.health.v1.Health/Check") is None
    assert kind_of(SESSIONS + "Attach") is Limited.STREAM
    assert kind_of(SESSIONS + "WatchSessions") is Limited.WATCH
    assert kind_of(SESSIONS + "ListSessions") is Limited.LIST
    assert kind_of(SESSIONS + "GetSession") is Limited.UNARY


async def limited(method, behaviour, **quotas):
    async def continuation(_):
        return grpc.stream_unary_rpc_method_handler(behaviour)

    interceptor = QuotaInterceptor(Limiter(lambda _: Quotas(**quotas)))
    handler = await interceptor.intercept_service(continuation, SimpleNamespace(method=f"/{method}"))
    return handler.stream_unary


async def test_a_stream_holds_its_place_until_it_ends():
    nested = []

    async def behaviour(requests, context):
        if not nested:
            nested.append(True)
            with pytest.raises(QuotaExceeded):
                await call(requests, context)
        return "done"

    call = await limited(SESSIONS + "Attach", behaviour, max_streams=1)
    assert await call(None, None) == "done"
    assert await call(None, None) == "done"


async def test_a_failed_stream_frees_its_place():
    async def behaviour(_requests, _context):
        raise ValueError

    call = await limited(SESSIONS + "Attach", behaviour, max_streams=1)
    for _ in range(2):
        with pytest.raises(ValueError):
            await call(None, None)


async def test_a_method_without_a_quota_keeps_its_handler():
    async def behaviour(_requests, _context):
        return "done"

    assert await limited("liveavatar.gateway.v1.AdminService/Drain", behaviour) is behaviour
