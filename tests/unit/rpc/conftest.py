"""Caller of the handlers in these tests: anonymous, as without a file of tenants."""

import pytest

from liveavatar_gateway.auth.open_calls import OpenCall
from liveavatar_gateway.auth.principal import ANONYMOUS
from liveavatar_gateway.rpc.interceptors.authentication import set_current_call


@pytest.fixture(autouse=True)
async def caller() -> OpenCall:
    """Make an anonymous call the current one of the test."""
    call = OpenCall(ANONYMOUS, lambda: None)
    set_current_call(call)
    return call
