"""Connections of a client, and the credential of its calls."""

import asyncio

import grpc
import pytest

from liveavatar.gateway import (
    ClientClosed,
    ConnectionLost,
    CredentialExpired,
    CredentialInvalid,
    GatewayError,
    TokenUnavailable,
)
from liveavatar.gateway.credentials import Credentials
from liveavatar.gateway.runtime import MAX_NAMED, ClientRuntime


class Line:
    """Stands for a connection: what counts here is when it is made and closed."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.closed = False
        self.sessions = self
        self.call_count = 0
        self.retiring = False

    def begin_call(self) -> None:
        self.call_count += 1

    def end_call(self) -> None:
        self.call_count -= 1

    async def retire(self) -> None:
        self.retiring = True
        try:
            await asyncio.Event().wait()
        finally:
            self.closed = True

    async def close(self) -> None:
        self.closed = True


async def test_connections_to_named_addresses_are_bounded_and_the_clients_own_are_kept():
    made: list[Line] = []

    def connect(target: str) -> Line:
        made.append(Line(target))
        return made[-1]

    scope = ClientRuntime(["own:1"], connect)
    own = scope.connection("own:1")
    named = [scope.connection(f"named-{number}:1") for number in range(MAX_NAMED)]
    assert scope.connection("named-0:1") is named[0]
    scope.connection("one-more:1")
    assert scope.connection("own:1") is own
    # Asked for longest ago: not the first any more.
    assert scope.connection("named-0:1") is named[0]
    again = scope.connection("named-1:1")
    assert again is not named[1]
    await scope.close()
    assert all(line.closed for line in made)
    assert len(made) == MAX_NAMED + 3
    with pytest.raises(ClientClosed):
        scope.connection("own:1")


EXPIRED = CredentialExpired("expired", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIAL_EXPIRED")
INVALID = CredentialInvalid("revoked", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIAL_INVALID")
LOST = ConnectionLost("lost", code=grpc.StatusCode.UNAVAILABLE)


class Calls:
    """Unary call whose attempts fail with the given errors, then succeed."""

    def __init__(self, *failures: GatewayError) -> None:
        self.failures = list(failures)
        self.sent: list[str] = []

    def __call__(self, _stub, options):
        self.sent.append(dict(options["metadata"]).get("authorization", ""))
        return self._answer()

    async def _answer(self) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


def tokens():
    numbers = iter(range(100))

    async def source() -> str:
        return f"token-{next(numbers)}"

    return source


async def test_each_call_has_the_credential():
    scope = ClientRuntime(["own:1"], Line, Credentials("lag_key"))
    calls = Calls()
    assert await scope.call(calls, 5.0) == "answer"
    assert calls.sent == ["Bearer lag_key"]
    assert scope.connection("own:1").call_count == 0


@pytest.mark.parametrize("once", [False, True])
async def test_a_refused_token_is_renewed_once_per_call(once):
    """Also for a call that must not be repeated: a refused call had no effect."""
    scope = ClientRuntime(["own:1", "other:1"], Line, Credentials(tokens()))
    calls = Calls(EXPIRED)
    assert await scope.call(calls, 5.0, once=once) == "answer"
    assert calls.sent == ["Bearer token-0", "Bearer token-1"]
    calls = Calls(INVALID, INVALID)
    with pytest.raises(CredentialInvalid):
        await scope.call(calls, 5.0, once=once)
    assert calls.sent == ["Bearer token-1", "Bearer token-2"]
    calls = Calls()
    await scope.call(calls, 5.0)
    assert calls.sent == ["Bearer token-3"]
    assert scope.route.current == "own:1"


async def test_a_call_renews_once_in_all_its_rounds():
    scope = ClientRuntime(["own:1"], Line, Credentials(tokens()))
    calls = Calls(EXPIRED, LOST, EXPIRED)
    with pytest.raises(CredentialExpired):
        await scope.call(calls, 5.0)
    assert len(calls.sent) == 3


async def test_a_refused_key_is_refused_at_once():
    scope = ClientRuntime(["own:1", "other:1"], Line, Credentials("lag_key"))
    calls = Calls(INVALID)
    with pytest.raises(CredentialInvalid):
        await scope.call(calls, 5.0)
    assert len(calls.sent) == 1


async def test_a_source_that_fails_for_a_moment_does_not_fail_the_call():
    answers = [OSError("the issuer is away"), "token"]

    async def source() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    scope = ClientRuntime(["own:1"], Line, Credentials(source))
    assert await scope.call(Calls(), 5.0) == "answer"


async def test_a_call_waits_for_a_source_no_longer_than_its_own_timeout():
    scope = ClientRuntime(["own:1"], Line, Credentials(asyncio.Event().wait))
    async with asyncio.timeout(5):
        with pytest.raises(TokenUnavailable):
            await scope.call(Calls(), 0.05)


async def test_an_outdated_connection_gets_no_new_calls_and_is_closed_with_the_client():
    made = ClientRuntime(["own:1"], Line, None, lambda line: line is outdated)
    outdated = None
    outdated = made.connection("own:1")
    fresh = made.connection("own:1")
    assert fresh is not outdated
    await asyncio.sleep(0)
    assert outdated.retiring
    assert not outdated.closed
    await made.close()
    assert outdated.closed
    assert fresh.closed
