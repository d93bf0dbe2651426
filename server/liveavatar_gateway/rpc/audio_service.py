"""`AudioService`: opens the stream of a session's audio; `audio_stream` serves it."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc

from liveavatar.gateway.v1 import audio_service_pb2 as p
from liveavatar.gateway.v1.audio_service_pb2_grpc import AudioServiceServicer
from liveavatar_gateway.audio.formats import NATIVE_FORMAT
from liveavatar_gateway.auth.limiter import Limiter
from liveavatar_gateway.core.errors import HeaderRequired, InvalidField
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc.audio_stream import AudioStream
from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.stream_reader import first
from liveavatar_gateway.sessions.audio_input import audio_input_of, load_conversion
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.session import SessionActor

_Context = grpc.aio.ServicerContext[Any, Any]


class AudioService(AudioServiceServicer):
    """Audio of the sessions in a directory."""

    def __init__(self, config: RpcConfig, directory: Directory, limiter: Limiter) -> None:
        self._config = config
        self._directory = directory
        self._limiter = limiter

    async def StreamAudio(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self,
        request_iterator: AsyncIterator[p.StreamAudioRequest],
        context: _Context,
    ) -> None:
        # `context.read` is cheaper than the iterator, see `AudioStream`.
        message = await first(context.read(), self._config.first_message_timeout_s)
        kind = None if message is grpc.aio.EOF else message.WhichOneof("message")
        if kind != "header":
            raise HeaderRequired(
                f"the first message must be header, got {kind or 'nothing'}", field="header", got=kind or ""
            )
        session = await self._find(message.header)
        audio_format = mapping.format_of(message.header.format)
        if audio_format != NATIVE_FORMAT:
            await load_conversion()
        audio_input = audio_input_of(audio_format, max_chunk_bytes=self._config.max_chunk_bytes)
        limiter, tenant = self._limiter, session.tenant
        pace = None if limiter.quotas(tenant) is None else partial(limiter.audio_pause_s, tenant)
        await AudioStream(session, audio_input, self._config, context, pace=pace).run()

    async def _find(self, header: p.AudioHeader) -> SessionActor:
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
