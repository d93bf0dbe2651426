"""Driver of a session with a hosted agent: ready at once, ended by LiveAvatar, by a limit, or by a fault."""

import asyncio
from dataclasses import replace

import pytest

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import AgentHosted, InternalError
from liveavatar_gateway.core.states import EndReason, SessionState
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind
from testkit.actors import Process

AGENT = Connector(kind=ConnectorKind.OPENAI_REALTIME, secret_id="7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22")


@pytest.fixture
async def process():
    found = Process()
    found.services = replace(found.services, config=SessionConfig(hosted_poll_s=0.01))
    yield found
    await found.close()


async def finished(session) -> None:
    await asyncio.wait_for(session.finished.wait(), 10)


async def test_a_session_is_ready_without_a_socket_and_stopped_at_its_end(process):
    session = await process.ready(connector=AGENT)
    (upstream,) = process.pool.upstreams
    assert upstream.sockets == []
    with pytest.raises(AgentHosted):
        session.require_socket("ListenAudio")
    session.end(EndReason.CALLER_ENDED)
    await finished(session)
    assert (session.state, upstream.end) == (SessionState.ENDED, "closed")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("AGENT_HANG_UP", EndReason.AGENT_HUNG_UP),
        ("DISPATCH_FAILED", EndReason.UPSTREAM_ENDED),
        ("", EndReason.UPSTREAM_ENDED),
    ],
)
async def test_an_end_at_liveavatar_ends_the_session_with_its_reason(process, said, reason):
    session = await process.ready(connector=AGENT)
    process.pool.upstreams[0].remote_end = said
    await finished(session)
    assert (session.end_reason, session.view().upstream_reason) == (reason, said)


async def test_a_keep_alive_goes_by_rest(process):
    session = await process.ready(connector=AGENT)
    session.lifecycle.keep_alive()
    async with asyncio.timeout(10):
        while not process.pool.upstreams[0].kept_alive:
            await asyncio.sleep(0)


async def test_a_limit_ends_the_session(process):
    session = await process.ready(connector=AGENT, idle_timeout_s=0.05)
    await finished(session)
    assert session.end_reason is EndReason.IDLE


async def test_a_fault_of_the_look_ends_the_session(process):
    session = process.session(connector=AGENT)

    async def fail(**_: object) -> None:
        raise ValueError("a bug")

    process.run(session)
    await asyncio.wait_for(session.ready(), 10)
    process.pool.upstreams[0].ended_reason = fail
    await finished(session)
    assert session.end_reason is EndReason.UPSTREAM_FAILED
    assert isinstance(session.error, InternalError)
    assert process.pool.upstreams[0].end == "closed"
