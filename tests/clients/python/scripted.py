"""Scripted gateway: a real gRPC server whose streams are played by functions of the test.

`scripted(attaches, audios, watches=...)` starts the gateway on a free port. Each argument lists scripts,
coroutine functions that take the peer of one stream (`AttachPeer`, `AudioPeer`, `WatchPeer`): the first stream
is played by the first script, and the last script plays all later streams. A script that raises fails the test.
`gateway.unary` maps the names of unary calls to handlers. Ready-made scripts are `well_behaved`, `fluent` and
`watchful`; `Ear` checks that audio arrives once and in order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from liveavatar.gateway import AsyncClient, AsyncSession
from liveavatar.gateway.v1 import audio_pb2, session_pb2
from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceServicer, add_AudioServiceServicer_to_server
from liveavatar.gateway.v1.session_service_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)

SESSION_ID = "session-1"
HANDLE = "handle-1"
STEP_S = 10.0


def status(
    reason: str, code: grpc.StatusCode, *, field: str = "", retry_s: float | None = None, **metadata: object
) -> status_pb2.Status:
    """A refusal as the gateway words it."""
    details: list[Any] = [
        error_details_pb2.ErrorInfo(
            domain="gateway.liveavatar",
            reason=reason,
            metadata={key: str(value) for key, value in metadata.items()},
        )
    ]
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="wrong")
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(retry_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        holder = any_pb2.Any()
        holder.Pack(detail)
        packed.append(holder)
    return status_pb2.Status(code=code.value[0], message=f"refused: {reason}", details=packed)


def played(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


class Peer:
    """The gateway's side of one stream."""

    def __init__(self, requests: AsyncIterator[Any], context: Any, response: type[Any]) -> None:
        self.requests = requests
        self._response = response
        self.context = context
        # gRPC takes one message at a time.
        self._writing = asyncio.Lock()

    async def read(self) -> Any:
        """The caller's next message; None when it has half-closed."""
        async with asyncio.timeout(STEP_S):
            return await anext(self.requests, None)

    async def expect(self, kind: str) -> Any:
        """The caller's next message, which must be of this kind."""
        message = await self.read()
        assert message is not None, f"the stream ended, wanted {kind}"
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)

    async def write(self, **fields: Any) -> None:
        async with self._writing:
            await self.context.write(self._response(**fields))

    async def refuse(self, refusal: status_pb2.Status) -> None:
        await self.context.abort_with_status(rpc_status.to_status(refusal))

    async def break_off(self) -> None:
        await self.context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")


class AttachPeer(Peer):
    """The gateway's side of Attach."""

    async def opened(
        self,
        state: int = session_pb2.SESSION_STATE_READY,
        *,
        grace_s: float = 10.0,
        compacted_through: int = 0,
        handle: str = HANDLE,
        heartbeat_s: float = 0.0,
    ) -> Any:
        """Read the first message and answer `opened`."""
        first = await self.read()
        await self.write(
            opened=sessions.SessionOpened(
                session=session_pb2.Session(id=SESSION_ID, state=state),
                room=session_pb2.RoomAccess(url="wss://room", viewer_token="secret-token"),
                handle=handle,
                detach_grace=played(grace_s),
                compacted_through=compacted_through,
                audio_limits=sessions.AudioLimits(max_chunk_bytes=1 << 18),
                heartbeat_interval=played(heartbeat_s) if heartbeat_s else None,
            )
        )
        return first

    async def event(self, sequence: int, **fields: Any) -> None:
        await self.write(event=sessions.SessionEvent(sequence=sequence, **fields))

    async def notice(self, sequence: int) -> None:
        await self.event(sequence, notice=sessions.UpstreamNotice(type=f"notice-{sequence}"))

    async def utterance_ended(self, sequence: int, utterance_id: str, outcome: int, played_s: float = 0) -> None:
        ended = sessions.UtteranceEnded(utterance_id=utterance_id, outcome=outcome, played=played(played_s))
        await self.event(sequence, utterance_ended=ended)

    async def answer(self, command: Any, **fields: Any) -> None:
        await self.write(command_result=sessions.CommandResult(id=command.id, **fields))

    async def end(self, sequence: int, reason: int = session_pb2.END_REASON_CALLER_ENDED, **fields: Any) -> None:
        final = session_pb2.Session(id=SESSION_ID, state=session_pb2.SESSION_STATE_ENDED, end_reason=reason)
        await self.event(sequence, ended=sessions.SessionEnded(session=final, **fields))

    async def until_end(self, sequence: int = 1) -> list[Any]:
        """Answer commands until `end`, then end the session; gives the other commands."""
        seen = []
        while True:
            message = await self.read()
            if message is None:
                return seen
            command = message.command
            await self.answer(command)
            if command.WhichOneof("command") == "end":
                await self.end(sequence)
                return seen
            seen.append(command)


