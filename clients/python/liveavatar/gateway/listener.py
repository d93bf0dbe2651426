"""Voices of a session's users: one ListenAudio stream, opened again when it breaks."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from types import TracebackType
from typing import Self, TypeAlias

from liveavatar.gateway.audio import AudioFormat
from liveavatar.gateway.channel import Stream, heartbeat_interval_s
from liveavatar.gateway.errors import GatewayError, SessionEnded
from liveavatar.gateway.model import as_timedelta, duration_to_proto
from liveavatar.gateway.refusals import given_up
from liveavatar.gateway.targets import Retries
from liveavatar.gateway.v1 import audio_service_pb2 as pb
from liveavatar.gateway.v1 import stream_pb2

_log = logging.getLogger(__name__)

ListenCall: TypeAlias = Stream[pb.ListenAudioRequest, pb.ListenAudioResponse]

RESUME_TIMEOUT = timedelta(seconds=60)
"""Time for which a broken stream is opened again, if the client has no `resume_timeout`."""
_OPEN_ATTEMPTS = 4
# Rounds of all targets in which the first stream must be accepted.
_CREDIT_S = 2.0
# Audio that may be on its way. More outlasts longer pauses of the reader, with audio that is older then.


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAudio:
    """Audio of a user."""

    participant: str
    """Identity of the user in the room."""
    captured_at: datetime
    """Time at which the first sample came from the room, by the gateway's clock."""
    sequence: int
    """Number among the messages of this user on the stream, from 1; a gap is audio that was dropped."""
    audio: bytes = field(repr=False)
    """Samples in the format of the listener."""
    dropped: timedelta = timedelta()
    """Audio of this user that was dropped directly before, because it was not read in time."""

    @classmethod
    def from_proto(cls, message: pb.UserAudio) -> Self:
        """Return the value of a message."""
        return cls(
            participant=message.participant,
            captured_at=message.captured_at.ToDatetime(UTC),
            sequence=message.sequence,
            audio=message.audio,
            dropped=message.dropped.ToTimedelta(),
        )


