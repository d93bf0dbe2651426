"""The floor: a bare grpc.aio server with the gateway's contract, credit and packets, and nothing else.

It opens a command socket per session, gathers chunks into packets, acknowledges them once a second, and passes
the starts and ends of utterances on. No REST, registry, scheduler, reconnection, interrupts, checks or metrics.
"""

import argparse
import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import grpc.aio
import pybase64
import uvloop

from liveavatar.gateway.v1 import (
    audio_pb2,
    audio_service_pb2,
    session_pb2,
    session_service_pb2,
)
from load.speech import BYTE_RATE
from stage.daemon import say_ready

_FIRST_BYTES: Final = BYTE_RATE * 4 // 10
_NEXT_BYTES: Final = BYTE_RATE * 3 // 10
"""Sizes of packets, about those of the gateway."""
_CREDIT_BYTES: Final = 30 * BYTE_RATE
_ACK_S: Final = 1.0
_PACKAGE: Final = "liveavatar.gateway.v1"
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # As the gateway's: while others are measured, callers ping a floor that is silent for minutes.
    ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 9_000),
)

_Response = audio_service_pb2.StreamAudioResponse


class _Socket(asyncio.Protocol):
    """Command socket: frames masked with zeros, events found by their names."""

    def __init__(self, path: str) -> None:
        self.ready = asyncio.Event()
        self.session: _Session | None = None
        self._path = path
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: sink\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        self._transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        if b'"connected"' in data:
            self.ready.set()
        if self.session is not None:
            if b"agent.speak_started" in data:
                self.session.on_started()
            if b"agent.speak_ended" in data:
                self.session.on_ended()

    def send(self, text: bytes) -> None:
        size = len(text)
        length = b"%c" % (0x80 | size) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        if size >= 1 << 16:
            length = b"\xff" + size.to_bytes(8, "big")
        assert self._transport is not None
        self._transport.write(b"".join((b"\x81", length, b"\0\0\0\0", text)))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()


class _Session:
    """Session with its command socket, and with its audio stream while one is open."""

    def __init__(self, session_id: str, socket: _Socket) -> None:
        self.id = session_id
        self._socket = socket
        self._context: Any = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._utterances = 0
        self._begun: list[str] = []
        self._gathered: list[bytes] = []
        self._gathered_bytes = self._received_bytes = 0
        self._next_ack_s = 0.0

    async def serve(self, messages: AsyncIterator[audio_service_pb2.StreamAudioRequest], context: Any) -> None:
        """Take audio until the caller closes the stream."""
        self._context = context
        await self._write(
            _Response(ready=audio_service_pb2.AudioReady(session_id=self.id, credit_bytes=_CREDIT_BYTES))
        )
        async for message in messages:
            kind = message.WhichOneof("message")
            if kind == "chunk":
                await self._on_chunk(message.chunk.audio)
            elif kind == "begin":
                self._utterances += 1
                self._begun.append(f"{self.id}-{self._utterances}")
                self._received_bytes = 0
                self._next_ack_s = time.monotonic() + _ACK_S
            elif kind == "end":
                self._flush()
                self._socket.send(b'{"type":"agent.speak_end","event_id":"%b"}' % self._begun[-1].encode())

    async def _on_chunk(self, pcm: bytes) -> None:
        self._gathered.append(pcm)
        self._gathered_bytes += len(pcm)
        self._received_bytes += len(pcm)
        first = self._gathered_bytes == self._received_bytes
        if self._gathered_bytes >= (_FIRST_BYTES if first else _NEXT_BYTES):
            self._flush()
        if (now_s := time.monotonic()) >= self._next_ack_s:
            self._next_ack_s = now_s + _ACK_S
            ack = audio_service_pb2.AudioAck(
                utterance_id=self._begun[-1], received_bytes=self._received_bytes, credit_bytes=_CREDIT_BYTES
            )
            await self._write(_Response(ack=ack))

    def _flush(self) -> None:
        if self._gathered:
            audio = pybase64.b64encode(b"".join(self._gathered))
            self._gathered.clear()
            self._gathered_bytes = 0
            event_id = self._begun[-1].encode()
            self._socket.send(b'{"type":"agent.speak","event_id":"%b","audio":"%b"}' % (event_id, audio))

    def on_started(self) -> None:
        """Pass the start of an utterance on."""
        self._respond(_Response(started=audio_service_pb2.AudioStarted(utterance_id=self._begun[-1])))

    def on_ended(self) -> None:
        """Pass the end of the oldest utterance on."""
        ended = audio_service_pb2.AudioEnded(
            utterance_id=self._begun.pop(0), outcome=audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        )
        self._respond(_Response(ended=ended))

    def _respond(self, response: audio_service_pb2.StreamAudioResponse) -> None:
        task = asyncio.get_running_loop().create_task(self._write(response))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, response: audio_service_pb2.StreamAudioResponse) -> None:
        # gRPC takes one write at a time.
        async with self._writing:
            await self._context.write(response)


