"""Authentication of a call: refused before its body, or handled for its principal."""

import asyncio
import gc
import weakref
from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.auth.open_calls import OpenCalls
from liveavatar_gateway.auth.principal import RULES, Method, Principal, Role
from liveavatar_gateway.core.errors import CredentialMissing, RoleMissing
from liveavatar_gateway.rpc.interceptors.authentication import (
    AuthenticationInterceptor,
    certificate_names,
    current_principal,
)

CREATE = "liveavatar.gateway.v1.SessionService/CreateSession"


class Authenticator:
    """Knows callers by the header `who`, each with the role of that name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def authenticate(self, metadata, names):
        self.names = list(names)
        await asyncio.sleep(0)
        who = dict(metadata).get("who")
        if who is None:
            raise CredentialMissing
        return Principal(
            tenant=f"tenant of {who}",
            roles=frozenset({Role(who)}),
            method=Method.API_KEY,
            credential=who,
            expires_at=None,
        )


class Context:
    def __init__(self, metadata=(), auth_context=None) -> None:
        self._metadata = metadata
        self._auth_context = auth_context or {}

    def invocation_metadata(self):
        return self._metadata

    def auth_context(self):
        return self._auth_context


class Body:
    """Requests that must not be read."""

    def __aiter__(self):
        raise AssertionError("the body was read")


async def behaviour_of(method, behaviour, authenticator=None, *, streaming=False):
    make = grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler

    async def continuation(_):
        return make(behaviour)

    interceptor = AuthenticationInterceptor(
        authenticator or Authenticator(), OpenCalls(lambda _: None, grace_s=30.0)
    )
    found = await interceptor.intercept_service(continuation, SimpleNamespace(method=f"/{method}"))
    return found.stream_stream if streaming else found.stream_unary


async def tenant(_requests, _context):
    async def in_a_task():
        return current_principal().tenant

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(in_a_task())
    assert task.result() == current_principal().tenant
    return task.result()


async def unreachable(_requests, _context):
    raise AssertionError("the handler was called")


async def test_a_call_is_handled_for_its_principal():
    call = await behaviour_of(CREATE, tenant)
    assert await call(Body(), Context([("who", "open")])) == "tenant of open"


async def test_calls_at_the_same_time_have_principals_of_their_own():
    call = await behaviour_of("liveavatar.gateway.v1.SessionService/GetSession", tenant)
    calls = [asyncio.create_task(call(Body(), Context([("who", who)]))) for who in ("open", "watch", "control")]
    assert await asyncio.gather(*calls) == ["tenant of open", "tenant of watch", "tenant of control"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("method", list(RULES))
async def test_a_call_without_a_credential_is_refused_before_its_body_is_read(method, streaming):
    call = await behaviour_of(method, unreachable, streaming=streaming)
    for metadata in ((), None):
        with pytest.raises(CredentialMissing):
            await call(Body(), Context(metadata))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("method", list(RULES))
async def test_a_role_reaches_the_methods_of_its_rule_alone(method, role):
    if role in RULES[method]:
        call = await behaviour_of(method, tenant)
        assert await call(Body(), Context([("who", role.value)])) == f"tenant of {role}"
    else:
        call = await behaviour_of(method, unreachable)
        with pytest.raises(RoleMissing):
            await call(Body(), Context([("who", role.value)]))


async def test_health_needs_no_credential_and_has_no_principal():
    async def handler(_requests, _context):
        with pytest.raises(LookupError):
            current_principal()
        return "serving"

    assert await (await behaviour_of("grpc.health.v1.Health/Check", handler))(None, None) == "serving"


async def test_a_method_that_no_service_has_stays_unknown():
    async def continuation(_):
        return None

    interceptor = AuthenticationInterceptor(Authenticator(), OpenCalls(lambda _: None, grace_s=30.0))
    assert await interceptor.intercept_service(continuation, SimpleNamespace(method="/x/Y")) is None


async def test_the_names_of_a_certificate_reach_the_authenticator():
    authenticator = Authenticator()
    call = await behaviour_of(CREATE, tenant, authenticator)
    await call(Body(), Context([("who", "open")], {"peer_dns": [b"Agent.example.org"]}))
    assert authenticator.names == ["dns:agent.example.org"]


@pytest.mark.parametrize(
    ("auth_context", "names"),
    [
        ({}, []),
        ({"x509_common_name": [b"agent"], "x509_subject_alternative_name": [b"agent"]}, []),
        ({"peer_uri": [b"spiffe://x/A"], "peer_dns": [b"a", b"B"]}, ["uri:spiffe://x/A", "dns:a", "dns:b"]),
        ({"peer_dns": [b"spiffe://x/a"]}, ["dns:spiffe://x/a"]),
        ({"peer_uri": [b"\xff", b""]}, ["uri:\ufffd"]),
        ({"peer_dns": ["\u212aey".encode()]}, ["dns:\u212aey"]),
    ],
)
def test_names_keep_their_kinds(auth_context, names):
    assert certificate_names(auth_context) == names


@pytest.mark.parametrize(("who", "is_refused"), [("open", False), ("watch", True)])
async def test_a_call_that_is_over_leaves_nothing_to_the_garbage_collector(who, is_refused):
    call = await behaviour_of(CREATE, tenant)
    refused = []

    async def run():
        try:
            await call(Body(), Context([("who", who)]))
        except RoleMissing:
            refused.append(who)

    gc.disable()
    try:
        task = asyncio.create_task(run())
        alive = weakref.ref(task)
        await asyncio.wait({task})
        assert bool(refused) == is_refused
        del task
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.enable()
