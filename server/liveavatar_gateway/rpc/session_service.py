"""`SessionService`: unary calls; `attach_stream` and `watch_stream` serve the streams."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

import grpc

from liveavatar.gateway.v1 import audio_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1.session_service_pb2_grpc import SessionServiceServicer
from liveavatar_gateway import __version__
from liveavatar_gateway.audio.formats import MAX_RATE_HZ, MIN_RATE_HZ
from liveavatar_gateway.core.errors import id_or_nothing
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.rpc import avatars as avatar_list
from liveavatar_gateway.rpc import mapping
from liveavatar_gateway.rpc import rooms as own_rooms
from liveavatar_gateway.rpc.attach_stream import AttachStream
from liveavatar_gateway.rpc.config import RpcConfig, audio_limits
from liveavatar_gateway.rpc.heard_text import may_read
from liveavatar_gateway.rpc.interceptors.audit import audited
from liveavatar_gateway.rpc.interceptors.authentication import current_principal
from liveavatar_gateway.rpc.lists import fitting
from liveavatar_gateway.rpc.watch_stream import WatchStream
from liveavatar_gateway.rpc.wishes import Wishes
from liveavatar_gateway.sessions.directory import Directory
from liveavatar_gateway.sessions.local_sessions import page
from liveavatar_gateway.sessions.reservations import Reservations
from liveavatar_gateway.sessions.session import SessionActor
from liveavatar_gateway.sessions.viewers import RoomControl, remove_viewer
from liveavatar_gateway.upstream.avatar_catalog import AvatarCatalog
from liveavatar_gateway.upstream.permits import Permits

_Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(SessionServiceServicer):
    """Life cycle of the sessions in a directory."""

    def __init__(
        self,
        config: RpcConfig,
        directory: Directory,
        permits: Permits,
        wishes: Wishes,
        *,
        avatars: AvatarCatalog,
        reservations: Reservations,
        rooms: RoomControl,
    ) -> None:
        self._reservations = reservations
        self._rooms = rooms
        self._avatars = avatars
        self._config = config
        self._wishes = wishes
        self._directory = directory
        self._permits = permits

    async def Attach(  # type: ignore[override]  # noqa: N802, D102 - named and described in the contract
        self, request_iterator: AsyncIterator[p.AttachRequest], context: _Context
    ) -> None:
        stream = await AttachStream.open(self._directory, self._config, self._wishes, request_iterator, context)
        await stream.run()

    async def WatchSessions(  # type: ignore[override]  # noqa: N802, D102
        self, request_iterator: AsyncIterator[p.WatchSessionsRequest], context: _Context
    ) -> None:
        caller = current_principal()
        stream = WatchStream(
            self._directory,
            self._config,
            request_iterator,
            context,
            tenant=caller.tenant,
            shows_text=may_read(caller),
        )
        await stream.run()

    async def CreateSession(  # noqa: N802, D102
        self, request: p.CreateSessionRequest, context: _Context
    ) -> p.CreateSessionResponse:
        tenant = current_principal().tenant
        with audited("session.open", request_id=request.request_id, avatar=request.spec.avatar_id) as target:
            spec = self._wishes.spec_of(request.spec, field="spec", tenant=tenant)
            request_id = mapping.checked_id(request.request_id, "request_id", required=False)
            wait_s = mapping.permit_wait_s(context.time_remaining())
            session = await self._directory.open(
                spec,
                request_id,
                tenant=tenant,
                wait_s=wait_s,
                reservation_id=mapping.checked_id(request.reservation_id, "reservation_id", required=False),
            )
            target["session"] = session.id
            await _ready_or_abandoned(session, retryable=bool(request_id))
        return p.CreateSessionResponse(
            session=mapping.session_message(session.view()),
            room=own_rooms.room_message(session.room_access()),
            # The handle of an attached stream stays valid: this may be one of several answers to one request.
            handle=session.issue_handle(beside=True),
        )

    async def PrepareSession(  # noqa: N802, D102
        self, request: p.PrepareSessionRequest, context: _Context
    ) -> p.PrepareSessionResponse:
        tenant = current_principal().tenant
        with audited("session.prepare", request_id=request.request_id, avatar=request.spec.avatar_id) as target:
            spec = self._wishes.spec_of(request.spec, field="spec", tenant=tenant)
            reservation = await self._reservations.prepare(
                spec,
                mapping.checked_id(request.request_id, "request_id", required=False),
                tenant=tenant,
                hold_s=mapping.hold_s(request),
                wait_s=mapping.permit_wait_s(context.time_remaining()),
            )
            target["reservation"] = reservation.id
        return p.PrepareSessionResponse(
            reservation=p.Reservation(id=reservation.id, expires_at=mapping.timestamp(reservation.expires_at))
        )

    async def GetSession(  # noqa: N802, D102
        self, request: p.GetSessionRequest, context: _Context
    ) -> p.GetSessionResponse:
        session_id = mapping.checked_id(request.session_id, "session_id", required=True)
        view = await self._directory.view(session_id, tenant=current_principal().tenant)
        return p.GetSessionResponse(session=mapping.session_message(view))

    async def ListSessions(  # noqa: N802, D102
        self, request: p.ListSessionsRequest, context: _Context
    ) -> p.ListSessionsResponse:
        size = mapping.page_size(request.page_size)
        own = self._directory.newest(tenant=current_principal().tenant)
        states = frozenset(request.states)
        matching = [session for session in own if _matches(session, request.labels, states)]
        entries, next_token = page(matching, request.page_token, size)
        sessions, count = fitting(entries, lambda session: mapping.session_message(session.view()))
        if count < len(entries):
            next_token = entries[count - 1].id
        return p.ListSessionsResponse(sessions=sessions, next_page_token=next_token)

    async def EndSession(  # noqa: N802, D102
        self, request: p.EndSessionRequest, context: _Context
    ) -> p.EndSessionResponse:
        session_id = mapping.checked_id(request.session_id, "session_id", required=True)
        with audited("session.end", session=id_or_nothing(session_id)):
            view = await self._directory.end(
                session_id,
                EndReason.CALLER_ENDED,
                tenant=current_principal().tenant,
                wait_s=mapping.permit_wait_s(context.time_remaining()),
            )
        return p.EndSessionResponse(session=mapping.session_message(view))

    async def InterruptSession(  # noqa: N802, D102
        self, request: p.InterruptSessionRequest, context: _Context
    ) -> p.InterruptSessionResponse:
        session = await self._find(request.session_id)
        ended = await session.interrupt(mapping.checked_id(request.utterance_id, "utterance_id", required=False))
        return p.InterruptSessionResponse(result=mapping.interrupt_message(ended))

    async def CreateViewerTokens(  # noqa: N802, D102
        self, request: p.CreateViewerTokensRequest, context: _Context
    ) -> p.CreateViewerTokensResponse:
        with audited("viewer.tokens", session=id_or_nothing(request.session_id), count=len(request.viewers)):
            session = await self._find(request.session_id)
            viewers = own_rooms.viewers(request.viewers, session.viewers.require_own_room(), field="viewers")
            issued = await session.create_viewer_tokens(viewers)
        return p.CreateViewerTokensResponse(viewers=own_rooms.viewer_messages(issued))

    async def RemoveViewer(  # noqa: N802, D102
        self, request: p.RemoveViewerRequest, context: _Context
    ) -> p.RemoveViewerResponse:
        with audited("viewer.remove", session=id_or_nothing(request.session_id)):
            identity = mapping.checked_id(request.identity, "identity", required=True)
            await remove_viewer(await self._find(request.session_id), identity, self._rooms)
        return p.RemoveViewerResponse()

    async def PauseSession(  # noqa: N802, D102
        self, request: p.PauseSessionRequest, context: _Context
    ) -> p.PauseSessionResponse:
        session = await self._find(request.session_id)
        answer = await session.pause(*mapping.pause_of(request.pause, "pause"))
        return p.PauseSessionResponse(result=mapping.pause_message(answer))

    async def ContinueSession(  # noqa: N802, D102
        self, request: p.ContinueSessionRequest, context: _Context
    ) -> p.ContinueSessionResponse:
        session = await self._find(request.session_id)
        return p.ContinueSessionResponse(result=mapping.continue_message(await session.continue_speech()))

    async def ListAvatars(  # noqa: N802, D102
        self, request: p.ListAvatarsRequest, context: _Context
    ) -> p.ListAvatarsResponse:
        size = mapping.page_size(request.page_size)
        usable = self._wishes.avatars(await self._avatars.avatars(), tenant=current_principal().tenant)
        found, next_token = avatar_list.page(usable, request.page_token, size)
        avatars, count = fitting(found, mapping.avatar_message)
        if count < len(found):
            next_token = avatar_list.token_of(found[count - 1])
        return p.ListAvatarsResponse(avatars=avatars, next_page_token=next_token)

    async def GetServerInfo(  # noqa: N802, D102
        self,
        request: p.GetServerInfoRequest,
        context: _Context,
    ) -> p.GetServerInfoResponse:
        return p.GetServerInfoResponse(
            version=__version__,
            audio_limits=audio_limits(self._config),
            audio_encodings=[
                audio_pb2.AUDIO_ENCODING_PCM_S16LE,
                audio_pb2.AUDIO_ENCODING_PCM_F32LE,
                audio_pb2.AUDIO_ENCODING_MULAW,
                audio_pb2.AUDIO_ENCODING_ALAW,
            ],
            min_sample_rate_hz=MIN_RATE_HZ,
            max_sample_rate_hz=MAX_RATE_HZ,
            permit_count=self._permits.limit,
            used_permit_count=self._permits.used,
            waiting_count=self._permits.waiting,
            detach_grace=mapping.duration(self._config.detach_grace_s),
            draining=self._directory.draining,
        )

    async def _find(self, session_id: str) -> SessionActor:
        session_id = mapping.checked_id(session_id, "session_id", required=True)
        return await self._directory.get(session_id, tenant=current_principal().tenant)


async def _ready_or_abandoned(session: SessionActor, *, retryable: bool) -> None:
    """Wait until the avatar is ready. End the session of a caller that gives up early, or cannot come back."""
    ready = False
    try:
        await session.ready()
        ready = True
    finally:
        if not ready:
            session.forsake(retryable=retryable)


def _matches(session: SessionActor, labels: Mapping[str, str], states: Collection[int]) -> bool:
    if not mapping.has_labels(session.spec, labels):
        return False
    return not states or mapping.state(session.state) in states
