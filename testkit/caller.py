"""A caller made of bare stubs: what any language can do with the protos alone."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from liveavatar.gateway.v1 import audio_service_pb2 as audio
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as sessions
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceStub
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceStub

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
STEP_TIMEOUT_S = 30.0


class Refusal:
    """A status with its details unpacked."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        self.message = status.message
        self._details: dict[str, Any] = {}
        for packed in status.details:
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.BadRequest,
                error_details_pb2.RetryInfo,
                error_details_pb2.QuotaFailure,
                error_details_pb2.PreconditionFailure,
                error_details_pb2.ResourceInfo,
                error_details_pb2.Help,
            ):
                if packed.Is(kind.DESCRIPTOR):
                    detail = kind()
                    packed.Unpack(detail)
                    self._details[kind.DESCRIPTOR.name] = detail

    @property
    def reason(self) -> str:
        assert self._details["ErrorInfo"].domain == "gateway.liveavatar"
        return self._details["ErrorInfo"].reason

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._details["ErrorInfo"].metadata)

    @property
    def field(self) -> str:
        return self._details["BadRequest"].field_violations[0].field

    @property
    def retry_s(self) -> float:
        return self._details["RetryInfo"].retry_delay.ToTimedelta().total_seconds()

    @property
    def quota(self) -> str:
        return self._details["QuotaFailure"].violations[0].subject

    @property
    def details(self) -> str:
        """All details as text."""
        return " ".join(f"{name}: {detail}" for name, detail in self._details.items())

    def has(self, detail: str) -> bool:
        return detail in self._details


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Return the typed refusal in a gRPC error."""
    for key, value in error.trailing_metadata() or ():
        if key == rpc_status.GRPC_DETAILS_METADATA_KEY:
            return Refusal(status_pb2.Status.FromString(value))
    raise (BareDeadline if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else AssertionError)(
        f"no details in {error!r}"
    )


async def refused(awaitable: Any) -> Refusal:
    """Await what must be refused and return why."""
    return refusal(await _failure(awaitable))


async def _failure(awaitable: Any) -> grpc.aio.AioRpcError:
    try:
        result = await asyncio.wait_for(awaitable, STEP_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError(f"not refused: {result!r}")


async def refused_before_deadline(call: Callable[[float], Awaitable[Any]]) -> Refusal:
    """Return why a call was refused shortly before its deadline; a machine that stalls gets a later deadline.

    Args:
        call: Starts the call with a timeout in seconds. It is repeated, so it must be idempotent.
    """
    for timeout_s in (2.0, 4.0):
        try:
            return refusal(await _failure(call(timeout_s)))
        except BareDeadline:
            continue
    return refusal(await _failure(call(8.0)))


async def refused_stream(call: Callable[[], Awaitable[Any]]) -> Refusal:
    """Return why a stream was refused on its headers, before its first message was read.

    grpc.aio replaces the status of a stream that ends while a message is written by INTERNAL; the stream is then
    opened again.
    """
    while (error := await _failure(call())).code() is grpc.StatusCode.INTERNAL:
        assert error.details() == "Internal error from Core"
    return refusal(error)


class BareDeadline(AssertionError):
    """End of a call by gRPC's own deadline, before the gateway's answer arrived."""


async def write(call: Any, request: Any) -> None:
    """Write a request; a call that has ended already raises its status, as one that ends meanwhile does.

    Raises:
        grpc.aio.AioRpcError: the call has ended.
    """
    try:
        await call.write(request)
    except asyncio.InvalidStateError as error:
        raise grpc.aio.AioRpcError(
            await call.code(), grpc.aio.Metadata(), await call.trailing_metadata(), details=await call.details()
        ) from error


class Speech:
    """`StreamAudio` stream and all its responses."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.ready: audio.AudioReady | None = None
        self.received: list[audio.StreamAudioResponse] = []
        self._set_aside: deque[audio.StreamAudioResponse] = deque()

    async def read(self) -> audio.StreamAudioResponse:
        if self._set_aside:
            return self._set_aside.popleft()
        response = await asyncio.wait_for(self.call.read(), STEP_TIMEOUT_S)
        if response is grpc.aio.EOF:
            raise EOFError
        self.received.append(response)
        return response

    async def until(self, kind: str) -> Any:
        """Read up to the next message of a kind."""
        while True:
            response = await self.read()
            if response.WhichOneof("message") == kind:
                return getattr(response, kind)

    async def send(self, **message: Any) -> None:
        await write(self.call, audio.StreamAudioRequest(**message))

    async def begin(
        self,
        utterance_id: str = "",
        *,
        resume: bool = False,
        idle_s: float | None = None,
        text: audio.TimedText | None = None,
    ) -> None:
        begin = audio.BeginUtterance(utterance_id=utterance_id, resume=resume, text=text)
        if idle_s is not None:
            begin.idle_timeout.FromNanoseconds(round(idle_s * 1e9))
        await self.send(begin=begin)

    async def resume(self, utterance_id: str, *, text: audio.TimedText | None = None) -> audio.AudioAck:
        """Go on with an utterance of another stream; returns how far it is."""
        await self.begin(utterance_id, resume=True, text=text)
        # Acks and ends of other utterances may come first; `until` still finds them.
        passed_over = []
        while True:
            response = await self.read()
            if response.ack.utterance_id == utterance_id:
                break
            passed_over.append(response)
        self._set_aside.extendleft(reversed(passed_over))
        return response.ack

    async def status(self) -> grpc.StatusCode:
        """Read to the end and return the stream's status."""
        with contextlib.suppress(EOFError, grpc.aio.AioRpcError):
            while True:
                await self.read()
        return await self.call.code()

    async def chunk(self, data: bytes, offset: int | None = None, *, utterance_id: str = "") -> None:
        await self.send(chunk=audio.AudioChunk(audio=data, offset_bytes=offset, utterance_id=utterance_id))

    async def end(self, utterance_id: str = "") -> None:
        await self.send(end=audio.EndUtterance(utterance_id=utterance_id))

    async def cancel(self, utterance_id: str = "") -> None:
        await self.send(cancel=audio.CancelUtterance(utterance_id=utterance_id))

    async def timings(self, text: audio.TimedText, *, utterance_id: str = "") -> None:
        await self.send(timings=audio.TextTimings(utterance_id=utterance_id, text=text))

    async def say(
        self, pcm: bytes, utterance_id: str = "", *, chunk_bytes: int = 96_000, text: audio.TimedText | None = None
    ) -> None:
        """Send a whole utterance as fast as it goes."""
        await self.begin(utterance_id, text=text)
        await self.say_on(pcm, 0, chunk_bytes=chunk_bytes)

    async def say_on(self, pcm: bytes, offset: int, *, chunk_bytes: int = 96_000) -> None:
        """Send the rest of an utterance that is open, and its end."""
        for start in range(offset, len(pcm), chunk_bytes):
            await self.chunk(pcm[start : start + chunk_bytes], start)
        await self.end()


