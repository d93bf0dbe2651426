import asyncio

import pytest

from liveavatar.gateway import Client, ClientClosed, ForkedClient, GatewayError, Session
from liveavatar.gateway.portal import Portal


class AsyncSession:
    """Session that keeps what it is called with."""

    id = "s"

    def __init__(self):
        self.calls = []

    async def open(self):
        self.calls.append("open")

    async def __aexit__(self, *arguments):
        self.calls.append("exit")

    async def ready(self):
        await asyncio.Event().wait()

    async def events(self, *, after_sequence=0):
        for number in range(after_sequence + 1, 4):
            yield number

    async def detach(self):
        return "handle"


@pytest.fixture
def portal():
    with_loop = Portal()
    yield with_loop
    with_loop.close()


@pytest.fixture
def inner():
    return AsyncSession()


def test_a_block_opens_and_leaves_the_session(portal, inner):
    with Session(inner, portal, open_timeout_s=5.0) as session:
        assert list(session.events(after_sequence=1)) == [2, 3]
        assert session.detach(timeout=5) == "handle"
    assert inner.calls == ["open", "exit"]


def test_a_wait_ends_with_its_timeout(portal, inner):
    with pytest.raises(GatewayError, match="no answer within"):
        Session(inner, portal, open_timeout_s=5.0).ready(timeout=0.01)


def test_leaving_a_block_in_a_fork_has_no_effect(portal, inner, monkeypatch):
    session = Session(inner, portal, open_timeout_s=5.0)
    monkeypatch.setattr(portal, "_pid", portal._pid + 1)
    session.__exit__(None, None, None)
    assert inner.calls == []
    with pytest.raises(ForkedClient):
        session.open()
    monkeypatch.undo()


def test_an_error_of_the_block_is_not_hidden_by_a_closed_client(portal, inner):
    session = Session(inner, portal, open_timeout_s=5.0)
    portal.close()
    session.__exit__(LookupError, LookupError("mine"), None)
    with pytest.raises(ClientClosed):
        session.__exit__(None, None, None)


def test_a_client_is_closed_once_and_refuses_calls_then():
    client = Client("127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.get_session("s")
    assert repr(client) == "<Client <AsyncClient 127.0.0.1:1>>"
