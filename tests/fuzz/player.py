"""Player of cases: gives their inputs to a gateway, and judges each answer."""

import asyncio
import contextlib
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fuzz.cases import STREAMS, Case
from fuzz.messages import AVATAR, HANDLE, SESSION
from fuzz.upstream import Script, Upstream
from liveavatar.gateway.v1 import admin_service_pb2, session_service_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.rpc.errors import CODES, DOMAIN
from liveavatar_gateway.upstream.model import AvatarRequest
from liveavatar_gateway.upstream.rest import Rest, RestConfig

CALL_TIMEOUT_S: Final = 20.0
"""Longest time that any answer may take; only a gateway that hangs takes as long."""
_STREAM_S: Final = 3.0
"""Time after which the caller leaves a stream that has not ended by itself."""
_TYPED: Final = {code for error, code in CODES.items() if error.reason != "INTERNAL"}
_OF_GRPC: Final = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
"""Statuses that gRPC itself gives to a caller that leaves, and to one whose gateway is gone."""
_CONTROL: Final = (
    session_service_pb2.SessionCommand(id="c1", interrupt=session_service_pb2.Interrupt()),
    session_service_pb2.SessionCommand(id="c2", pause=session_service_pb2.Pause()),
    session_service_pb2.SessionCommand(id="c3", continue_speech=session_service_pb2.ContinueSpeech()),
    session_service_pb2.SessionCommand(id="c4", pause=session_service_pb2.Pause()),
    session_service_pb2.SessionCommand(id="c5", interrupt=session_service_pb2.Interrupt()),
)
"""Commands of the caller while events are played."""
_SESSION_ENDED: Final = int(grpc.StatusCode.FAILED_PRECONDITION.value[0])
_TRANSPORT: Final = "Internal error from Core"
"""Message of grpc.aio for a write into a stream that ends meanwhile."""
_DRAIN: Final = "/liveavatar.gateway.v1.AdminService/Drain"
_UNDRAIN: Final = "/liveavatar.gateway.v1.AdminService/Undrain"
_HEALTH: Final = "/grpc.health.v1.Health/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Thing that must not happen."""

    problem: str
    """Short, and the same each time that it happens."""
    detail: str = ""
    cases: tuple[Case, ...] = ()
    """Cases of which one has found it."""


@dataclass(slots=True)
class Tally:
    """Numbers of a run."""

    inputs: Counter[str] = field(default_factory=Counter)
    """Inputs by kind."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by reason, or by status where gRPC itself answered."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of all inputs."""
        return self.inputs.total()

    def find(self, problem: str, detail: str = "", *cases: Case) -> None:
        """Note a finding; one that is known already is only counted."""
        self.statuses[f"FINDING {problem}"] += 1
        if all(one.problem != problem for one in self.findings):
            self.findings.append(Finding(problem=problem, detail=detail, cases=cases))


