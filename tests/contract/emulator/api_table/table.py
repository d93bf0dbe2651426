"""Rows of the API table and the tools that write them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
WAYNE = "dd73ea75-1218-4ef3-92ce-606d5f7fbc0a"
EMBED_WAYNE = "65f9e3c9-d48b-4118-b73a-4ae2e3cbb8f0"
FOREIGN = "f0f0f0f0-0000-4000-8000-000000000403"
NOBODY = "00000000-0000-4000-8000-000000000000"
KEY = "emulator-key"
ABSENT = "(absent)"
SECRET = {
    "secret_type": "OPENAI_API_KEY",
    "secret_value": "sk-do-not-repeat-this",
    "secret_name": "For the connector",
}
PATIENCE_S = 15
SECOND = bytes(48_000)
"""A second of silence."""


class A:
    """Equals whatever its test says yes to; its name is what a failure shows."""

    def __init__(self, name: str, test: Callable[[Any], bool]) -> None:
        self.name = name
        self.test = test

    def __eq__(self, other: object) -> bool:
        return bool(self.test(other))

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<{self.name}>"


TEXT = A("a text", lambda value: isinstance(value, str) and value != "")


@dataclass(frozen=True, slots=True)
class Row:
    """A rule of a section: the observed value must equal the wanted value."""

    section: str
    rule: str
    wanted: Any
    see: Callable[["World"], Awaitable[Any]]

    @property
    def id(self) -> str:
        return f"{self.section} {self.rule}"


class Table:
    """Rows of one kind, in the order they were written."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, section: str, rule: str, see: Callable[["World"], Awaitable[Any]], wanted: Any) -> None:
        self.rows.append(Row(section, rule, wanted, see))

    def row(self, section: str, rule: str, wanted: Any) -> Callable[[Any], Any]:
        """The same as a decorator, for rows that take more than one line."""

        def keep(see: Callable[["World"], Awaitable[Any]]) -> Callable[["World"], Awaitable[Any]]:
            self.add(section, rule, see, wanted)
            return see

        return keep

    def answer(
        self, section: str, rule: str, call: Callable[["World"], Awaitable[httpx.Response]], **wanted: Any
    ) -> None:
        """A call and the parts of its answer: `status`, `header_…`, or a path such as `data__0__message`."""

        async def see(world: "World") -> dict[str, Any]:
            answer = await call(world)
            return {name: part(answer, name) for name in wanted}

        self.add(section, rule, see, wanted)


def part(answer: httpx.Response, name: str) -> Any:
    """Return a part of a response, or `(absent)`."""
    if name == "status":
        return answer.status_code
    if name == "body":
        return answer.json()
    if name == "text":
        return answer.text
    if name.startswith("header_"):
        return answer.headers.get(name.removeprefix("header_").replace("_", "-"), ABSENT)
    path = name.split("__")
    keys = path[-1] == "keys"
    found: Any = answer.json()
    for step in path[:-1] if keys else path:
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError):
            return ABSENT
    return sorted(found) if keys else found


def claims(token: str) -> dict[str, Any]:
    """Return the claims of a JWT."""
    middle = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))


