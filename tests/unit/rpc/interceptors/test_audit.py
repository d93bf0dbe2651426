"""Audit of calls: each act and each refusal has one line, with its caller and its address."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import Method, Principal, Role
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    CredentialInvalid,
    RoleMissing,
    SessionNotFound,
    TenantSuspended,
)
from liveavatar_gateway.rpc.interceptors.audit import AuditInterceptor, audited, note_refusal
from liveavatar_gateway.rpc.interceptors.authentication import set_current_call
from liveavatar_gateway.rpc.peer import networks
from liveavatar_gateway.telemetry.line_rate import LineRate

CREATE = "liveavatar.gateway.v1.SessionService/CreateSession"
FULL = CapacityExhausted("full", scope="tenant", retry_after_s=1.0)
PRINCIPAL = Principal(
    tenant="acme",
    roles=frozenset(Role),
    method=Method.API_KEY,
    credential="k1",
    expires_at=None,
)


class Log:
    """Audit log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def write(self, event, outcome, fields):
        self.lines.append((event, outcome, fields))


class Context:
    """Call through a proxy at 10.0.0.1."""

    def peer(self):
        return "ipv4:10.0.0.1:4711"

    def invocation_metadata(self):
        return (("authorization", "Bearer secret"), ("x-forwarded-for", "203.0.113.9"))


@pytest.fixture
def log():
    return Log()


async def call(log, behaviour, *, method=CREATE, trusted="10.0.0.0/8"):
    """Call a behaviour behind the interceptor, in a task of its own as gRPC does."""

    async def continuation(_details):
        return grpc.stream_unary_rpc_method_handler(behaviour)

    interceptor = AuditInterceptor(LineRate(log.write), networks(trusted))
    handler = await interceptor.intercept_service(continuation, SimpleNamespace(method=f"/{method}"))
    return await asyncio.create_task(handler.stream_unary(None, Context()))


def raising(error, *, principal=None):
    async def behaviour(_requests, _context):
        if principal is not None:
            set_current_call(OpenCall(principal, lambda: None))
        raise error

    return behaviour


async def test_an_act_has_a_line_with_its_target_caller_and_address(log):
    async def behaviour(_requests, _context):
        set_current_call(OpenCall(PRINCIPAL, lambda: None))
        with audited("session.open", request_id="r-1") as target:
            target["session"] = "s-1"
        return "response"

    assert await call(log, behaviour) == "response"
    fields = {
        "request_id": "r-1",
        "session": "s-1",
        "tenant": "acme",
        "credential_kind": "api_key",
        "credential": "k1",
        "peer": "203.0.113.9",
        "rpc": CREATE,
    }
    assert log.lines == [("session.open", "OK", fields)]


async def test_without_trusted_proxies_the_address_is_that_of_the_connection(log):
    async def behaviour(_requests, _context):
        with audited("process.drain"):
            pass

    await call(log, behaviour, trusted="")
    assert log.lines == [("process.drain", "OK", {"peer": "10.0.0.1", "rpc": CREATE})]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SessionNotFound("s-1"), "SESSION_NOT_FOUND"),
        (FULL, "CAPACITY_EXHAUSTED"),
        (asyncio.CancelledError(), "CANCELLED"),
        (ZeroDivisionError(), "INTERNAL"),
    ],
)
async def test_an_act_that_fails_has_one_line_with_the_reason(log, error, outcome):
    async def behaviour(_requests, _context):
        with audited("session.end", session="s-1"):
            raise error

    with pytest.raises(type(error)):
        await call(log, behaviour)
    ((event, said, fields),) = log.lines
    assert (event, said, fields["session"]) == ("session.end", outcome, "s-1")


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (CredentialInvalid("revoked API key"), {"cause": "revoked API key"}),
        (TenantSuspended("beta"), {"tenant": "beta"}),
        (FULL, {"scope": "tenant"}),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [FULL])]), {"scope": "tenant"}),
    ],
)
async def test_a_refusal_of_a_call_has_a_line_with_its_details(log, error, details):
    with pytest.raises(type(error)):
        await call(log, raising(error))
    ((event, _, fields),) = log.lines
    assert (event, fields) == ("call.refused", {"peer": "203.0.113.9", "rpc": CREATE} | details)


async def test_a_refusal_for_a_role_names_the_caller(log):
    with pytest.raises(RoleMissing):
        await call(log, raising(RoleMissing(CREATE, "open"), principal=PRINCIPAL))
    ((event, outcome, fields),) = log.lines
    assert (event, outcome) == ("call.refused", "ROLE_MISSING")
    assert (fields["tenant"], fields["credential"], fields["what"]) == ("acme", "k1", CREATE)


@pytest.mark.parametrize("error", [SessionNotFound("s"), ZeroDivisionError(), ExceptionGroup("e", [OSError()])])
async def test_other_errors_are_no_refusals(log, error):
    with pytest.raises(type(error)):
        await call(log, raising(error))
    assert log.lines == []


async def test_a_refusal_inside_a_stream_has_a_line_too(log):
    async def behaviour(_requests, _context):
        note_refusal(RoleMissing("command", "control"))
        note_refusal(SessionNotFound("s"))

    await call(log, behaviour)
    assert [line[:2] for line in log.lines] == [("call.refused", "ROLE_MISSING")]


async def test_health_is_not_audited(log):
    with pytest.raises(CredentialInvalid):
        await call(log, raising(CredentialInvalid("x")), method="grpc.health.v1.Health/Check")
    assert log.lines == []


async def test_without_an_interceptor_nothing_is_written():
    with audited("session.open") as target:
        target["session"] = "s-1"
    note_refusal(CredentialInvalid("x"))