class Player:
    """Caller and judge. Closed by its creator."""

    def __init__(self, address: str, admin_address: str, upstream: Upstream, tally: Tally) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self._admin = grpc.aio.insecure_channel(admin_address, options=options)
        self._upstream = upstream
        self._tally = tally
        self._calls: dict[tuple[str, bool], Any] = {}
        self._clients: list[tuple[str, Rest]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for _name, client in self._clients:
            await client.aclose()
        await self._channel.close()
        await self._admin.close()

    async def play(self, case: Case) -> None:
        """Give all inputs of a case to the gateway; what is wrong is in the tally."""
        players: Mapping[str, Callable[[Case], Awaitable[None]]] = {
            "streams": self._play_streams,
            "unary": self._play_unary,
            "events": self._play_events,
            "rest": self._play_rest,
            "files": self._play_files,
        }
        await players[case.kind](case)

    # --- kinds

    async def _play_streams(self, case: Case) -> None:
        async with self._session(case) as names:
            if names is None:
                return
            turns: dict[str, list[list[bytes]]] = {}
            for step in case.steps:
                turns.setdefault(step["stream"], []).append(step["messages"])

            async def follow(stream: str) -> None:
                for messages in turns[stream]:
                    await self._stream(case, stream, [names(one) for one in messages])

            async with asyncio.TaskGroup() as tasks:
                for stream in turns:
                    tasks.create_task(follow(stream))

    async def _play_unary(self, case: Case) -> None:
        async with self._session(case) as names:
            if names is None:
                return
            for step in case.steps:
                path, message = step["method"], names(step["message"])
                self._tally.inputs[case.kind] += 1
                answer = await self._unary(case, path, message)
                if path == _DRAIN and answer is not None:
                    await self._unary(case, _UNDRAIN, b"")

    async def _play_events(self, case: Case) -> None:
        script = Script.of(case.steps, polite=case.polite)
        async with self._session(case, script) as names:
            if names is None:
                return
            header = audio.StreamAudioRequest(header=audio.AudioHeader(session_id=SESSION))
            speech = [names(header.SerializeToString())]
            for number in range(4):
                begin = audio.BeginUtterance(utterance_id=f"u{number}")
                speech.append(audio.StreamAudioRequest(begin=begin).SerializeToString())
                chunk = audio.StreamAudioRequest(chunk=audio.AudioChunk(audio=bytes(1920 * 5)))
                speech += [chunk.SerializeToString()] * 3
                speech.append(audio.StreamAudioRequest(end=audio.EndUtterance()).SerializeToString())
            resume = session_service_pb2.ResumeSession(handle=HANDLE)
            control = [
                names(session_service_pb2.AttachRequest(resume=resume).SerializeToString()),
                *[session_service_pb2.AttachRequest(command=one).SerializeToString() for one in _CONTROL],
            ]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._stream(case, STREAMS["StreamAudio"], speech, counts=False))
                tasks.create_task(self._stream(case, STREAMS["Attach"], control, counts=False, pause_s=0.01))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(script.finished.wait(), _STREAM_S)
        self._tally.inputs[case.kind] += script.sent

    async def _play_rest(self, case: Case) -> None:
        script = Script.of(case.steps[1:])
        if case.steps[0]["through"] == "client":
            await self._ask(case, script)
        else:
            # A refused session is as good as one that opens: its answers have been read.
            async with self._session(case, script):
                pass
        self._tally.inputs[case.kind] += script.sent

    async def _ask(self, case: Case, script: Script) -> None:
        """Let the REST client of the gateway read the answers of a script."""
        name, client = self._clients.pop() if self._clients else self._client()
        self._upstream.scripts[name] = script
        minted = AvatarRequest(avatar_id=AVATAR)
        calls: Mapping[str, Callable[[], Awaitable[Any]]] = {
            "token": lambda: client.mint(minted),
            "stop": lambda: client.stop("s", "USER_CLOSED"),
            "status": lambda: client.remote_status("s"),
            "credits": client.credits_left,
            "active": client.active,
            "avatars": client.avatars,
        }
        try:
            for step in case.steps[1:]:
                call = calls.get(step["endpoint"])
                if call is None:
                    continue
                try:
                    await call()
                except GatewayError as error:
                    self._tally.statuses[f"REST {error.reason}"] += 1
                except Exception as error:  # noqa: BLE001 - any other error would be a fault of the gateway
                    self._tally.find(f"{type(error).__name__} of the REST client", repr(error), case)
        finally:
            self._clients.append((name, client))

    def _client(self) -> tuple[str, Rest]:
        name = str(uuid.uuid4())
        config = RestConfig(base_url=self._upstream.client_url(name), attempts=1, timeout_s=2.0)
        return name, Rest(config, "key")

    async def _play_files(self, case: Case) -> None:
        async with self._session(case, Script()) as names:
            if names is None:
                return
            header = audio.StreamAudioRequest(header=audio.AudioHeader(session_id=SESSION))
            messages = [names(header.SerializeToString())]
            for number, step in enumerate(case.steps):
                begin = audio.BeginUtterance(utterance_id=f"u{number}")
                messages.append(audio.StreamAudioRequest(begin=begin).SerializeToString())
                messages += [
                    audio.StreamAudioRequest(chunk=audio.AudioChunk(audio=chunk)).SerializeToString()
                    for chunk in step["chunks"]
                ]
                messages.append(audio.StreamAudioRequest(end=audio.EndUtterance()).SerializeToString())
            answers: list[bytes] = []
            code = await self._stream(
                case, STREAMS["StreamAudio"], messages, counts=False, answers=answers, within_s=CALL_TIMEOUT_S
            )
            if code is grpc.StatusCode.INVALID_ARGUMENT:
                self._tally.find("a file ends its stream", "", case)
            if code is grpc.StatusCode.OK and (wrong := _without_one_end(answers, len(case.steps))):
                self._tally.find("utterances without one end", ", ".join(wrong), case)
            self._tally.inputs[case.kind] += len(case.steps)

    # --- calls

    @contextlib.asynccontextmanager
    async def _session(
        self, case: Case, script: Script | None = None
    ) -> AsyncIterator[Callable[[bytes], bytes] | None]:
        """Open a session and end it; yields what puts its names into an input, or None if it is refused."""
        avatar = str(uuid.UUID(int=random.getrandbits(128), version=4))
        self._upstream.scripts[avatar] = script or Script(is_polite=case.polite)
        spec = {"avatar_id": avatar, "labels": {"team": "a"}}
        open_session = session_service_pb2.AttachRequest(open=session_service_pb2.OpenSession(spec=spec))
        call = self._method(STREAMS["Attach"])()
        reading = None
        try:
            session_id, handle = await self._opened(case, call, open_session.SerializeToString())
            if handle:
                reading = asyncio.create_task(_drain(call))

            def names(data: bytes) -> bytes:
                for placeholder, value in ((HANDLE, handle), (SESSION, session_id), (AVATAR, avatar)):
                    if value:
                        data = data.replace(placeholder.encode(), value.encode())
                return data

            yield names if handle else None
        finally:
            call.cancel()
            if reading is not None:
                await reading
                end = session_service_pb2.EndSessionRequest(session_id=session_id)
                path = "/liveavatar.gateway.v1.SessionService/EndSession"
                await self._unary(case, path, end.SerializeToString())
            self._upstream.scripts.pop(avatar, None)

    async def _opened(self, case: Case, call: Any, message: bytes) -> tuple[str, str]:
        """Send the first message of an `Attach`; returns session and handle, empty if it is refused."""
        try:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(message)
                data = await asyncio.wait_for(call.read(), CALL_TIMEOUT_S)
                if data is not grpc.aio.EOF:
                    opened = session_service_pb2.AttachResponse.FromString(data).opened
                    return opened.session.id, opened.handle
        except TimeoutError:
            self._tally.find("no answer to an open", "", case)
            call.cancel()
        path = STREAMS["Attach"]
        self._judge(case, path, await call.code(), await call.trailing_metadata(), await call.details())
        return "", ""

    async def _stream(
        self,
        case: Case,
        path: str,
        messages: Iterable[bytes],
        *,
        counts: bool = True,
        pause_s: float = 0,
        answers: list[bytes] | None = None,
        within_s: float = _STREAM_S,
    ) -> grpc.StatusCode:
        """Send messages on a stream, and judge its end; what is answered is put into `answers`."""
        call = self._method(path)()
        reading = asyncio.create_task(_drain(call, answers))
        try:
            async with asyncio.timeout(within_s):
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    for message in messages:
                        await call.write(message)
                        self._tally.inputs[case.kind] += counts
                        if pause_s:
                            await asyncio.sleep(pause_s)
                    await call.done_writing()
                await asyncio.shield(reading)
        except TimeoutError:
            call.cancel()
            await reading
        code: grpc.StatusCode = await call.code()
        self._judge(case, path, code, await call.trailing_metadata(), await call.details())
        return code

    async def _unary(self, case: Case, path: str, message: bytes) -> bytes | None:
        """Call a method, and judge its answer."""
        try:
            answer: bytes = await self._method(path, unary=True)(message, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not reason_of(error.trailing_metadata()):
                self._tally.find(f"no answer of {path}", "", case)
            self._judge(case, path, error.code(), error.trailing_metadata(), error.details())
            return None
        self._tally.statuses["OK"] += 1
        return answer

    def _method(self, path: str, *, unary: bool = False) -> Any:
        """Return what calls a method with bytes; any method can be called as a stream."""
        if (path, unary) not in self._calls:
            service = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
            channel = self._admin if path.startswith(f"/{service}/") else self._channel
            self._calls[path, unary] = channel.unary_unary(path) if unary else channel.stream_stream(path)
        return self._calls[path, unary]

    def _judge(
        self, case: Case, path: str, code: grpc.StatusCode, trailers: Any, details: str | None = None
    ) -> None:
        """Note an answer; one that is no part of the contract is a finding."""
        reason = reason_of(trailers)
        self._tally.statuses[reason or code.name] += 1
        name = path.rpartition("/")[2]
        if code is grpc.StatusCode.OK:
            return
        if reason:
            if code not in _TYPED:
                self._tally.find(f"{name}: {code.name} {reason}", details or "", case)
        elif not (
            code in _OF_GRPC
            or (code is grpc.StatusCode.INTERNAL and details == _TRANSPORT)
            or path.startswith(_HEALTH)
        ):
            self._tally.find(f"{name}: {code.name} without a reason", details or "", case)


def _without_one_end(answers: Iterable[bytes], count: int) -> list[str]:
    """Return the utterances that did not end once; one whose `begin` came after the session's end has no end."""
    responses = [audio.StreamAudioResponse.FromString(answer) for answer in answers]
    ended = Counter(one.ended.utterance_id for one in responses if one.HasField("ended"))
    late = {one.rejected.utterance_id for one in responses if one.rejected.error.code == _SESSION_ENDED}
    return [name for name in (f"u{number}" for number in range(count)) if ended[name] != (name not in late)]


async def _drain(call: Any, answers: list[bytes] | None = None) -> None:
    """Read a stream to its end."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        while (answer := await call.read()) is not grpc.aio.EOF:
            if answers is not None:
                answers.append(answer)


def reason_of(trailers: Any) -> str:
    """Return the reason of a refusal; empty if the gateway gave none."""
    for key, value in trailers or ():
        if key == rpc_status.GRPC_DETAILS_METADATA_KEY:
            for packed in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if packed.Unpack(info) and info.domain == DOMAIN:
                    return info.reason
    return ""
