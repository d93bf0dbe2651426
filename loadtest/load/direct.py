"""A session with LiveAvatar itself, over REST and its command socket: what the gateway is compared with.

It cuts packets as a careful client does: 400 ms first, because that sets the time to the first word, then all
audio so far, at least 200 ms and at most a second.

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
from load.session import ANSWER_WITHIN_S, OPEN_WITHIN_S, Failure, Session, Utterance, deadline, until
from load.speech import BYTE_RATE, Voice

_FIRST_BYTES: Final = BYTE_RATE * 4 // 10
_NEXT_BYTES: Final = BYTE_RATE * 2 // 10
_MOST_BYTES: Final = BYTE_RATE
_EVENTS_BYTES: Final = 1 << 20


class DirectSession(Session):
    """Session with LiveAvatar itself."""

    system: System = "direct"

    def __init__(self, http: aiohttp.ClientSession, api_key: str, recorder: LoadRecorder, voice: Voice) -> None:
        """Prepare it.

        Args:
            http: HTTP client with LiveAvatar's address as base.
            api_key: API key of the account.
            recorder: Recorder of the measurements.
            voice: Source of speech.
        """
        super().__init__(recorder, voice)
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
        self._unacked: deque[tuple[Utterance, int]] = deque()
        self._by_id: dict[str, Utterance] = {}
        self._cuts: dict[str, asyncio.Future[None]] = {}
        self._opened_s = 0.0

    async def open(self) -> None:
        """Mint, start, connect, and wait for `connected`: commands before it vanish."""
        async with deadline("session open", OPEN_WITHIN_S):
            request = {"mode": "LITE", "avatar_id": AVATAR_ID}
            minted = await self._post("/v1/sessions/token", {"X-API-KEY": self._api_key}, request)
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
                # A session that failed before is counted already.
                if self.waits.failure is None:
                    self.recorder.failed(self.system, f"END: {failure.reason}", took_s=0.0)
        if self._socket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await self._socket.close()
            self.recorder.record(self.system, "stream lifetime", time.monotonic() - self._opened_s)
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

    async def listen(self, from_s: float, to_s: float) -> None:
        """Show the listening pose for a time."""
        await until(from_s)
        await self._send(b'{"type":"agent.start_listening"}')
        await until(to_s)
        await self._send(b'{"type":"agent.stop_listening"}')

    async def _begin(self, utterance: Utterance) -> None:
        self._by_id[utterance.id] = utterance
        self._packeted_bytes = 0

    async def _write(self, utterance: Utterance, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        wanted = _NEXT_BYTES if self._packeted_bytes else _FIRST_BYTES
        if self._gathered_bytes >= wanted:
            await self._flush(utterance)

    async def _flush(self, utterance: Utterance) -> None:
        pcm = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        for at in range(0, len(pcm), _MOST_BYTES):
            packet = pcm[at : at + _MOST_BYTES]
            self._packeted_bytes += len(packet)
            self._unacked.append((utterance, self._packeted_bytes))
            event_id, audio = utterance.id.encode(), pybase64.b64encode(packet)
            await self._send(b'{"type":"agent.speak","event_id":"%b","audio":"%b"}' % (event_id, audio))

    async def _seal(self, utterance: Utterance) -> None:
        await self._flush(utterance)
        await self._send(b'{"type":"agent.speak_end","event_id":"%b"}' % utterance.id.encode())
        if utterance.sent_bytes == 0:
            utterance.end("completed")

    async def interrupt(self, utterance: Utterance, *, how: str = "") -> None:  # noqa: ARG002 - LiveAvatar has one way
        """Wait for the utterance's `interrupt_s` and interrupt it, unless it ends before."""
        assert utterance.interrupt_s is not None
        # Audio that was gathered but not sent does not count as spoken.
        utterance.sent_bytes -= self._gathered_bytes
        self._gathered.clear()
        self._gathered_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, utterance.interrupt_s - time.monotonic())):
                await asyncio.shield(utterance.over)
        utterance.sealed = True
        if utterance.outcome is not None:
            return
        cut_id = f"cut-{utterance.id}"
        self._cuts[cut_id] = asyncio.get_running_loop().create_future()
        await self._send(b'{"type":"agent.interrupt","event_id":"%b"}' % cut_id.encode())
        await self.waits.answer("interrupt carried out", self._cuts[cut_id], ANSWER_WITHIN_S)
        utterance.end("interrupted")

    async def _send(self, frame: bytes) -> None:
        assert self._socket is not None
        try:
            await self._socket.send(frame, text=True)
        except websockets.ConnectionClosed as error:
            raise self.waits.failure or _closed(error) from error

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
                utterance, size_bytes = self._unacked.popleft()
                self._note_acked(utterance, size_bytes, now_s)
            case "agent.speak_started" if source in self._by_id:
                self._note_started(self._by_id[source], now_s)
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
