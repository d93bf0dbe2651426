"""LiveAvatar's side: answers truly, unless the case of a session or of a client says what to answer."""

import asyncio
import contextlib
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeGuard

import orjson
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from fuzz.events import INTERRUPT, SPEECH

_BURST: Final = 24
"""Frames that are sent at once."""
_BURST_S: Final = 0.002
_DIRECT: Final = "direct"
"""First part of the paths of clients that are not the gateway."""


@dataclass(slots=True)
class Script:
    """Words of the upstream for one avatar or client."""

    answers: dict[str, deque[dict[str, Any]]] = field(default_factory=lambda: defaultdict(deque))
    """Answers by endpoint; a true one is given when there is none."""
    frames: deque[dict[str, Any]] = field(default_factory=deque)
    """Frames of the command socket."""
    is_polite: bool = True
    """True to confirm each command too."""
    sent: int = 0
    """Answers and frames that have been sent."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all frames have been sent."""

    @classmethod
    def of(cls, steps: Iterable[Mapping[str, Any]], *, polite: bool = True) -> Self:
        """Read the steps of a case."""
        script = cls(is_polite=polite)
        for step in steps:
            if "endpoint" in step:
                script.answers[step["endpoint"]].append(dict(step))
            else:
                script.frames.append(dict(step))
        return script


@dataclass(slots=True)
class _Session:
    script: Script
    is_running: bool = False
    is_stopped: bool = False
    may_be_lost: bool = False
    """True if the gateway was not told its true id."""
    sockets: list[asyncio.StreamWriter] = field(default_factory=list)


