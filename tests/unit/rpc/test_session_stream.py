"""Base of the streams of one session: heartbeats where nothing else is written."""

import asyncio
from types import SimpleNamespace

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.session_stream import SessionStream
from liveavatar_gateway.sessions.wakeup import Wakeup
from testkit.actors import Context

HEARTBEAT = p.AttachResponse(heartbeat=stream_pb2.Heartbeat())


def stream(heartbeat_s: float) -> SessionStream[p.AttachResponse]:
    config = RpcConfig(speech=SpeechConfig(), heartbeat_s=heartbeat_s)
    return SessionStream(None, SimpleNamespace(wakeup=Wakeup()), config, Context(), heartbeat=HEARTBEAT)


async def test_a_heartbeat_follows_a_silence():
    found = stream(0.05)
    await asyncio.wait_for(found._wait_for_news(), 10)
    assert found._context.written.get_nowait() is HEARTBEAT
    assert found._heartbeat_interval.ToTimedelta().total_seconds() == 0.05


async def test_a_message_begins_a_new_silence():
    found = stream(0.05)
    await asyncio.sleep(0.06)
    await found._write_one(p.AttachResponse())
    found._attachment.wakeup.set()
    await asyncio.wait_for(found._wait_for_news(), 10)
    assert found._context.written.qsize() == 1


async def test_a_wait_ends_with_news_or_with_its_limit_and_writes_nothing():
    found = stream(60)
    await asyncio.wait_for(found._wait_for_news(0.01), 10)
    found._attachment.wakeup.set()
    await asyncio.wait_for(found._wait_for_news(), 10)
    assert found._context.written.empty()


async def test_a_stream_without_heartbeats_writes_none():
    found = stream(0)
    await asyncio.wait_for(found._wait_for_news(0.01), 10)
    assert found._context.written.empty()
    assert found._heartbeat_interval is None
