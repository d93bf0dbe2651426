"""Base of the streams of one session: `Attach`, `StreamAudio` and `ListenAudio`."""

import time
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf import duration_pb2

from liveavatar_gateway.rpc.config import RpcConfig
from liveavatar_gateway.rpc.mapping import duration
from liveavatar_gateway.sessions.attachments import Attachment
from liveavatar_gateway.sessions.session import SessionActor

_Response = TypeVar("_Response")


class SessionStream(Generic[_Response]):
    """Writer of one stream. Its heartbeats keep proxies from closing a silent stream, often after 60 s."""

    def __init__(
        self,
        session: SessionActor,
        attachment: Attachment,
        config: RpcConfig,
        context: grpc.aio.ServicerContext[Any, Any],
        *,
        heartbeat: _Response,
    ) -> None:
        """Begin a silence now.

        Args:
            session: The session.
            attachment: The stream's attachment to the session; `run` releases it.
            config: Limits, and the longest silence.
            context: The call.
            heartbeat: Message to write after a silence.
        """
        self._session = session
        self._attachment = attachment
        self._config = config
        self._context = context
        self._heartbeat = heartbeat
        self._written_s = time.monotonic()

    @property
    def _heartbeat_interval(self) -> duration_pb2.Duration | None:
        """Value of `heartbeat_interval`; None leaves the field unset, for a stream without heartbeats."""
        return duration(self._config.heartbeat_s) if self._config.heartbeat_s else None

    async def _write_one(self, response: _Response) -> None:
        await self._context.write(response)
        self._written_s = time.monotonic()

    async def _wait_for_news(self, at_most_s: float | None = None) -> None:
        """Wait until the session has news, or `at_most_s` seconds; write a heartbeat if one is due by then."""
        interval_s = self._config.heartbeat_s
        if interval_s:
            heartbeat_s = self._written_s + interval_s - time.monotonic()
            at_most_s = heartbeat_s if at_most_s is None else min(at_most_s, heartbeat_s)
        await self._attachment.wakeup.wait(at_most_s)
        if interval_s and time.monotonic() >= self._written_s + interval_s:
            await self._write_one(self._heartbeat)