class AudioPeer(Peer):
    """The gateway's side of StreamAudio."""

    async def ready(self, *, credit: int = 1_440_000, max_chunk: int = 1 << 18, heartbeat_s: float = 0.0) -> Any:
        """Read the header and answer `ready`."""
        header = await self.expect("header")
        await self.write(
            ready=audio.AudioReady(
                session_id=SESSION_ID,
                credit_bytes=credit,
                max_chunk_bytes=max_chunk,
                heartbeat_interval=played(heartbeat_s) if heartbeat_s else None,
            )
        )
        return header

    async def ack(self, utterance_id: str, received: int, credit: int = 1_440_000, played_s: float = 0.0) -> None:
        await self.write(
            ack=audio.AudioAck(
                utterance_id=utterance_id,
                received_bytes=received,
                confirmed_bytes=received,
                credit_bytes=credit,
                played=played(played_s),
            )
        )

    async def ended(
        self, utterance_id: str, outcome: int = audio_pb2.UTTERANCE_OUTCOME_COMPLETED, **fields: Any
    ) -> None:
        await self.write(ended=audio.AudioEnded(utterance_id=utterance_id, outcome=outcome, **fields))

    async def utterance(self) -> tuple[str, bytes, str]:
        """Read one utterance to its end; gives its id, its audio and how it was closed."""
        utterance_id = (await self.expect("begin")).utterance_id
        heard = bytearray()
        while True:
            message = await self.read()
            assert message is not None, "the stream ended inside an utterance"
            kind = message.WhichOneof("message")
            if kind != "chunk":
                return utterance_id, bytes(heard), kind
            assert message.chunk.offset_bytes == len(heard)
            heard += message.chunk.audio

    async def speak_all(self) -> None:
        """Behave well until the caller half-closes."""
        while (message := await self.read()) is not None:
            match message.WhichOneof("message"):
                case "begin":
                    utterance_id, received = message.begin.utterance_id, 0
                    await self.ack(utterance_id, 0)
                    await self.write(started=audio.AudioStarted(utterance_id=utterance_id))
                case "chunk":
                    received += len(message.chunk.audio)
                    await self.ack(utterance_id, received)
                case "end":
                    await self.ended(utterance_id, played=played(received / 48_000))
                case "cancel":
                    await self.ended(utterance_id, audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED)


