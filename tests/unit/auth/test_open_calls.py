"""Calls end with the credentials of their callers: expired ones after a grace, revoked ones at once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from liveavatar_gateway.auth.open_calls import CHECK_S, OpenCall, OpenCalls
from liveavatar_gateway.auth.principal import ANONYMOUS
from liveavatar_gateway.core.errors import AccessError, CredentialExpired, CredentialInvalid

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Rig:
    """Open calls under a clock and a verdict that the test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.verdict: AccessError | None = None
        self.cancelled = 0
        self.calls = OpenCalls(self.check, grace_s=30.0, now=lambda: self.now)

    def check(self, principal) -> None:
        assert principal is ANONYMOUS
        if self.verdict is not None:
            raise self.verdict

    def call(self) -> OpenCall:
        call = OpenCall(ANONYMOUS, self.cancel)
        self.calls.add(call)
        return call

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def rig():
    return Rig()


def test_a_valid_credential_ends_nothing(rig):
    call = rig.call()
    rig.calls.sweep()
    assert (call.deadline, call.error, rig.cancelled) == (None, None, 0)


def test_an_expired_credential_is_announced_and_ends_its_call_after_the_grace(rig):
    call, announced = rig.call(), []
    call.on_deadline(lambda: announced.append(call.deadline))
    rig.verdict = CredentialExpired(NOW.isoformat())
    rig.calls.sweep()
    rig.now += timedelta(seconds=29)
    rig.calls.sweep()
    assert announced == [NOW + timedelta(seconds=30)]
    assert rig.cancelled == 0
    rig.now += timedelta(seconds=1)
    rig.calls.sweep()
    rig.calls.sweep()
    assert call.error is rig.verdict
    assert rig.cancelled == 1


def test_a_revoked_credential_ends_its_call_at_once(rig):
    call = rig.call()
    rig.verdict = CredentialInvalid("revoked API key")
    rig.calls.sweep()
    assert (call.error, call.deadline, rig.cancelled) == (rig.verdict, None, 1)


def test_a_call_that_is_over_is_not_checked(rig):
    rig.calls.discard(rig.call())
    rig.verdict = CredentialInvalid("revoked API key")
    rig.calls.sweep()
    assert (len(rig.calls), rig.cancelled) == (0, 0)


async def test_calls_are_checked_regularly(rig):
    call = rig.call()
    rig.verdict = CredentialInvalid("revoked API key")
    watching = asyncio.create_task(rig.calls.watch())
    async with asyncio.timeout(30 * CHECK_S):
        while call.error is None:
            await asyncio.sleep(0.01)
    watching.cancel()


def test_a_call_that_is_over_is_neither_cancelled_nor_notified(rig):
    call, announced = rig.call(), []
    call.on_deadline(lambda: announced.append(call.deadline))
    call.close()
    call.close()
    call.limit(NOW)
    call.end(CredentialExpired(NOW.isoformat()))
    assert (announced, rig.cancelled) == ([], 0)
