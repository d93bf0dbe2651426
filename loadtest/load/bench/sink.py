"""LiveAvatar's side of the benchmark: REST and command sockets of many sessions at little cost.

Audio is neither unmasked nor decoded: the length of a frame gives its bytes. Events are those that the emulator
sends for the same commands.

Source: LiveAvatar API reference; RFC 6455 (WebSocket).
"""

import asyncio
import base64
import hashlib
import itertools
import time
from collections.abc import Callable
from typing import Any, Final, cast

import orjson

from load.speech import BYTE_RATE
from stage.errors import StageError

_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_HEAD_BYTES: Final = 256
"""Longest beginning of a command in front of its audio."""
_AUDIO: Final = b'"audio":"'
_TAIL: Final = b'"}'
_START_DELAY_S: Final = 0.1
"""From the first packet to the first sound."""
_TOKEN: Final = "token-"

OnPacket = Callable[[int, bool, float], None]
"""Called with the size of a packet, whether it begins an utterance, and its monotonic time of arrival."""


class Avatar:
    """Upstream session: the bytes of its utterances in order, and its playback."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.utterances: list[int] = []
        """Bytes of each utterance so far."""
        self.underruns = 0
        """Times that playback ran dry inside an utterance."""
        self.problem = ""
        self.on_packet: OnPacket | None = None
        self._send: Callable[[bytes], None] = lambda _: None
        self._event_id = b""
        self._play_until_s = 0.0
        self._timers: set[asyncio.TimerHandle] = set()

    def connected(self, send: Callable[[bytes], None]) -> None:
        """Take commands from a socket from now on."""
        self._send = send
        send(_frame(_TEXT, _event("session.state_updated", state="connected")))

    def closed(self) -> None:
        """Forget the socket."""
        self._send = lambda _: None
        for timer in self._timers:
            timer.cancel()

    def speak(self, event_id: bytes, size_bytes: int) -> None:
        """Take a packet of an utterance."""
        now_s = time.monotonic()
        first = event_id != self._event_id
        if first:
            self._event_id = event_id
            self.utterances.append(0)
            start_s = max(now_s + _START_DELAY_S, self._play_until_s)
            self._play_until_s = start_s
            self._at(start_s, _pose("idle", "talking") + _frame(_TEXT, _event("agent.speak_started", event_id)))
        elif now_s > self._play_until_s:
            self.underruns += 1
            self._play_until_s = now_s
        self.utterances[-1] += size_bytes
        self._play_until_s += size_bytes / BYTE_RATE
        self._send(_frame(_TEXT, _event("agent.audio_buffer_appended", event_id)))
        if self.on_packet is not None:
            self.on_packet(size_bytes, first, now_s)

    def command(self, text: bytes) -> None:
        """Take a command without audio."""
        command = orjson.loads(text)
        event_id = command.get("event_id", "").encode()
        match command.get("type"):
            case "agent.speak_end":
                self._send(_frame(_TEXT, _event("agent.audio_buffer_committed", event_id)))
                ended = _frame(_TEXT, _event("agent.speak_ended", event_id)) + _pose("talking", "idle")
                self._at(self._play_until_s, ended)
            case "agent.interrupt":
                self.problem = self.problem or "the gateway interrupted speech"
                self._send(_frame(_TEXT, _event("agent.audio_buffer_cleared", event_id)))

    def _at(self, due_s: float, frames: bytes) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            self._send(frames)

        timer = asyncio.get_running_loop().call_later(max(0.0, due_s - time.monotonic()), fire)
        self._timers.add(timer)


class Sink:
    """Server for REST and command sockets. Open with `start`, close with `stop`."""

    def __init__(self) -> None:
        self.avatars: dict[str, Avatar] = {}
        """Sessions by LiveAvatar's id."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._ids = itertools.count(1)

    @property
    def url(self) -> str:
        """Base URL of REST."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        """Base URL of command sockets; the session's id follows."""
        return f"ws://127.0.0.1:{self.port}/socket/"

    async def start(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close the listening socket."""
        if self._server is not None:
            self._server.close()

    def avatar(self, session_id: str) -> Avatar:
        """Return a session; a new one for an id that was not seen before."""
        return self.avatars.setdefault(session_id, Avatar(session_id))

    def answer(self, method: str, path: str, token: str) -> tuple[int, Any]:
        """Return HTTP status and data of a REST call.

        Args:
            method: HTTP method.
            path: Path without the query.
            token: Bearer token, if any.
        """
        match method, path:
            case "POST", "/v1/sessions/token":
                session_id = self.avatar(f"upstream-{next(self._ids)}").id
                return 200, {"session_id": session_id, "session_token": _TOKEN + session_id}
            case "POST", "/v1/sessions/start":
                session_id = token.removeprefix(_TOKEN)
                return 201, {
                    "session_id": session_id,
                    "livekit_url": "wss://livekit.invalid",
                    "livekit_client_token": "viewer",
                    "ws_url": self.socket_url + session_id,
                    "max_session_duration": None,
                }
            case "POST", "/v1/sessions/stop":
                return 200, {}
            case "GET", "/v1/sessions":
                return 200, {"count": 0, "next": None, "previous": None, "results": []}
            case "GET", "/v1/users/credits":
                return 200, {"credits_left": "1000000.00"}
            case _:
                return 404, None


class _Connection(asyncio.Protocol):
    """Connection: HTTP requests until one of them upgrades it to a command socket."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._avatar: Avatar | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._avatar is not None:
            self._avatar.closed()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_request() if self._avatar is None else self._take_frame(self._avatar):
            pass

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _take_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = bytes(self._buffer[:end]).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        total = end + 4 + int(headers.get("content-length", 0))
        if len(self._buffer) < total:
            return False
        del self._buffer[:total]
        method, target, _ = first.split(" ")
        path = target.partition("?")[0]
        if "sec-websocket-key" in headers:
            self._upgrade(path, headers["sec-websocket-key"])
            return True
        status, data = self._sink.answer(method, path, headers.get("authorization", "").removeprefix("Bearer "))
        body = orjson.dumps({"code": 1000 if data is not None else 4004, "data": data, "message": "Success"})
        head = f"HTTP/1.1 {status} OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._write(head.encode() + body)
        return True

    def _upgrade(self, path: str, key: str) -> None:
        digest = hashlib.sha1(key.encode() + _ACCEPT_GUID).digest()
        accept = base64.b64encode(digest).decode()
        self._write(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            f"sec-websocket-accept: {accept}\r\n\r\n".encode()
        )
        self._avatar = self._sink.avatar(path.rpartition("/")[2])
        self._avatar.connected(self._write)

    def _take_frame(self, avatar: Avatar) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        opcode, size, at = buffer[0] & 0xF, buffer[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:at], "big")
        end = at + 4 + size
        if len(buffer) < end or len(buffer) < at:
            return False
        mask, start = bytes(buffer[at : at + 4]), at + 4
        head = unmasked(buffer[start : min(end, start + _HEAD_BYTES)], mask, 0)
        if opcode == _TEXT:
            if (audio := head.find(_AUDIO)) >= 0:
                tail = unmasked(buffer[end - 4 : end], mask, size - 4)
                avatar.speak(_event_id(head), audio_bytes(size, audio, tail))
            else:
                avatar.command(head)
        elif opcode == _PING:
            self._write(_frame(_PONG, head))
        elif opcode == _CLOSE and self._transport is not None:
            self._write(_frame(_CLOSE, head[:2]))
            self._transport.close()
        del buffer[:end]
        return True


