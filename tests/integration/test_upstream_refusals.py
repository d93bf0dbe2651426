"""Each refusal of LiveAvatar's REST API comes out as its documented reason, and leaves nothing running."""

import grpc
import pytest

from liveavatar.gateway.v1 import session_pb2
from testkit import processes
from testkit.caller import caller as connect
from testkit.caller import refused

SANDBOX_AVATAR = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"

# ruff: noqa: E501 - one refusal, one line
CASES = [
    # endpoint, fault, reason, code, detail, field
    ("token", {"status": 401, "message": "Invalid API key"}, "UPSTREAM_UNAUTHENTICATED", "FAILED_PRECONDITION", "Help"),
    ("start", {"status": 403, "code": 4033, "message": "Insufficient credits for session"},
     "UPSTREAM_CREDITS_EXHAUSTED", "FAILED_PRECONDITION", "Help"),
    ("start", {"status": 403, "code": 4033, "message": "No credits available for start session"},
     "UPSTREAM_CREDITS_EXHAUSTED", "FAILED_PRECONDITION", "Help"),
    ("start", {"status": 402}, "UPSTREAM_CREDITS_EXHAUSTED", "FAILED_PRECONDITION", "Help"),
    ("start", {"status": 403, "code": 4032, "message": "Session concurrency limit reached"},
     "CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED", "QuotaFailure"),
    ("start", {"status": 403, "code": 4003, "message": "Session concurrency limit reached"},
     "CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED", "QuotaFailure"),
    ("token", {"status": 409}, "CAPACITY_EXHAUSTED", "RESOURCE_EXHAUSTED", "QuotaFailure"),
    ("token", {"status": 403, "code": 4030, "message": "1080p sessions require a Business or Enterprise plan"},
     "UPSTREAM_PLAN_REQUIRED", "FAILED_PRECONDITION", "Help"),
    ("token", {"status": 400, "code": 4000, "message": "You dont have access to this avatar"},
     "UPSTREAM_REJECTED", "INVALID_ARGUMENT", "BadRequest"),
    ("token", {"status": 422, "body": '{"detail":[{"type":"missing","loc":["body","avatar_id"],"msg":"Field required"}]}'},
     "UPSTREAM_REJECTED", "INVALID_ARGUMENT", "BadRequest"),
    ("token", {"status": 429, "retry_after_s": 3, "times": 9}, "UPSTREAM_RATE_LIMITED", "RESOURCE_EXHAUSTED", "RetryInfo"),
    ("start", {"status": 429, "retry_after_s": 3}, "UPSTREAM_RATE_LIMITED", "RESOURCE_EXHAUSTED", "RetryInfo"),
    ("token", {"status": 500, "times": 9}, "UPSTREAM_UNREACHABLE", "UNAVAILABLE", "RetryInfo"),
    ("start", {"status": 500}, "UPSTREAM_UNREACHABLE", "UNAVAILABLE", "RetryInfo"),
    ("start", {"status": 503}, "UPSTREAM_UNREACHABLE", "UNAVAILABLE", "RetryInfo"),
    ("token", {"status": 200, "body": "<html>hello</html>", "times": 9}, "UPSTREAM_PROTOCOL", "UNAVAILABLE", "RetryInfo"),
    ("start", {"status": 201, "body": "<html>hello</html>"}, "UPSTREAM_PROTOCOL", "UNAVAILABLE", "RetryInfo"),
    ("start", {"status": 201, "body": "{}"}, "UPSTREAM_PROTOCOL", "UNAVAILABLE", "RetryInfo"),
    ("token", {"hang": True, "times": 9}, "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED", "RetryInfo"),
    ("start", {"hang": True}, "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED", "RetryInfo"),
    ("start", {"status": 502, "after_effect": True}, "UPSTREAM_UNREACHABLE", "UNAVAILABLE", "RetryInfo"),
]  # fmt: skip


@pytest.fixture
def impatient(emulator):
    """Run a gateway with short time-outs towards LiveAvatar, which has learnt no limit from refusals before."""
    with processes.gateway(emulator.url, rest_timeout_s=0.7) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("endpoint", "fault", "reason", "code", "detail"),
    CASES,
    ids=[
        f"{case[0]}-{case[1].get('status', 'hang')}-{case[1].get('code', '')}-{n}" for n, case in enumerate(CASES)
    ],
)
async def test_a_refusal_has_its_reason_and_leaves_nothing_running(
    impatient, emulator, endpoint, fault, reason, code, detail
):
    active = emulator.active()
    emulator.fault(endpoint, **fault)
    async with connect(impatient.address) as caller:
        why = await refused(caller.create())
        assert (why.reason, why.code) == (reason, grpc.StatusCode[code])
        assert why.has(detail)
        emulator.clear_faults()
        # What may have been started is stopped behind.
        emulator.wait_active(active)
        # The place it held is free again, and the gateway works on.
        session = (await caller.create()).session
        assert (await caller.end(session.id)).end_reason == session_pb2.END_REASON_CALLER_ENDED


async def test_a_single_server_error_at_token_is_retried_unseen(impatient, emulator):
    emulator.fault("token", status=500)
    async with connect(impatient.address) as caller:
        session = (await caller.create()).session
        await caller.end(session.id)


async def test_retry_after_is_passed_on(impatient, emulator):
    emulator.fault("start", status=429, retry_after_s=7)
    async with connect(impatient.address) as caller:
        assert (await refused(caller.create())).retry_s == 7


async def test_sandbox_rules_are_refused_with_the_field_at_fault(caller, emulator):
    why = await refused(caller.create(sandbox=True))
    assert (why.reason, why.field) == ("UPSTREAM_REJECTED", "spec.avatar_id")
    assert "sandbox" in why.message
    too_long = session_pb2.SessionSpec(avatar_id=SANDBOX_AVATAR, sandbox=True)
    too_long.max_duration.FromSeconds(600)
    why = await refused(caller.create(avatar_id=SANDBOX_AVATAR, sandbox=True, max_duration=too_long.max_duration))
    assert why.reason == "UPSTREAM_REJECTED"
    assert "60s" in why.message
    session = (await caller.create(avatar_id=SANDBOX_AVATAR, sandbox=True)).session
    assert session.max_duration.seconds == 60
    await caller.end(session.id)


async def test_a_wrong_key_is_said_plainly_and_never_shown(emulator):
    with processes.gateway(emulator.url, api_key="not-the-key-at-all") as gateway:
        async with connect(gateway.address) as caller:
            why = await refused(caller.create())
            assert why.reason == "UPSTREAM_UNAUTHENTICATED"
            assert "LIVEAVATAR_API_KEY" in why.message
        assert "not-the-key-at-all" not in gateway.process.log