class World:
    """The emulator under a clock that stands still, as a client and as its operator."""

    def __init__(self, emulator: Any) -> None:
        self.emulator = emulator
        self.http: httpx.AsyncClient = emulator.http
        self.knobs = emulator.knobs
        self.fault = emulator.fault
        self.recording = emulator.recording
        self.session = emulator.session
        self.start_with = emulator.start_with
        self.state = emulator.state

    async def advance(self, seconds: float) -> None:
        """Let time pass, and a hair more, so that sums of fractions reach what is due by then."""
        await self.emulator.advance(seconds + 1e-7)

    async def call(
        self, method: str, path: str, *, key: str | None = KEY, bearer: str | None = None, **request: Any
    ) -> httpx.Response:
        """Call /v1 with the given credentials."""
        headers = dict(request.pop("headers", {}))
        if key is not None:
            headers["X-API-KEY"] = key
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return await self.http.request(method, f"/v1{path}", headers=headers, **request)

    async def mint(self, *, key: str | None = KEY, without: str | None = None, **order: Any) -> httpx.Response:
        """Mint a LITE session; `without` names a field to leave out."""
        body = {"mode": "LITE", "avatar_id": AVATAR, **order}
        body.pop(without or "", None)
        return await self.call("POST", "/sessions/token", key=key, json=body)

    async def token(self, **order: Any) -> str:
        answer = await self.mint(**order)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["session_token"])

    async def start(self, *, knobs: dict[str, Any] | None = None, **order: Any) -> httpx.Response:
        """Mint and start, and the answer of the start."""
        if knobs:
            await self.knobs(**knobs)
        return await self.start_with(await self.token(**order))

    async def stopped(self, *, key: str | None = None, **body: Any) -> dict[str, Any]:
        """The historic entry of a session that ran 250 s and was then stopped with this body."""
        session = await self.session()
        await self.keep_for(session, 250)
        sent = {"json": body} if body else {}
        bearer = None if key else session.token
        answer = await self.call("POST", "/sessions/stop", key=key, bearer=bearer, **sent)
        assert answer.status_code == 200, answer.text
        return await self.entry(session)

    async def keep_for(self, session: Any, seconds: float) -> None:
        """Let time pass with a socket attached and no idle limit reached."""
        async with self.emulator.socket(session) as socket:
            await socket.until("session.state_updated")
            await self.advance(seconds)

    async def entry(self, session: Any) -> dict[str, Any]:
        return dict((await self.call("GET", f"/sessions/{session.id}")).json()["data"])

    async def credits(self) -> str:
        return str((await self.call("GET", "/users/credits")).json()["data"]["credits_left"])

    async def own_avatar(self, number: int = 0) -> dict[str, Any]:
        """Return the n-th of five custom avatars."""
        await self.knobs(own_avatars=5)
        return dict((await self.call("GET", "/avatars")).json()["data"]["results"][number])

    async def secret(self, *, without: str | None = None, **fields: Any) -> httpx.Response:
        """Store a provider's key."""
        body = {**SECRET, **fields}
        body.pop(without or "", None)
        return await self.call("POST", "/secrets", json=body)

    @asynccontextmanager
    async def talk(self, *, ready: bool = True, knobs: dict[str, Any] | None = None) -> AsyncIterator["Talk"]:
        """A session with an attached socket, by default connected; its first events are read already."""
        if knobs:
            await self.knobs(**knobs)
        session = await self.session()
        async with self.emulator.socket(session) as socket:
            talk = Talk(self, session, socket)
            await socket.until("session.state_updated")
            if ready:
                await talk.pass_(2.5)
                socket.events.clear()
            yield talk


class Talk:
    """A session and its socket under a clock that stands still: what is sent has arrived before time moves on."""

    def __init__(self, world: World, session: Any, socket: Any) -> None:
        self.world = world
        self.session = session
        self.socket = socket
        self._sent: int | None = None

    async def send(self, kind: str, **fields: Any) -> None:
        await self.raw(json.dumps({"type": kind, **fields}))

    async def raw(self, *frames: str | bytes) -> None:
        """Send frames and wait until the emulator has taken them."""
        if self._sent is None:
            self._sent = (await self.recording())["command_count"]
        for frame in frames:
            await self.socket.connection.send(frame)
            self._sent += 1
        async with asyncio.timeout(PATIENCE_S):
            while (await self.recording())["command_count"] < self._sent:
                pass

    async def speak(self, pcm: bytes = SECOND, event_id: str | None = "u1") -> None:
        await self.raw(chunk(pcm, event_id))

    async def sentence(self, event_id: str = "u1", seconds: int = 1) -> None:
        """An utterance of so many one-second chunks, sealed."""
        seal = json.dumps({"type": "agent.speak_end", "event_id": event_id})
        await self.raw(*[chunk(SECOND, event_id)] * seconds, seal)

    async def pass_(self, seconds: float) -> None:
        """Let time pass, and read what came of it."""
        await self.world.advance(seconds)
        await self.read()

    async def read(self) -> list[dict[str, Any]]:
        """All events so far."""
        path = f"/_emulator/sessions/{self.session.id}/inject"
        answer = await self.world.http.post(path, json={"type": "probe"})
        assert answer.status_code == 204, answer.text
        await self.socket.until("probe")
        self.socket.events.pop()
        return list(self.socket.events)

    async def types(self) -> list[str]:
        """Events so far, in short."""
        return [short(event) for event in await self.read()]

    async def event(self, kind: str) -> dict[str, Any]:
        """The first event of a type so far, `{}` when there is none."""
        return next((event for event in await self.read() if event["type"] == kind), {})

    async def recording(self) -> dict[str, Any]:
        return dict(await self.world.recording(self.session))


def chunk(pcm: bytes, event_id: str | None) -> str:
    """An `agent.speak` frame."""
    audio = base64.b64encode(pcm).decode()
    return json.dumps({"type": "agent.speak", "event_id": event_id, "audio": audio})


def short(event: dict[str, Any]) -> str:
    """An event's type, and the state it tells of."""
    kind = str(event["type"]).removeprefix("agent.").removeprefix("session.")
    if kind == "state_updated":
        return f"{event['previous_state']}→{event['new_state']}" if "new_state" in event else str(event["state"])
    return kind