class Upstream:
    """REST and command sockets on two ports of 127.0.0.1."""

    def __init__(self) -> None:
        self.url = ""
        self.scripts: dict[str, Script] = {}
        """By avatar, and by the name of a client."""
        self._ws_port = 0
        self._sessions: dict[str, _Session] = {}
        self._polite = Script()

    @property
    def running(self) -> list[str]:
        """Sessions that are billed, and that nobody has asked to stop."""
        return [
            name
            for name, one in self._sessions.items()
            if one.is_running and not one.is_stopped and not one.may_be_lost
        ]

    def client_url(self, name: str) -> str:
        """Return the address for a client of its own script."""
        return f"{self.url}/{_DIRECT}/{name}"

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Serve until the end of the block."""
        rest = await asyncio.start_server(self._rest, "127.0.0.1", 0)
        sockets = await asyncio.start_server(self._socket, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{rest.sockets[0].getsockname()[1]}"
        self._ws_port = sockets.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            rest.close()
            sockets.close()

    # --- REST

    async def _rest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, target, _ = lines[0].split(" ", 2)
                answer, keep = self._answer(method, target, headers, body)
                writer.write(answer)
                await writer.drain()
                if not keep:
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[bytes, bool]:
        """Return the bytes of an answer, and whether the connection stays open."""
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        client = None
        if parts[0] == _DIRECT:
            client, parts = self.scripts.get(parts[1], self._polite), parts[2:]
        endpoint, session_id = self._endpoint(parts, query, headers, body)
        session = self._sessions.get(session_id)
        script = client or (session.script if session is not None else self._polite)
        if endpoint == "stop" and session is not None:
            self._stop(session)
        answers = script.answers[endpoint]
        if answers:
            answer = answers.popleft()
            script.sent += 1
            if session is not None:
                if endpoint == "token":
                    session.may_be_lost = True
                # A refusal is no start; anything else may be, and the gateway has to stop it.
                if endpoint == "start" and not 400 <= answer["status"] < 500:
                    self._run(session)
            # What is left of an answer that no client reads to its end must not answer the next request.
            is_whole = answer["status"] in (200, 201) and not answer.get("headers") and "ending" not in answer
            return self._raw(answer, session_id), is_whole
        if endpoint == "start" and session is not None:
            self._run(session)
        status, data = self._truth(endpoint, session_id, session)
        content = orjson.dumps({"code": 1000, "data": data, "message": "Success" if status < 300 else "Not found"})
        return b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content), True

    def _endpoint(self, parts: list[str], query: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
        """Return the name of an endpoint, and the session that a request is about."""
        last = parts[-1]
        values: Any = {}
        if body:
            with contextlib.suppress(orjson.JSONDecodeError):
                values = orjson.loads(body)
        match last:
            case "token":
                session_id = str(uuid.uuid4())
                script = self.scripts.get(values.get("avatar_id", ""), self._polite)
                self._sessions[session_id] = _Session(script)
                return "token", session_id
            case "start":
                return "start", headers.get("authorization", "").removeprefix("Bearer t-")
            case "stop" | "keep-alive":
                return last, str(values.get("session_id", ""))
            case "sessions":
                return "active", ""
            case "avatars" | "public" | "credits":
                return last, ""
            case _:
                return "status", last

    def _truth(self, endpoint: str, session_id: str, session: _Session | None) -> tuple[int, Any]:
        page = {"count": 0, "next": None, "previous": None}
        match endpoint:
            case "token":
                return 200, {"session_id": session_id, "session_token": f"t-{session_id}"}
            case "active":
                return 200, {**page, "results": [{"id": name} for name in self.running]}
            case "avatars" | "public":
                return 200, {**page, "results": []}
            case "credits":
                return 200, {"credits_left": "999.00"}
        if session is None:
            return 404, None
        match endpoint:
            case "start":
                room = {"livekit_url": "wss://rooms.example.com", "livekit_client_token": "v"}
                return 201, {"session_id": session_id, "ws_url": self._ws_url(session_id), **room}
            case "status":
                over = (
                    {"end_at": "2026-11-30T09:00:00Z", "end_reason": "USER_CLOSED"} if session.is_stopped else {}
                )
                return 200, {"id": session_id, **over}
        return 200, None

    def _raw(self, answer: Mapping[str, Any], session_id: str) -> bytes:
        if answer.get("ending") == "nothing":
            return b""
        content = bytes(answer["body"])
        for name, value in (
            ("{id}", session_id),
            ("{token}", f"t-{session_id}"),
            ("{ws}", self._ws_url(session_id)),
        ):
            content = content.replace(name.encode(), value.encode())
        head = [f"HTTP/1.1 {answer['status']} Said", *answer.get("headers", ())]
        if answer.get("ending") != "short":
            head.append(f"Content-Length: {len(content)}")
        else:
            head.append(f"Content-Length: {len(content) + 10}")
        return "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + content

    def _run(self, session: _Session) -> None:
        session.is_running = True

    def _stop(self, session: _Session) -> None:
        session.is_stopped = True
        for writer in session.sockets:
            writer.close()
        session.sockets.clear()

    def forget_stopped(self) -> None:
        """Drop what need not be known any longer."""
        gone = [name for name, one in self._sessions.items() if one.is_stopped or not one.is_running]
        for name in gone[:-2000]:
            del self._sessions[name]

    def _ws_url(self, session_id: str) -> str:
        return f"ws://127.0.0.1:{self._ws_port}/{session_id}"

    # --- command sockets

    async def _socket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = _Said()
        try:
            await self._serve_socket(reader, writer, said)
        except (OSError, EOFError):
            pass
        finally:
            if said.speaker is not None:
                said.speaker.cancel()
            if said.session is not None and writer in said.session.sockets:
                said.session.sockets.remove(writer)
            writer.close()

    async def _serve_socket(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: "_Said"
    ) -> None:
        protocol = ServerProtocol(max_size=2**21)
        while data := await reader.read(2**16):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    said.session = self._connected(protocol, event, writer)
                    if said.session is None:
                        return
                    if said.session.script.frames:
                        said.speaker = asyncio.create_task(_speak(writer, said.session.script, said))
                elif said.session is not None and _is_text(event):
                    _obey(protocol, said.session.script, bytes(event.data), said)
            writer.write(b"".join(protocol.data_to_send()))
            if protocol.close_expected() or writer.is_closing():
                return
            await writer.drain()

    def _connected(
        self, protocol: ServerProtocol, request: Request, writer: asyncio.StreamWriter
    ) -> _Session | None:
        """Accept a socket; returns the session of its address."""
        session = self._sessions.get(request.path.strip("/"))
        if session is not None:
            protocol.send_response(protocol.accept(request))
            session.sockets.append(writer)
            connected = {"type": "session.state_updated", "event_id": "s", "state": "connected"}
            protocol.send_text(orjson.dumps(connected))
        return session


@dataclass(slots=True)
class _Said:
    """State of a socket: its session, and the commands that it received."""

    speech: str = "none"
    interrupt: str = "none"
    is_talking: bool = False
    session: _Session | None = None
    speaker: asyncio.Task[None] | None = None


def _is_text(event: object) -> TypeGuard[Frame]:
    return isinstance(event, Frame) and event.opcode is Opcode.TEXT


def _obey(protocol: ServerProtocol, script: Script, data: bytes, said: _Said) -> None:
    """Confirm a command, if the script is polite."""
    command = orjson.loads(data)
    kind, name = command["type"], command.get("event_id")
    if kind == "agent.interrupt":
        said.interrupt = name
    elif kind == "agent.speak":
        said.speech = name
    if not script.is_polite or protocol.state.name != "OPEN":
        return
    events: list[tuple[str, dict[str, Any]]] = []
    if kind == "agent.speak":
        events.append(("agent.audio_buffer_appended", {"task": {"id": "t"}}))
        if not said.is_talking:
            said.is_talking = True
            events.append(("agent.speak_started", {}))
    elif kind == "agent.speak_end":
        said.is_talking = False
        events += [("agent.audio_buffer_committed", {}), ("agent.speak_ended", {})]
    elif kind == "agent.interrupt":
        said.is_talking = False
        events.append(("agent.audio_buffer_cleared", {}))
    for event, fields in events:
        protocol.send_text(orjson.dumps({"type": event, "event_id": "s", "source_event_id": name, **fields}))


async def _speak(writer: asyncio.StreamWriter, script: Script, said: _Said) -> None:
    """Send the frames of a script; a next socket continues where this one was closed."""
    while script.frames and not writer.is_closing():
        out = bytearray()
        for _ in range(min(_BURST, len(script.frames))):
            out += _wire(script.frames.popleft(), said)
            script.sent += 1
        writer.write(bytes(out))
        with contextlib.suppress(OSError):
            await writer.drain()
        await asyncio.sleep(_BURST_S)
    if not script.frames:
        script.finished.set()


def _wire(step: Mapping[str, Any], said: _Said) -> bytes:
    """Return the bytes of a frame, whatever a library would say to it."""
    data = bytes(step["data"])
    if b"{" in data:
        data = data.replace(SPEECH.encode(), said.speech.encode()).replace(
            INTERRUPT.encode(), said.interrupt.encode()
        )
    first = bytes([step.get("fin", True) << 7 | step.get("rsv", 0) << 4 | step["opcode"]])
    if len(data) < 126:
        return first + bytes([len(data)]) + data
    if len(data) < 65_536:
        return first + b"\x7e" + len(data).to_bytes(2, "big") + data
    return first + b"\x7f" + len(data).to_bytes(8, "big") + data
