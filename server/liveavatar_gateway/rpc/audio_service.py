"""`AudioService`: opens the streams of a session's audio; `audio_stream` and `listen_stream` serve them."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc

from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceServicer
from liveavatar_gateway.audio.formats import NATIVE_FORMAT, Encoding
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core.errors import HeaderRequired, InvalidField, id_or_nothing
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc.audio_stream import AudioStream
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.interceptors.audit import audited
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.listen_stream import ListenStream, listen_format_of
from liveavatar_gateway.rpc.stream_reader import first
from liveavatar_gateway.sessions.audio_input import audio_input_of, load_conversion
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.telemetry.metrics import Metrics

_Context = grpc.aio.ServicerContext[Any, Any]


class AudioService(AudioServiceServicer):
    """Audio of the sessions in a directory."""

    def __init__(self, config: RpcConfig, directory: Directory, limiter: Limiter, metrics: Metrics) -> None:
        self._config = config
        self._directory = directory
        self._limiter = limiter
        self._metrics = metrics

    async def StreamAudio(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self,
        request_iterator: AsyncIterator[p.StreamAudioRequest],
        context: _Context,
    ) -> None:
        header = await self._header(context)
        session = await self._find(header)
        session.require_socket("StreamAudio")
        audio_format = mapping.format_of(header.format)
        if audio_format != NATIVE_FORMAT:
            await load_conversion()
        audio_input = audio_input_of(audio_format, max_chunk_bytes=self._config.max_chunk_bytes)
        limiter, tenant = self._limiter, session.tenant
        pace = None if limiter.quotas(tenant) is None else partial(limiter.audio_pause_s, tenant)
        await AudioStream(session, audio_input, self._config, context, pace=pace).run()

    async def ListenAudio(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self,
        request_iterator: AsyncIterator[p.ListenAudioRequest],
        context: _Context,
    ) -> None:
        header = await self._header(context)
        with audited("session.listen", session=id_or_nothing(header.session_id)) as target:
            session = await self._find(header)
            session.require_socket("ListenAudio")
            target["session"] = session.id
            if listen_format_of(header).encoding is not Encoding.PCM_S16LE:
                await load_conversion()
            stream = ListenStream(session, header, self._config, self._metrics, context)
        await stream.run()

    async def _header(self, context: _Context) -> Any:
        # `context.read` is cheaper than the iterator, see `AudioStream`.
        message = await first(context.read(), self._config.first_message_timeout_s)
        kind = None if message is grpc.aio.EOF else message.WhichOneof("message")
        if kind != "header":
            raise HeaderRequired(
                f"the first message must be header, got {kind or 'nothing'}", field="header", got=kind or ""
            )
        return message.header

    async def _find(self, header: p.AudioHeader | p.ListenHeader) -> SessionActor:
        tenant = current_principal().tenant
        match header.WhichOneof("target"):
            case "session_id":
                session_id = mapping.checked_id(header.session_id, "header.session_id", required=True)
                session = await self._directory.get(session_id, tenant=tenant)
            case "handle":
                session = await self._directory.by_handle(header.handle, tenant=tenant, field="header.handle")
            case _:
                raise InvalidField("the header must name its session", field="header.target")
        session.require_alive()
        return session