class Ear:
    """Gateways of a session, and the audio that they received over any number of breaking streams.

    Does what the contract says of `StreamAudio`, and fails the test where the caller does not: audio that skips
    or repeats a byte, a `begin` out of order, more than the credit.
    """

    def __init__(
        self,
        *,
        breaks: Iterable[int] = (),
        restarts: bool = False,
        credit: int = 1_440_000,
        ack_every: int = 1,
        unconfirmed: int = 0,
    ) -> None:
        """Decide what goes wrong.

        Args:
            breaks: After how many messages, of either side, each stream breaks; those that follow do not.
            restarts: Whether with the stream all audio is lost that LiveAvatar has not got.
            credit: Bytes that may be on their way.
            ack_every: Chunks per ack; one comes earlier where the credit would run out.
            unconfirmed: Bytes of an utterance that LiveAvatar has not got yet.
        """
        self.heard: dict[str, bytearray] = {}
        self.headers: list[Any] = []
        self.resumed: list[tuple[str, int]] = []
        self._breaks = list(breaks)
        self._restarts = restarts
        self.credit = credit
        self.ack_every = ack_every
        self._unconfirmed = unconfirmed
        self.taken: dict[str, int] = {}
        self.over: dict[str, int] = {}

    async def __call__(self, peer: "AudioPeer") -> None:
        """Serve the next stream."""
        left = self._breaks.pop(0) if self._breaks else None
        await self._Stream(self, peer, left).serve()

    class _Stream:
        """Stream that breaks after `left` messages."""

        def __init__(self, ear: "Ear", peer: "AudioPeer", left: int | None) -> None:
            self.ear, self.peer, self.left = ear, peer, left
            self.id, self.audio, self.told, self.chunks = "", bytearray(), 0, 0

        async def serve(self) -> None:
            await self.step()
            self.ear.headers.append(await self.peer.ready(credit=self.ear.credit))
            handlers = {"begin": self.begin, "chunk": self.chunk, "end": self.end, "cancel": self.cancel}
            while True:
                await self.step()
                if (message := await self.peer.read()) is None:
                    return
                kind = message.WhichOneof("message")
                await handlers[kind](getattr(message, kind))

        async def step(self) -> None:
            if self.left == 0:
                await self.ear.broken(self.peer)
            self.left = None if self.left is None else self.left - 1

        async def begin(self, begin: Any) -> None:
            self.id = begin.utterance_id
            assert begin.resume or self.id not in self.ear.heard
            self.audio = self.ear.heard.setdefault(self.id, bytearray())
            self.ear.taken.setdefault(self.id, 0)
            self.told = len(self.audio)
            if begin.resume:
                self.ear.resumed.append((self.id, self.told))
            await self.step()
            if self.id in self.ear.over:
                await self.peer.ended(self.id, self.ear.over[self.id])
            else:
                await self.ear.ack(self.peer, self.id)

        async def chunk(self, chunk: Any) -> None:
            assert chunk.offset_bytes == len(self.audio), "audio comes once and in order"
            self.audio += chunk.audio
            self.chunks += 1
            waiting = len(self.audio) - self.told
            assert waiting <= self.ear.credit, "CREDIT_EXCEEDED"
            if self.chunks % self.ear.ack_every == 0 or waiting > self.ear.credit // 2:
                self.told = len(self.audio)
                await self.step()
                await self.ear.ack(self.peer, self.id)

        async def end(self, _: Any) -> None:
            outcome = self.ear.over.setdefault(self.id, audio_pb2.UTTERANCE_OUTCOME_COMPLETED)
            self.ear.taken[self.id] = len(self.audio)
            await self.step()
            await self.peer.ended(self.id, outcome, played=played(len(self.audio) / 48_000))

        async def cancel(self, _: Any) -> None:
            if self.id not in self.ear.over:
                self.ear.over[self.id] = audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
                await self.step()
                await self.peer.ended(self.id, self.ear.over[self.id])

    async def broken(self, peer: "AudioPeer") -> None:
        """Break a stream off."""
        if self._restarts:
            for utterance_id, heard in self.heard.items():
                del heard[self.taken[utterance_id] :]
        await peer.break_off()

    async def ack(self, peer: "AudioPeer", utterance_id: str) -> None:
        """Tell how far an utterance has come."""
        received = len(self.heard[utterance_id])
        told = self.taken[utterance_id]
        # LiveAvatar may have more than the caller was told.
        self.taken[utterance_id] = max(told, received - self._unconfirmed)
        await peer.write(
            ack=audio.AudioAck(
                utterance_id=utterance_id,
                received_bytes=received,
                confirmed_bytes=told,
                credit_bytes=self.credit,
                played=played(told / 48_000),
            )
        )


class WatchPeer(Peer):
    """The gateway's side of WatchSessions."""

    async def asked(self) -> list[Any]:
        """Read up to the question for progress that a stream begins with; gives what is to be watched."""
        found = []
        while (message := await self.read()).WhichOneof("message") != "progress":
            found.append(message)
        return found

    async def snapshot(self, sequence: int, session_id: str = SESSION_ID) -> None:
        session = session_pb2.Session(id=session_id, state=session_pb2.SESSION_STATE_READY)
        await self.write(snapshot=sessions.WatchSnapshot(session=session, sequence=sequence))

    async def event(self, sequence: int, session_id: str = SESSION_ID) -> None:
        event = sessions.SessionEvent(sequence=sequence, notice=sessions.UpstreamNotice(type=f"notice-{sequence}"))
        await self.write(event=sessions.WatchEvent(session_id=session_id, event=event))

    async def progress(self, **sequences: int) -> None:
        await self.write(progress=sessions.WatchProgress(sequences=sequences))

    async def removed(self, refusal: status_pb2.Status | None = None, session_id: str = SESSION_ID) -> None:
        await self.write(removed=sessions.WatchRemoved(session_id=session_id, status=refusal))


Watching = Callable[[WatchPeer], Awaitable[None]]
Attaching = Callable[[AttachPeer], Awaitable[None]]
Streaming = Callable[[AudioPeer], Awaitable[None]]