class AsyncListener:
    """Audio of a session's users: `async for chunk in listener`, until the session ends.

    A broken stream is opened again, at any of the client's targets; the sequences then begin at 1 again, and audio
    of the time between is lost. Audio that is not read within 2 s is dropped by the gateway, oldest first.

    One task reads. Close it with `async with` or `close`.
    """

    def __init__(
        self,
        connect: Callable[[str], Awaitable[ListenCall]],
        header: Callable[[], pb.ListenHeader],
        retries: Retries,
        *,
        audio_format: AudioFormat,
        chunk_duration: timedelta | float,
        participants: Sequence[str],
        resume_timeout: timedelta | None,
    ) -> None:
        """Prepare a listener; `listen` of clients and sessions does this.

        Args:
            connect: Starts a ListenAudio call to a target.
            header: Returns a header that names the session.
            retries: Chooses the target and the delay of the next attempt.
            audio_format: Format to receive.
            chunk_duration: Audio of one message; a number counts seconds.
            participants: Identities of the users to hear; empty for all.
            resume_timeout: Time for which a broken stream is opened again.
        """
        self._connect = connect
        self._header = header
        self._retries = retries
        self._format = audio_format
        self._chunk = as_timedelta(chunk_duration)
        self._participants = tuple(participants)
        self._resume_timeout = RESUME_TIMEOUT if resume_timeout is None else resume_timeout
        self._call: ListenCall | None = None
        self._beating: asyncio.Task[None] | None = None
        self._is_ready = False
        self._is_closed = False
        self._unpaid_bytes = 0
        self._lost_mono_s: float | None = None

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "hearing" if self._is_ready else "not open"
        return f"<{type(self).__name__} {state}>"

    @property
    def format(self) -> AudioFormat:
        """Format of the audio."""
        return self._format

    @property
    def connected(self) -> bool:
        """True while the gateway is in the room; otherwise the stream is being opened, or is over."""
        return self._is_ready

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> UserAudio:
        chunk = await self.next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def next(self) -> UserAudio | None:
        """Wait for the next audio; None after the end of the session, or after `close`.

        After a cancellation the next call opens another stream.

        Raises:
            ConnectionLost: no gateway was reachable for `resume_timeout` (default 60 s).
            RoomUnreachable: the gateway cannot join the room.
            GatewayError: the gateway refused.
        """
        while not self._is_closed:
            target = self._retries.route.current
            try:
                message = await self._read(target)
            except asyncio.CancelledError:
                self._drop()
                raise
            except GatewayError as error:
                await self._recover(target, error)
                continue
            if message is None:
                # OK is the end of the session, or `close`.
                self.close()
            elif message.WhichOneof("message") == "ready":
                self._become_ready(message.ready)
            elif message.WhichOneof("message") == "audio":
                await self._pay(len(message.audio.audio))
                return UserAudio.from_proto(message.audio)
        return None

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._is_closed = True
        self._drop()

    async def _read(self, target: str) -> pb.ListenAudioResponse | None:
        if self._call is None:
            self._call = await self._connect(target)
            self._unpaid_bytes = 0
            header = self._header()
            header.format.CopyFrom(self._format.to_proto())
            header.chunk_duration.CopyFrom(duration_to_proto(self._chunk))
            header.participants.extend(self._participants)
            header.credit_bytes = self._window_bytes
            await self._call.write(pb.ListenAudioRequest(header=header))
        return await self._call.read()

    @property
    def _window_bytes(self) -> int:
        return self._format.size_bytes(_CREDIT_S)

    def _become_ready(self, ready: pb.ListenReady) -> None:
        self._is_ready = True
        self._lost_mono_s = None
        self._retries.reached()
        interval_s = heartbeat_interval_s(ready.heartbeat_interval)
        if interval_s is not None and self._call is not None:
            heartbeat = pb.ListenAudioRequest(heartbeat=stream_pb2.Heartbeat())
            beating = self._call.keep_alive(heartbeat, interval_s)
            self._beating = asyncio.create_task(beating, name="listen/heartbeat")

    async def _pay(self, size_bytes: int) -> None:
        """Return the credit of audio that was read, a quarter of the window at a time."""
        self._unpaid_bytes += size_bytes
        if self._unpaid_bytes * 4 >= self._window_bytes and self._call is not None:
            size_bytes, self._unpaid_bytes = self._unpaid_bytes, 0
            await self._call.write(pb.ListenAudioRequest(credit=pb.ListenCredit(bytes=size_bytes)))

    async def _recover(self, target: str, error: GatewayError) -> None:
        """Wait until the stream may be opened again; close at the end of a session that was heard.

        Raises:
            GatewayError: no further attempt can help.
        """
        loop = asyncio.get_running_loop()
        held, was_heard = self._is_ready, self._is_ready or self._lost_mono_s is not None
        self._drop()
        if isinstance(error, SessionEnded) and was_heard:
            self.close()
            return
        if held:
            self._lost_mono_s = loop.time()
        lost_s = inf if self._lost_mono_s is None else loop.time() - self._lost_mono_s
        delay_s = self._retries.next_delay_s(target, error, held=held, lost_s=lost_s)
        if delay_s is None or (not was_heard and self._retries.round_count >= _OPEN_ATTEMPTS):
            self.close()
            raise error
        if was_heard and lost_s >= self._resume_timeout.total_seconds():
            self.close()
            raise given_up(error, self._resume_timeout)
        _log.info("listen.retry delay_s=%.3f cause=%s", delay_s, error)
        await asyncio.sleep(delay_s)

    def _drop(self) -> None:
        self._is_ready = False
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        if self._call is not None:
            with contextlib.suppress(RuntimeError):
                # The loop, and the call with it, may be closed already.
                self._call.cancel()
            self._call = None