def unmasked(data: bytes | bytearray, mask: bytes, offset: int) -> bytes:
    """Return a piece of a masked payload in clear.

    Args:
        data: The piece.
        mask: Masking key of the frame.
        offset: Position of the piece in the payload.
    """
    key = (mask * (len(data) // 4 + 2))[offset % 4 :][: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


def audio_bytes(payload_bytes: int, audio_at: int, tail: bytes) -> int:
    """Return the PCM bytes of an `agent.speak`, whose audio is its last field.

    Args:
        payload_bytes: Length of the command.
        audio_at: Position of the name of the field `audio`.
        tail: Last four bytes of the command.

    Raises:
        StageError: the audio is not the last field.
    """
    if not tail.endswith(_TAIL):
        raise StageError("audio is not the last field of agent.speak, so its length is unknown")
    characters = payload_bytes - audio_at - len(_AUDIO) - len(_TAIL)
    return characters // 4 * 3 - tail[: -len(_TAIL)].count(b"=")


def _event_id(head: bytes) -> bytes:
    return head.partition(b'"event_id":"')[2].partition(b'"')[0]


def _event(kind: str, source: bytes = b"", **fields: str) -> bytes:
    task = {"task": {"id": source.decode()}} if source else {}
    return orjson.dumps(
        {"type": kind, "event_id": "e", "source_event_id": source.decode() or None, **task, **fields}
    )


def _pose(before: str, now: str) -> bytes:
    return _frame(_TEXT, _event("agent.state_updated", previous_state=before, new_state=now))


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