class ScriptedGateway(SessionServiceServicer, AudioServiceServicer):
    """Plays a script per stream, in order; the last one serves all that follow."""

    def __init__(self, attaches: list[Attaching], audios: list[Streaming], watches: list[Watching]) -> None:
        self.address = ""
        self.firsts: list[Any] = []
        self.attach_count = 0
        self.audio_count = 0
        self.ended_ids: list[str] = []
        self.end_fault: grpc.StatusCode | None = None
        self.faults: list[BaseException] = []
        self.unary: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {}
        self._attaches = attaches
        self._audios = audios
        self._watches = watches
        self.watch_count = 0

    async def WatchSessions(self, requests, context):  # noqa: N802
        script = self._watches[min(self.watch_count, len(self._watches) - 1)]
        self.watch_count += 1
        await self._play(script, WatchPeer(requests, context, sessions.WatchSessionsResponse))

    async def Attach(self, requests, context):  # noqa: N802
        script = self._attaches[min(self.attach_count, len(self._attaches) - 1)]
        self.attach_count += 1
        await self._play(script, AttachPeer(requests, context, sessions.AttachResponse))

    async def StreamAudio(self, requests, context):  # noqa: N802
        script = self._audios[min(self.audio_count, len(self._audios) - 1)]
        self.audio_count += 1
        await self._play(script, AudioPeer(requests, context, audio.StreamAudioResponse))

    async def _play(self, script, peer):
        try:
            await script(peer)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except BaseException as fault:
            self.faults.append(fault)
            raise

    async def EndSession(self, request, context):  # noqa: N802
        if self.end_fault is not None:
            await context.abort(self.end_fault, "as the script says")
        if "EndSession" in self.unary:
            return await self._scripted("EndSession", request, context)
        self.ended_ids.append(request.session_id)
        return sessions.EndSessionResponse(
            session=session_pb2.Session(
                id=request.session_id,
                state=session_pb2.SESSION_STATE_ENDED,
                end_reason=session_pb2.END_REASON_CALLER_ENDED,
            )
        )

    async def _scripted(self, name, request, context):
        if name not in self.unary:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not in the script")
        return await self.unary[name](request, context)

    async def CreateSession(self, request, context):  # noqa: N802
        return await self._scripted("CreateSession", request, context)

    async def GetSession(self, request, context):  # noqa: N802
        return await self._scripted("GetSession", request, context)

    async def ListSessions(self, request, context):  # noqa: N802
        return await self._scripted("ListSessions", request, context)

    async def InterruptSession(self, request, context):  # noqa: N802
        return await self._scripted("InterruptSession", request, context)

    async def GetServerInfo(self, request, context):  # noqa: N802
        return await self._scripted("GetServerInfo", request, context)


async def well_behaved(peer: AttachPeer) -> None:
    """Ready at once; ends when told."""
    await peer.opened()
    await peer.until_end()


async def ended_before(peer: AttachPeer) -> None:
    """Resume a session that has ended.

    grpc/grpc#36066: a write of the client that meets the end of its call costs it what it had not read yet.
    """
    assert (await peer.opened()).WhichOneof("message") == "resume"
    await peer.end(1)


async def watchful(peer: WatchPeer) -> None:
    """Has nothing to tell."""
    await peer.asked()
    await peer.progress()
    await peer.read()


async def fluent(peer: AudioPeer) -> None:
    """Speaks everything at once."""
    await peer.ready()
    await peer.speak_all()


@contextlib.asynccontextmanager
async def scripted(
    attaches: list[Attaching] | None = None,
    audios: list[Streaming] | None = None,
    *,
    watches: list[Watching] | None = None,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[ScriptedGateway]:
    """Run a scripted gateway on a free port; a script that fails fails the test."""
    gateway = ScriptedGateway(attaches or [well_behaved], audios or [fluent], watches or [watchful])
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    add_SessionServiceServicer_to_server(gateway, server)
    add_AudioServiceServicer_to_server(gateway, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    gateway.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(0)
    assert not gateway.faults, gateway.faults


@contextlib.asynccontextmanager
async def opened(gateway: ScriptedGateway, **options: Any) -> AsyncIterator[AsyncSession]:
    """A session on a scripted gateway, with a client of its own."""
    async with AsyncClient(gateway.address) as client, client.open_session("avatar", **options) as session:
        yield session