class _Floor:
    """Both streams of the contract."""

    def __init__(self, socket_url: str) -> None:
        self._address = urlsplit(socket_url)
        self._host_and_port = (self._address.hostname or "", self._address.port or 80)
        self._sessions: dict[str, _Session] = {}

    async def attach(self, messages: AsyncIterator[session_service_pb2.AttachRequest], context: Any) -> None:
        """Open a session, and end it on command."""
        session_id = str(uuid.uuid4())
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(
            lambda: _Socket(self._address.path + session_id), *self._host_and_port
        )
        await socket.ready.wait()
        socket.session = self._sessions[session_id] = _Session(session_id, socket)
        described = session_pb2.Session(id=session_id, upstream_session_id=session_id)
        ready = session_service_pb2.StateChanged(state=session_pb2.SESSION_STATE_READY)
        ended = session_service_pb2.SessionEnded(session=described)
        try:
            await anext(messages)
            opened = session_service_pb2.SessionOpened(session=described)
            await context.write(session_service_pb2.AttachResponse(opened=opened))
            await context.write(_event(state_changed=ready))
            async for message in messages:
                if message.command.HasField("end"):
                    await context.write(_event(ended=ended))
                    return
        finally:
            socket.close()
            del self._sessions[session_id]

    async def stream_audio(
        self, messages: AsyncIterator[audio_service_pb2.StreamAudioRequest], context: Any
    ) -> None:
        """Take a session's audio."""
        first = await anext(messages)
        await self._sessions[first.header.session_id].serve(messages, context)


def _event(**event: Any) -> session_service_pb2.AttachResponse:
    return session_service_pb2.AttachResponse(event=session_service_pb2.SessionEvent(**event))


async def serve(socket_url: str, ready_file: Path) -> None:
    """Serve until SIGTERM.

    Args:
        socket_url: Base URL of command sockets; the session's id follows.
        ready_file: Gets the address, `host:port`, as JSON.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=_OPTIONS)
    floor = _Floor(socket_url)
    attach = grpc.stream_stream_rpc_method_handler(
        floor.attach,
        session_service_pb2.AttachRequest.FromString,
        session_service_pb2.AttachResponse.SerializeToString,
    )
    stream_audio = grpc.stream_stream_rpc_method_handler(
        floor.stream_audio, audio_service_pb2.StreamAudioRequest.FromString, _Response.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(f"{_PACKAGE}.SessionService", {"Attach": attach}),
            grpc.method_handlers_generic_handler(f"{_PACKAGE}.AudioService", {"StreamAudio": stream_audio}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say_ready(ready_file, address=f"127.0.0.1:{port}")
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Run as a process of its own: `python -m load.bench.floor`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket-url", required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.socket_url, options.ready_file))


if __name__ == "__main__":
    main()