class Hearing:
    """`ListenAudio` stream and all audio that came."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.ready: audio.ListenReady | None = None
        self.chunks: list[audio.UserAudio] = []

    async def read(self) -> audio.ListenAudioResponse:
        response = await asyncio.wait_for(self.call.read(), STEP_TIMEOUT_S)
        if response is grpc.aio.EOF:
            raise EOFError
        if response.HasField("audio"):
            self.chunks.append(response.audio)
        return response

    async def until(self, kind: str) -> Any:
        """Read up to the next message of a kind."""
        while True:
            response = await self.read()
            if response.WhichOneof("message") == kind:
                return getattr(response, kind)

    async def credit(self, size_bytes: int) -> None:
        await write(self.call, audio.ListenAudioRequest(credit=audio.ListenCredit(bytes=size_bytes)))

    async def status(self) -> grpc.StatusCode:
        """Read to the end and return the stream's status."""
        with contextlib.suppress(EOFError, grpc.aio.AioRpcError):
            while True:
                await self.read()
        return await self.call.code()

    def heard(self, participant: str) -> bytes:
        """All audio of a user so far."""
        return b"".join(chunk.audio for chunk in self.chunks if chunk.participant == participant)


class Attachment:
    """`Attach` stream and all its responses."""

    def __init__(
        self,
        call: Any,
        opened: sessions.SessionOpened,
        queue_positions: Sequence[sessions.QueuePosition] = (),
    ) -> None:
        self.call = call
        self.queue_positions = queue_positions
        self.opened = opened
        self.session_id = opened.session.id
        self.upstream_id = opened.session.upstream_session_id
        self.events: list[sessions.SessionEvent] = []
        self.results: list[sessions.CommandResult] = []
        self.go_aways: list[sessions.GoAway] = []
        self._looked_at = 0

    async def read(self) -> sessions.AttachResponse:
        response = await asyncio.wait_for(self.call.read(), STEP_TIMEOUT_S)
        if response is grpc.aio.EOF:
            raise EOFError
        match response.WhichOneof("message"):
            case "event":
                self.events.append(response.event)
            case "command_result":
                self.results.append(response.command_result)
            case "go_away":
                self.go_aways.append(response.go_away)
        return response

    async def event(self, kind: str) -> Any:
        """Return the next event of a kind, whether it was read already or not."""
        while True:
            while self._looked_at < len(self.events):
                event = self.events[self._looked_at]
                self._looked_at += 1
                if event.WhichOneof("event") == kind:
                    return getattr(event, kind)
            await self.read()

    async def until_ready(self) -> None:
        while (await self.event("state_changed")).state != session_pb2.SESSION_STATE_READY:
            pass

    async def command(self, command_id: str, **command: Any) -> sessions.CommandResult:
        """Send a command and read up to its result."""
        message = sessions.SessionCommand(id=command_id, **command)
        await write(self.call, sessions.AttachRequest(command=message))
        while True:
            response = await self.read()
            if response.command_result.id == command_id:
                return response.command_result

    async def closed(self) -> grpc.StatusCode:
        """Read to the end and return the stream's status."""
        with contextlib.suppress(EOFError, grpc.aio.AioRpcError):
            while True:
                await self.read()
        return await self.call.code()


