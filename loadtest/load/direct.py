"""A session with LiveAvatar itself, over REST and its command socket: what the gateway is compared with.

It cuts packets as a careful client does: 400 ms first, since that sets the time to the first word, then whatever
has come, at least 200 ms of it and at most a second.

Source: LiveAvatar API reference, REST endpoints, command socket and audio.
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any, Final

import aiohttp
import orjson
import pybase64
import websockets
from websockets.asyncio.client import ClientConnection

from load.figures import System
from load.gateway import AVATAR_ID
from load.recorder import LoadRecorder
from load.session import ANSWER_WITHIN_S, OPEN_WITHIN_S, Failure, Session, Turn, deadline, until
from load.speech import BYTE_RATE, Voice

_FIRST_BYTES: Final = BYTE_RATE * 4 // 10
_NEXT_BYTES: Final = BYTE_RATE * 2 // 10
_MOST_BYTES: Final = BYTE_RATE
_EVENTS_BYTES: Final = 1 << 20


class DirectSession(Session):
    """One session."""

    system: System = "direct"

    def __init__(self, http: aiohttp.ClientSession, api_key: str, meter: LoadRecorder, voice: Voice) -> None:
        """Prepare it.

        Args:
            http: With LiveAvatar's address as base.
            api_key: Of the account.
            meter: Where to note.
            voice: Who speaks.
        """
        super().__init__(meter, voice)
        self._http = http
        self._api_key = api_key
        self._token = ""
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ended = False
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._packeted_bytes = 0
        self._unacked: deque[tuple[Turn, int]] = deque()
        self._by_id: dict[str, Turn] = {}
        self._cuts: dict[str, asyncio.Future[None]] = {}
        self._opened_s = 0.0

    # --- open and end

    async def open(self) -> None:
        """Mint, start, connect, and wait for `connected`: commands before it vanish."""
        async with deadline("session open", OPEN_WITHIN_S):
            order = {"mode": "LITE", "avatar_id": AVATAR_ID}
            minted = await self._post("/v1/sessions/token", {"X-API-KEY": self._api_key}, order)
            self._token = minted["session_token"]
            started = await self._post("/v1/sessions/start", self._bearer())
            self.upstream_id = started["session_id"]
            self._opened_s = time.monotonic()
            try:
                self._socket = await websockets.connect(
                    started["ws_url"], compression=None, ping_interval=None, max_size=_EVENTS_BYTES
                )
            except (OSError, websockets.WebSocketException) as error:
                raise Failure("SOCKET_REFUSED", type(error).__name__) from error
            self._reader = asyncio.create_task(self._read(self._socket))
            self._reader.add_done_callback(self.waits.done)
            await self.waits.answer("connected", self._connected, OPEN_WITHIN_S)

    async def end(self) -> None:
        """Stop it over REST, then close the socket."""
        self._ended = True
        if self.upstream_id:
            try:
                async with deadline("stop", ANSWER_WITHIN_S):
                    await self._post("/v1/sessions/stop", self._bearer())
            except Failure as failure:
                # One that failed before is counted already.
                if self.waits.failure is None:
                    self.meter.failed(self.system, f"END: {failure.reason}", took_s=0.0)
        if self._socket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await self._socket.close()
            self.meter.took(self.system, "stream lifetime", time.monotonic() - self._opened_s)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _post(self, path: str, headers: dict[str, str], body: dict[str, str] | None = None) -> Any:
        try:
            async with self._http.post(path, headers=headers, json=body) as response:
                text = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise Failure("HTTP_UNREACHABLE", f"{path}: {type(error).__name__}") from error
        envelope = _json(text)
        if response.status >= 300:
            code = envelope.get("code")
            reason = f"HTTP_{response.status}" + (f"_{code}" if code and response.status != 404 else "")
            raise Failure(reason, f"{path}: {envelope.get('message', 'refused')}")
        return envelope.get("data")

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    # --- speak

    async def listen(self, from_s: float, to_s: float) -> None:
        """Look attentive for a while."""
        await until(from_s)
        await self._send(b'{"type":"agent.start_listening"}')
        await until(to_s)
        await self._send(b'{"type":"agent.stop_listening"}')

    async def _begin(self, turn: Turn) -> None:
        self._by_id[turn.id] = turn
        self._packeted_bytes = 0

    async def _write(self, turn: Turn, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        wanted = _NEXT_BYTES if self._packeted_bytes else _FIRST_BYTES
        if self._gathered_bytes >= wanted:
            await self._flush(turn)

    async def _flush(self, turn: Turn) -> None:
        pcm = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        for at in range(0, len(pcm), _MOST_BYTES):
            packet = pcm[at : at + _MOST_BYTES]
            self._packeted_bytes += len(packet)
            self._unacked.append((turn, self._packeted_bytes))
            event_id, audio = turn.id.encode(), pybase64.b64encode(packet)
            await self._send(b'{"type":"agent.speak","event_id":"%b","audio":"%b"}' % (event_id, audio))

    async def _seal(self, turn: Turn) -> None:
        await self._flush(turn)
        await self._send(b'{"type":"agent.speak_end","event_id":"%b"}' % turn.id.encode())
        if turn.sent_bytes == 0:
            turn.end("completed")

    async def interrupt(self, turn: Turn, *, how: str = "") -> None:  # noqa: ARG002 - LiveAvatar has one way
        """Wait for the turn's moment and cut it, unless it is over before."""
        assert turn.interrupt_s is not None
        # What waits here was never given away: it is as if it had not been said.
        turn.sent_bytes -= self._gathered_bytes
        self._gathered.clear()
        self._gathered_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, turn.interrupt_s - time.monotonic())):
                await asyncio.shield(turn.over)
        turn.sealed = True
        if turn.fate is not None:
            return
        cut_id = f"cut-{turn.id}"
        self._cuts[cut_id] = asyncio.get_running_loop().create_future()
        await self._send(b'{"type":"agent.interrupt","event_id":"%b"}' % cut_id.encode())
        await self.waits.answer("interrupt carried out", self._cuts[cut_id], ANSWER_WITHIN_S)
        turn.end("interrupted")

    async def _send(self, frame: bytes) -> None:
        assert self._socket is not None
        try:
            await self._socket.send(frame, text=True)
        except websockets.ConnectionClosed as error:
            raise self.waits.failure or _closed(error) from error

    # --- what comes

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                self._on_event(_json(text), time.monotonic())
        except websockets.ConnectionClosed as error:
            self.waits.fail(_closed(error))
        else:
            if not self._ended:
                self.waits.fail(Failure(f"SOCKET_CLOSED_{socket.close_code}", "LiveAvatar closed the socket"))

    def _on_event(self, event: dict[str, Any], now_s: float) -> None:
        source = event.get("source_event_id") or event.get("event_id") or ""
        match event.get("type"):
            case "session.state_updated" if event.get("state") == "connected" and not self._connected.done():
                self._connected.set_result(None)
            case "agent.audio_buffer_appended" if self._unacked:
                turn, size_bytes = self._unacked.popleft()
                self._told_acked(turn, size_bytes, now_s)
            case "agent.speak_started" if source in self._by_id:
                self._told_started(self._by_id[source], now_s)
            case "agent.speak_ended" if source in self._by_id:
                self._by_id.pop(source).end("completed")
            case "agent.audio_buffer_cleared" if source in self._cuts and not self._cuts[source].done():
                self._cuts[source].set_result(None)
            case "error":
                kind = (event.get("error") or {}).get("type", "unknown")
                self.waits.fail(Failure(f"SOCKET_ERROR_{kind}", "LiveAvatar reported an error"))


def _closed(error: websockets.ConnectionClosed) -> Failure:
    code = error.rcvd.code if error.rcvd is not None else 1006
    return Failure(f"SOCKET_CLOSED_{code}", "the command socket was closed")


def _json(text: str | bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
