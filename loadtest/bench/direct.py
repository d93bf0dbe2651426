"""The sender without a gateway: what talking to LiveAvatar costs at the least.

It mints and starts its sessions over REST and sends prebuilt packets over their WebSockets, on a timer of its
own in place of a caller: no calls to serve, nothing to gather, encode or decide.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pybase64
import uvloop
import websockets
from websockets.asyncio.client import ClientConnection

from bench.settings import AVATAR_ID, BYTE_RATE
from bench.speech import Spoken, SpokenSession, Write, noise, say_ready, stop_signal

_OPENING = 8
"""Sessions that are started at the same time."""
_OPEN_WITHIN_S = 30.0
_END = '{"type":"agent.speak_end"}'


class Sender:
    """One session that talks until it is cancelled."""

    def __init__(self, client: httpx.AsyncClient, api_key: str, cuts_ms: list[int]) -> None:
        """Prepare a sender.

        Args:
            client: For REST.
            api_key: Of the account.
            cuts_ms: Lengths of the packets of each utterance.
        """
        self._client = client
        self._api_key = api_key
        self._cuts_ms = cuts_ms
        self._utterance_bytes = sum(cuts_ms) * BYTE_RATE // 1000
        self._frames = {ms: _speak(noise(ms)) for ms in set(cuts_ms)}
        self._token = ""
        self._ws_url = ""
        self.spoken = SpokenSession("")
        self.problems: list[str] = []
        self.talks = asyncio.Event()

    async def open(self) -> None:
        """Mint and start the session."""
        minted = await self._client.post(
            "/v1/sessions/token",
            headers={"X-API-KEY": self._api_key},
            json={"mode": "LITE", "avatar_id": AVATAR_ID},
        )
        self._token = minted.raise_for_status().json()["data"]["session_token"]
        started = await self._client.post("/v1/sessions/start", headers={"Authorization": f"Bearer {self._token}"})
        data = started.raise_for_status().json()["data"]
        self._ws_url = data["ws_url"]
        self.spoken = SpokenSession(data["session_id"])

    async def end(self) -> None:
        """Stop the session, as well as that goes."""
        with contextlib.suppress(httpx.HTTPError):
            await self._client.post("/v1/sessions/stop", headers={"Authorization": f"Bearer {self._token}"})

    async def talk(self, start_s: float) -> None:
        """Speak from a moment on, once the avatar is ready. What goes wrong is noted in `problems`."""
        try:
            async with websockets.connect(self._ws_url, compression=None, ping_interval=None) as socket:
                await asyncio.wait_for(_connected(socket), _OPEN_WITHIN_S)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen(socket))
                    tasks.create_task(self._speak(socket, max(start_s, time.monotonic())))
        except* (OSError, TimeoutError, websockets.WebSocketException) as errors:
            self.problems.extend(f"session {self.spoken.upstream_id}: {error!r}" for error in errors.exceptions)
        finally:
            self.talks.set()

    async def _listen(self, socket: ClientConnection) -> None:
        """Take what comes back, as a sender must."""
        async for _event in socket:
            pass
        self.problems.append(f"session {self.spoken.upstream_id}: the socket was closed")

    async def _speak(self, socket: ClientConnection, start_s: float) -> None:
        for due_s, utterance, end_byte, frame in self._schedule(start_s):
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self.spoken.writes.append(Write(utterance, end_byte, due_s, time.monotonic()))
            await socket.send(frame)
            if end_byte == self._utterance_bytes:
                await socket.send(_END)
            self.talks.set()

    def _schedule(self, start_s: float) -> Iterator[tuple[float, int, int, str]]:
        """When each packet is due (as soon as a real-time source has given it), with its place and its frame."""
        utterance, due_s = 0, start_s
        while True:
            end_byte = 0
            for ms in self._cuts_ms:
                due_s += ms / 1000
                end_byte += BYTE_RATE * ms // 1000
                yield due_s, utterance, end_byte, self._frames[ms]
            utterance += 1


def cuts_ms(*, utterance_ms: int, first_ms: int, packet_ms: int) -> list[int]:
    """Cut an utterance into packets; the last is what is left."""
    cuts = [min(first_ms, utterance_ms)]
    while (left_ms := utterance_ms - sum(cuts)) > 0:
        cuts.append(min(packet_ms, left_ms))
    return cuts


def _speak(pcm: bytes) -> str:
    return orjson.dumps({"type": "agent.speak", "audio": pybase64.b64encode(pcm).decode()}).decode()


async def _connected(socket: ClientConnection) -> None:
    """Wait until the avatar takes commands."""
    async for text in socket:
        event = orjson.loads(text)
        if event.get("type") == "session.state_updated" and event.get("state") == "connected":
            return


async def run(options: argparse.Namespace) -> None:
    """Open all sessions, talk until SIGTERM, leave the result file."""
    stop = stop_signal()
    cuts = cuts_ms(
        utterance_ms=options.utterance_ms, first_ms=options.first_packet_ms, packet_ms=options.packet_ms
    )
    async with httpx.AsyncClient(base_url=options.url, timeout=_OPEN_WITHIN_S) as client:
        senders = [Sender(client, options.api_key, cuts) for _ in range(options.sessions)]
        limit = asyncio.Semaphore(_OPENING)

        async def open_one(sender: Sender) -> None:
            async with limit:
                await sender.open()

        async with asyncio.TaskGroup() as tasks:
            for sender in senders:
                tasks.create_task(open_one(sender))
        async with asyncio.TaskGroup() as tasks:
            now_s = time.monotonic() + 1.0
            talking = [
                tasks.create_task(sender.talk(now_s + options.stagger_s * number / len(senders)))
                for number, sender in enumerate(senders)
            ]
            for sender in senders:
                await sender.talks.wait()
            say_ready(options.ready_file)
            await stop.wait()
            problems = [problem for sender in senders for problem in sender.problems]
            for task in talking:
                task.cancel()
        Spoken([sender.spoken for sender in senders], problems).save(options.result_file)
        for sender in senders:
            await sender.end()


def main() -> None:
    """Run as a process of its own: `python -m bench.direct`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--utterance-ms", type=int, required=True)
    parser.add_argument("--first-packet-ms", type=int, required=True)
    parser.add_argument("--packet-ms", type=int, required=True)
    parser.add_argument("--stagger-s", type=float, required=True)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--result-file", type=Path, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