class Watch:
    """`WatchSessions` stream and all its responses."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.received: list[sessions.WatchSessionsResponse] = []

    async def send(self, **message: Any) -> None:
        await write(self.call, sessions.WatchSessionsRequest(**message))

    async def add(self, session_id: str, after_sequence: int = 0) -> None:
        await self.send(add=sessions.AddWatch(session_id=session_id, after_sequence=after_sequence))

    async def remove(self, session_id: str) -> None:
        await self.send(remove=sessions.RemoveWatch(session_id=session_id))

    async def filter(self, **labels: str) -> None:
        await self.send(filter=sessions.WatchFilter(labels=labels))

    async def progress(self) -> dict[str, int]:
        """Ask how far everything is, and read up to the answer."""
        await self.send(progress=sessions.ProgressRequest())
        return dict((await self.until("progress")).sequences)

    async def read(self) -> sessions.WatchSessionsResponse:
        response = await asyncio.wait_for(self.call.read(), STEP_TIMEOUT_S)
        if response is grpc.aio.EOF:
            raise EOFError
        self.received.append(response)
        return response

    async def until(self, kind: str) -> Any:
        """Read up to the next message of a kind."""
        while True:
            response = await self.read()
            if response.WhichOneof("message") == kind:
                return getattr(response, kind)

    def sequences(self, session_id: str) -> list[int]:
        """Numbers of the events of a session so far."""
        events = [one.event for one in self.received if one.WhichOneof("message") == "event"]
        return [event.event.sequence for event in events if event.session_id == session_id]


class Caller:
    """Bare stubs on one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.sessions = SessionServiceStub(channel)
        self.audio = AudioServiceStub(channel)
        self.channel = channel

    async def create(self, request_id: str = "", *, deadline_s: float | None = 30, **spec: Any) -> Any:
        request = sessions.CreateSessionRequest(spec=make_spec(**spec), request_id=request_id)
        return await self.sessions.CreateSession(request, timeout=deadline_s)

    async def attach(self, request_id: str = "", **spec: Any) -> Attachment:
        call = self.sessions.Attach()
        message = sessions.OpenSession(spec=make_spec(**spec), request_id=request_id)
        await write(call, sessions.AttachRequest(open=message))
        return await self._attached(call)

    def watch(self) -> Watch:
        return Watch(self.sessions.WatchSessions())

    async def resume(self, handle: str, after_sequence: int = 0, *, skip_compacted: bool = False) -> Attachment:
        call = self.sessions.Attach()
        message = sessions.ResumeSession(
            handle=handle, after_sequence=after_sequence, skip_compacted=skip_compacted
        )
        await write(call, sessions.AttachRequest(resume=message))
        return await self._attached(call)

    async def _attached(self, call: Any) -> Attachment:
        positions = []
        while True:
            first = await asyncio.wait_for(call.read(), STEP_TIMEOUT_S)
            if first is grpc.aio.EOF:
                # The call ended with a status instead of an answer: raise it.
                await call
            if not first.HasField("queue_position"):
                return Attachment(call, first.opened, positions)
            positions.append(first.queue_position)

    async def speak(self, session_id: str, **audio_format: Any) -> Speech:
        speech = Speech(self.audio.StreamAudio())
        header = audio.AudioHeader(session_id=session_id)
        if audio_format:
            header.format.CopyFrom(audio_format_of(**audio_format))
        await speech.send(header=header)
        first = await asyncio.wait_for(speech.call.read(), STEP_TIMEOUT_S)
        if first is grpc.aio.EOF:
            await speech.call
            raise AssertionError("ended without ready and without an error")
        speech.ready = first.ready
        return speech

    async def listen(
        self, session_id: str = "", *, ready: bool = True, chunk_s: float = 0, **header: Any
    ) -> Hearing:
        """Hear the users of a session; with `ready`, from when the gateway is in the room."""
        hearing = Hearing(self.audio.ListenAudio())
        if audio_format := header.pop("format", None):
            header["format"] = audio_format_of(**audio_format)
        first = audio.ListenHeader(session_id=session_id, **header)
        if "handle" in header:
            first.handle = header["handle"]
        if chunk_s:
            first.chunk_duration.FromNanoseconds(round(chunk_s * 1e9))
        await write(hearing.call, audio.ListenAudioRequest(header=first))
        if ready:
            try:
                hearing.ready = await hearing.until("ready")
            except EOFError:
                await hearing.call
                raise
        return hearing

    async def end(self, session_id: str) -> session_pb2.Session:
        request = sessions.EndSessionRequest(session_id=session_id)
        return (await self.sessions.EndSession(request, timeout=STEP_TIMEOUT_S)).session

    async def get(self, session_id: str) -> session_pb2.Session:
        request = sessions.GetSessionRequest(session_id=session_id)
        return (await self.sessions.GetSession(request, timeout=STEP_TIMEOUT_S)).session


def make_spec(**spec: Any) -> session_pb2.SessionSpec:
    """Return a spec of the usual avatar."""
    return session_pb2.SessionSpec(**{"avatar_id": AVATAR, **spec})


def audio_format_of(**audio_format: Any) -> Any:
    """Return a format message."""
    from liveavatar.gateway.v1 import audio_pb2

    return audio_pb2.AudioFormat(**audio_format)


@contextlib.asynccontextmanager
async def caller(address: str, *, reads_ahead: bool = True) -> AsyncIterator[Caller]:
    """Connect a caller to a gateway.

    One that does not read ahead lets its library take 64 kB per stream, where it would take 4 MB, until it reads.
    """
    options = () if reads_ahead else (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Caller(channel)
