"""Stream of `AudioService.ListenAudio`: credit in, the voices of users out."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

import grpc

from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar.gateway.v1 import stream_pb2
from liveavatar_gateway.audio.formats import AudioFormat
from liveavatar_gateway.audio.output import encoder, require_listenable
from liveavatar_gateway.core.errors import InvalidField, UnexpectedMessage
from liveavatar_gateway.core.user_audio import ListenerBuffer, UserChunk
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.session_stream import SessionStream
from liveavatar_gateway.rpc.stream_reader import leave, wait_for_half_close
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.user_audio import Listener
from liveavatar_gateway.telemetry.metrics import Metrics

_MAX_WAITING_S: Final = 2.0
"""Audio of a user that waits for credit. Higher tolerates longer pauses of a listener, whose audio then is old."""
_DEFAULT_CHUNK_S: Final = 0.02
_CHUNK_STEP_S: Final = 0.01
_CHUNKS_S: Final = (0.01, 0.1)
_COUNT_S: Final = 1.0
"""Interval at which the audio is counted: nothing is counted for each chunk."""


class ListenStream(SessionStream[p.ListenAudioResponse]):
    """Reader of credit, and writer of audio."""

    def __init__(
        self,
        session: SessionActor,
        header: p.ListenHeader,
        config: RpcConfig,
        metrics: Metrics,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Prepare; the session has no listener before `run`.

        Args:
            session: The session.
            header: First message of the call.
            config: Longest silence.
            metrics: Counts listeners and their audio.
            context: The call.

        Raises:
            InvalidField, AudioFormatUnsupported: the header cannot be served.
        """
        self._format = listen_format_of(header)
        self._chunk_bytes = _chunk_bytes(header, self._format)
        self._buffer = ListenerBuffer(
            byte_rate=self._format.byte_rate,
            chunk_bytes=self._chunk_bytes,
            credit_bytes=_credit_bytes(header, self._format),
            max_waiting_bytes=round(self._format.byte_rate * _MAX_WAITING_S),
        )
        self._participants = tuple(
            mapping.checked_id(name, "header.participants", required=True) for name in header.participants
        )
        self._metrics = metrics
        self._count_at_s = 0.0
        self._counted = (0, 0)
        """Bytes that were sent and dropped, as far as they are counted."""
        heartbeat = p.ListenAudioResponse(heartbeat=stream_pb2.Heartbeat())
        super().__init__(session, session.attachments.observe(), config, context, heartbeat=heartbeat)

    async def run(self) -> None:
        """Serve until the caller closes its side, or the session ends.

        Raises:
            GatewayError: the stream's grammar was broken, the room cannot be joined, or another process owns the
                session.
        """
        listener = Listener(
            self._buffer,
            rate_hz=self._format.rate_hz,
            encode=encoder(self._format),
            participants=self._participants,
            wakeup=self._attachment.wakeup,
        )
        reading: asyncio.Future[None] | None = None
        self._metrics.listener_opened()
        try:
            self._session.user_audio.add(listener)
            try:
                reading = asyncio.ensure_future(self._read())
                reading.add_done_callback(lambda _: self._attachment.wakeup.set())
                await self._serve(listener, reading)
            finally:
                self._session.user_audio.remove(listener)
        finally:
            if reading is not None:
                leave(reading)
            self._attachment.release()
            self._count()
            self._metrics.listener_closed()

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            kind = request.WhichOneof("message")
            if kind == "credit":
                if request.credit.bytes < 1:
                    raise InvalidField("credit.bytes must be at least 1", field="credit.bytes")
                self._buffer.grant(request.credit.bytes)
                self._attachment.wakeup.set()
            elif kind != "heartbeat":
                got = kind or "nothing"
                raise UnexpectedMessage(f"header comes first and once; got {got} here", field=got, got=got)

    async def _serve(self, listener: Listener, reading: asyncio.Future[None]) -> None:
        is_ready = False
        while not reading.done():
            error = self._attachment.superseded or listener.error
            if error is not None:
                raise error
            if listener.has_joined and not is_ready:
                is_ready = True
                await self._write_one(p.ListenAudioResponse(ready=self._ready()))
            if is_ready:
                await self._write_audio(reading)
            if self._session.over:
                if not is_ready:
                    self._session.require_alive()
                await wait_for_half_close(reading)
                return
            await self._wait_for_news()
        reading.result()

    async def _write_audio(self, reading: asyncio.Future[None]) -> None:
        """Write what there is and the credit allows."""
        # A listener with much credit and a slow network must not keep the stream from its end.
        while not reading.done() and self._attachment.superseded is None:
            if (chunk := self._buffer.take()) is None:
                break
            await self._write_one(_audio(chunk))
        if time.monotonic() >= self._count_at_s:
            self._count()

    def _ready(self) -> p.ListenReady:
        return p.ListenReady(
            session_id=self._session.id,
            heartbeat_interval=self._heartbeat_interval,
            chunk_bytes=self._chunk_bytes,
        )

    def _count(self) -> None:
        self._count_at_s = time.monotonic() + _COUNT_S
        sent, dropped = self._counted
        self._counted = self._buffer.sent_bytes, self._buffer.dropped_bytes
        rate = self._format.byte_rate
        self._metrics.user_audio((self._counted[0] - sent) / rate, (self._counted[1] - dropped) / rate)


def listen_format_of(header: p.ListenHeader) -> AudioFormat:
    """Return the format in which a listener is to hear.

    Raises:
        AudioFormatUnsupported: no listener can have it.
    """
    audio_format = mapping.format_of(header.format)
    require_listenable(audio_format)
    return audio_format


def _chunk_bytes(header: p.ListenHeader, audio_format: AudioFormat) -> int:
    field = "header.chunk_duration"
    seconds = _DEFAULT_CHUNK_S
    if header.HasField("chunk_duration"):
        least_s, most_s = _CHUNKS_S
        seconds = mapping.seconds_of(header.chunk_duration, field, least_s=least_s, most_s=most_s)
    steps = seconds / _CHUNK_STEP_S
    if abs(steps - round(steps)) > 1e-6:
        raise InvalidField(f"{field} must be a multiple of 10 ms, got {seconds:g} s", field=field)
    return round(steps) * (audio_format.rate_hz // 100) * audio_format.frame_bytes


def _credit_bytes(header: p.ListenHeader, audio_format: AudioFormat) -> int:
    if header.credit_bytes < 0:
        raise InvalidField("header.credit_bytes must not be negative", field="header.credit_bytes")
    return header.credit_bytes or 2 * audio_format.byte_rate


def _audio(chunk: UserChunk) -> p.ListenAudioResponse:
    audio = p.UserAudio(
        participant=chunk.participant,
        captured_at=mapping.timestamp(datetime.fromtimestamp(chunk.captured_s, UTC)),
        sequence=chunk.sequence,
        audio=chunk.audio,
        dropped=mapping.duration(chunk.dropped_s) if chunk.dropped_s else None,
    )
    return p.ListenAudioResponse(audio=audio)
