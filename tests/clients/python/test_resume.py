"""The Attach stream breaks, moves or lies: what the caller sees of it."""

import asyncio

import grpc
import pytest
from clients.python.scripted import (
    HANDLE,
    SESSION_ID,
    AttachPeer,
    AudioPeer,
    Peer,
    ended_before,
    fluent,
    opened,
    scripted,
    status,
)

from liveavatar.gateway import (
    AsyncClient,
    AttachSuperseded,
    CapacityExhausted,
    ConnectionLost,
    DeadlineExceeded,
    EventsCompacted,
    GatewayError,
    GoAwayCancelledEvent,
    GoAwayEvent,
    InternalError,
    OwnershipError,
    ReadyTimeout,
    ResumedEvent,
    SessionAdoptedEvent,
    SessionClosed,
    SessionEnded,
    SessionEndedEvent,
    SessionNotFound,
    SessionState,
    StateChangedEvent,
    UpstreamNoticeEvent,
    UpstreamReconnectedEvent,
    UtteranceNotFound,
)
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


async def test_a_broken_stream_is_resumed_where_it_broke():
    """Events come once and in order, although the gateway repeats one."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.notice(1)
        await peer.notice(2)
        await peer.break_off()

    async def goes_on(peer: AttachPeer) -> None:
        first = await peer.opened()
        assert first.resume == pb.ResumeSession(handle=HANDLE, after_sequence=2, skip_compacted=True)
        await peer.notice(2)
        await peer.notice(3)
        await peer.until_end(4)

    async with scripted([breaks, goes_on]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            seen = []
            async for event in session.events():
                seen.append((event.sequence, type(event)))
                if event.sequence == 3:
                    await session.end()
        assert [kind for _, kind in seen][2] is ResumedEvent
        assert [sequence for sequence, _ in seen] == [1, 2, 2, 3, 4]
        assert gateway.attach_count == 2


async def test_a_stream_closed_without_an_end_is_resumed():
    """OK is no end of a session: only the event is."""

    async def leaves(peer: AttachPeer) -> None:
        await peer.opened()

    async def goes_on(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.until_end()

    async with scripted([leaves, goes_on]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            await session.start_listening()
        assert gateway.attach_count == 2
        assert session.state is SessionState.ENDED


async def test_taking_over_ends_this_object_but_not_the_session():
    """ATTACH_SUPERSEDED is raised to everyone who waits, nothing is resumed, and nothing ended."""

    async def taken(peer: AttachPeer) -> None:
        await peer.opened(session_pb2.SESSION_STATE_CONNECTING)
        await peer.expect("command")
        await peer.refuse(status("ATTACH_SUPERSEDED", grpc.StatusCode.ABORTED, session_id=SESSION_ID))

    async with scripted([taken]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            with pytest.raises(AttachSuperseded) as raised:
                await session.start_listening()
            assert isinstance(raised.value, OwnershipError)
            assert raised.value.metadata == {"session_id": SESSION_ID}
            with pytest.raises(AttachSuperseded):
                await session.ready()
            with pytest.raises(AttachSuperseded):
                session.say(b"")
            with pytest.raises(AttachSuperseded):
                [event async for event in session.events()]
        assert gateway.attach_count == 1
        assert gateway.ended_ids == []


async def test_a_command_survives_a_break():
    """A command without an answer is sent again, with its id, on the stream that follows."""
    ids = []

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        ids.append((await peer.expect("command")).id)
        await peer.break_off()

    async def answers(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        ids.append(command.id)
        await peer.answer(command)
        await peer.until_end()

    async with scripted([breaks, answers]) as gateway, opened(gateway) as session:
        await session.start_listening()
    assert len(ids) == 2
    assert ids[0] == ids[1]


async def test_opening_is_retried_with_the_same_request_id():
    """A retry cannot start a second session."""
    firsts = []

    async def breaks(peer: AttachPeer) -> None:
        firsts.append(await peer.read())
        await peer.break_off()

    async def drains(peer: AttachPeer) -> None:
        firsts.append(await peer.read())
        await peer.refuse(status("DRAINING", grpc.StatusCode.UNAVAILABLE, retry_s=0.05))

    async def opens(peer: AttachPeer) -> None:
        firsts.append(await peer.opened())
        await peer.until_end()

    async with scripted([breaks, drains, opens]) as gateway, opened(gateway, labels={"a": "b"}) as session:
        assert session.id == SESSION_ID
    assert len(firsts) == 3
    assert firsts[0] == firsts[1] == firsts[2]
    assert len(firsts[0].open.request_id) == 36


async def test_no_gateway_is_told_soon():
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ConnectionLost) as raised:
            async with client.open_session("avatar"):
                pass
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == ""


async def test_a_session_that_cannot_be_reached_is_given_up_after_the_grace():
    """Everything that waits then raises; until then nothing does."""

    async def opens(peer: AttachPeer) -> None:
        await peer.opened(session_pb2.SESSION_STATE_CONNECTING, grace_s=2)
        await peer.break_off()

    async def breaks(peer: AttachPeer) -> None:
        await peer.read()
        await peer.break_off()

    async with scripted([opens, breaks]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            utterance = session.say(b"\0\0")
            with pytest.raises(ConnectionLost):
                await session.ready()
            with pytest.raises(ConnectionLost):
                await session.stop_listening()
            assert utterance.outcome is not None
        assert gateway.attach_count > 2
        # The stream was lost, but leaving the block still ended the session.
        assert gateway.ended_ids == [SESSION_ID]


async def test_missed_events_are_no_reason_to_lose_the_session():
    """They are skipped on a resumed stream, whose event says how many, and the others go on without a hole."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.notice(1)
        await peer.break_off()

    async def goes_on(peer: AttachPeer) -> None:
        first = await peer.opened(compacted_through=6)
        assert first.resume.after_sequence == 1
        assert first.resume.skip_compacted
        await peer.notice(7)
        await peer.break_off()

    async def still_there(peer: AttachPeer) -> None:
        first = await peer.opened()
        assert first.resume.after_sequence == 7
        await peer.until_end(8)

    async with scripted([breaks, goes_on, still_there]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            seen, missed = [], []
            async for event in session.events():
                if isinstance(event, ResumedEvent):
                    missed.append(event.missed_events)
                else:
                    seen.append(event.sequence)
                    if event.sequence == 7:
                        await session.end()
        assert seen == [1, 7, 8]
        assert missed == [5, 0]


async def test_a_first_resume_behind_the_log_is_the_callers_to_decide():
    async def compacted(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(status("EVENTS_COMPACTED", grpc.StatusCode.OUT_OF_RANGE, oldest_sequence=7))

    async with scripted([compacted]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(EventsCompacted) as raised:
            async with client.resume_session(HANDLE, 2):
                pass
        assert raised.value.oldest_sequence == 7
        assert gateway.attach_count == 1


async def test_an_unknown_reason_is_raised_by_its_code_and_not_retried():
    """A newer gateway's reason is kept, and never mistaken for a broken connection."""

    async def refuses(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(status("MOON_PHASE", grpc.StatusCode.UNAVAILABLE, retry_s=1.5, phase="full"))

    async with scripted([refuses]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(GatewayError) as raised:
            async with client.open_session("avatar"):
                pass
        assert type(raised.value) is GatewayError
        assert raised.value.reason == "MOON_PHASE"
        assert raised.value.metadata == {"phase": "full"}
        assert raised.value.retry_after == 1.5
        assert gateway.attach_count == 1


async def test_capacity_is_refused_at_once():
    async def refuses(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(
            status("CAPACITY_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_s=2, scope="upstream_account")
        )

    async with scripted([refuses]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(CapacityExhausted) as raised:
            await client.open_session("avatar").open()
        assert raised.value.scope == "upstream_account"
        assert raised.value.retry_after == 2.0


@pytest.mark.parametrize("give_up", ["timeout", "cancel"])
async def test_a_session_that_opens_too_late_is_ended(give_up):
    """A caller that stopped waiting is not billed for a late session."""
    ended = asyncio.Event()

    async def late(peer: AttachPeer) -> None:
        first = await peer.read()
        assert first.WhichOneof("message") == "open"
        await asyncio.sleep(0.4)
        await peer.write(opened=pb.SessionOpened(session=session_pb2.Session(id=SESSION_ID), handle=HANDLE))
        await peer.until_end()
        ended.set()

    # The client may ask again how it ended: see `ended_before`.
    async with scripted([late, ended_before]) as gateway, AsyncClient(gateway.address) as client:
        if give_up == "timeout":
            with pytest.raises(DeadlineExceeded):
                await client.open_session("avatar", timeout=0.2).open()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.open_session("avatar").open()
        async with asyncio.timeout(10):
            await ended.wait()


@pytest.mark.parametrize("how", ["return", "raise", "cancel"])
async def test_leaving_the_block_ends_the_session(how):
    """On every way out."""
    entered = asyncio.Event()

    async def use(client: AsyncClient) -> None:
        async with client.open_session("avatar"):
            entered.set()
            if how == "raise":
                raise LookupError
            if how == "cancel":
                await asyncio.sleep(60)

    commands = []

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        commands.append(command.WhichOneof("command"))
        await peer.answer(command)
        await peer.end(1)

    async with scripted([serve]) as gateway, AsyncClient(gateway.address) as client:
        task = asyncio.create_task(use(client))
        await entered.wait()
        if how == "cancel":
            task.cancel()
        await asyncio.wait([task])
        assert commands == ["end"]
        if how == "raise":
            assert isinstance(task.exception(), LookupError)
        assert task.cancelled() == (how == "cancel")


async def test_closing_the_client_ends_what_is_open():
    commands = []

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        commands.append(command.WhichOneof("command"))
        await peer.answer(command)
        await peer.end(1)

    async with scripted([serve]) as gateway:
        client = AsyncClient(gateway.address)
        session = await client.open_session("avatar").open()
        await client.close()
        await client.close()
        assert commands == ["end"]
        with pytest.raises(SessionEnded):
            session.say(b"")


async def test_detach_leaves_the_session_alone():
    half_closed = asyncio.Event()

    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        assert await peer.read() is None
        half_closed.set()

    async with scripted([serve]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            assert await session.detach() == HANDLE
            assert half_closed.is_set()
            with pytest.raises(SessionClosed):
                await session.start_listening()
            assert [event async for event in session.events()] == []
        assert gateway.ended_ids == []
        assert gateway.attach_count == 1


async def test_why_a_session_never_became_ready_is_raised_by_ready():
    async def fails(peer: AttachPeer) -> None:
        await peer.opened(session_pb2.SESSION_STATE_CONNECTING)
        error = status("READY_TIMEOUT", grpc.StatusCode.DEADLINE_EXCEEDED)
        await peer.end(1, session_pb2.END_REASON_UPSTREAM_FAILED, error=error)

    async with scripted([fails]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            with pytest.raises(ReadyTimeout):
                await session.ready()
            with pytest.raises(SessionEnded) as raised:
                session.say(b"")
            assert raised.value.end_reason == "UPSTREAM_FAILED"
            assert isinstance(raised.value.__cause__, ReadyTimeout)
            events = [event async for event in session.events()]
            assert isinstance(events[-1], SessionEndedEvent)
        assert gateway.ended_ids == []


async def test_a_refused_command_leaves_the_session_working():
    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        command = await peer.expect("command")
        await peer.answer(command, status=status("UTTERANCE_NOT_FOUND", grpc.StatusCode.NOT_FOUND))
        await peer.until_end()

    async with scripted([serve]) as gateway, opened(gateway) as session:
        with pytest.raises(UtteranceNotFound):
            await session.interrupt("nobody")
        await session.start_listening()


async def test_a_drain_is_announced_and_its_handle_used():
    async def drains(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.notice(1)
        await peer.write(go_away=pb.GoAway(handle="elsewhere"))
        await peer.break_off()

    async def goes_on(peer: AttachPeer) -> None:
        first = await peer.opened()
        assert first.resume.handle == "elsewhere"
        await peer.until_end(2)

    async with scripted([drains, goes_on]) as gateway, opened(gateway) as session:
        kinds = []
        async for event in session.events():
            kinds.append(type(event))
            if isinstance(event, GoAwayEvent):
                assert event.sequence == 1
                break
        assert kinds == [UpstreamNoticeEvent, GoAwayEvent]


async def test_a_drain_makes_the_session_resume_at_another_target():
    """At once, with the drain's handle; the target that drains is not gone back to while the other serves."""

    async def drains(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.notice(1)
        await peer.write(go_away=pb.GoAway(handle="elsewhere"))
        await peer.read()

    async def takes(peer: AttachPeer) -> None:
        first = await peer.opened(handle="newest")
        assert first.resume.handle == "elsewhere"
        assert first.resume.after_sequence == 1
        await peer.until_end(2)

    async def listens(peer: AudioPeer) -> None:
        header = await peer.ready()
        assert header.handle == "newest"
        await peer.speak_all()

    async with (
        scripted([drains]) as first,
        scripted([takes], [listens]) as second,
        AsyncClient(f"{first.address},{second.address}") as client,
        client.open_session("avatar") as session,
    ):
        async for event in session.events():
            if isinstance(event, ResumedEvent):
                assert event.target == second.address
                break
        assert session.handle == "newest"
        assert (await session.say(bytes(960))).kind == "played"
        await session.end()
        assert (first.attach_count, second.attach_count) == (1, 1)
        assert (first.audio_count, second.audio_count) == (0, 1)


async def test_a_drain_that_no_other_target_takes_over_is_sat_out():
    """The session stays where it is known, and is not tossed about by a second `go_away`."""

    async def drains(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.write(go_away=pb.GoAway())
        await peer.until_end()

    async def knows_nothing(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND))

    async with (
        scripted([drains]) as first,
        scripted([knows_nothing]) as second,
        AsyncClient([first.address, second.address]) as client,
        client.open_session("avatar") as session,
    ):
        async for event in session.events():
            if isinstance(event, ResumedEvent):
                break
        await session.start_listening()
        assert (first.attach_count, second.attach_count) == (2, 1)


async def test_a_drain_that_is_taken_back_is_told_and_the_next_one_moves_the_session_again():
    """Had nobody else taken the session, it is still where it was: nothing of the first drain is left."""
    taken_back = asyncio.Event()

    async def drains(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.write(go_away=pb.GoAway())
        await peer.read()

    async def stays(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.write(go_away=pb.GoAway())
        await peer.notice(1)
        await peer.write(go_away_cancelled=pb.GoAwayCancelled())
        await peer.answer(await peer.expect("command"))
        await taken_back.wait()
        await peer.write(go_away=pb.GoAway(handle="elsewhere"))
        await peer.read()

    async def knows_nothing(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND))

    async def takes(peer: AttachPeer) -> None:
        assert (await peer.opened()).resume.handle == "elsewhere"
        await peer.until_end(2)

    async with (
        scripted([drains, stays]) as first,
        scripted([knows_nothing, takes]) as second,
        AsyncClient([first.address, second.address]) as client,
        client.open_session("avatar") as session,
    ):
        kinds = []
        async for event in session.events():
            kinds.append(type(event))
            if isinstance(event, GoAwayCancelledEvent):
                assert event.sequence == 1
                assert (await session.say(bytes(960))).kind == "played"
                await session.start_listening()
                assert (first.attach_count, second.attach_count) == (2, 1)
                taken_back.set()
            elif isinstance(event, ResumedEvent) and event.target == second.address:
                break
        assert kinds == [
            GoAwayEvent,
            ResumedEvent,
            GoAwayEvent,
            UpstreamNoticeEvent,
            GoAwayCancelledEvent,
            GoAwayEvent,
            ResumedEvent,
        ]


async def test_a_session_that_is_being_adopted_is_waited_for():
    """A gateway that has just been started does not know it yet; speech and control both go on when it does."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.break_off()

    async def unknown(peer: Peer) -> None:
        await peer.read()
        await peer.refuse(status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND))

    async def adopted(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.until_end()

    scripts = [breaks, unknown, unknown, adopted], [unknown, unknown, fluent]
    async with scripted(*scripts) as gateway, opened(gateway) as session:
        utterance = session.say(bytes(960))
        await session.start_listening()
        assert (await utterance).kind == "played"
    assert (gateway.attach_count, gateway.audio_count) == (4, 3)


async def test_a_session_that_nobody_adopts_is_not_found():
    async def breaks(peer: AttachPeer) -> None:
        await peer.opened(grace_s=2)
        await peer.break_off()

    async def unknown(peer: AttachPeer) -> None:
        await peer.read()
        await peer.refuse(status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND))

    async with scripted([breaks, unknown]) as gateway, opened(gateway) as session:
        with pytest.raises(SessionNotFound):
            await session.start_listening()
        assert gateway.attach_count > 2


async def test_each_resume_uses_the_newest_handle():
    handles = []

    async def opens(peer: AttachPeer) -> None:
        first = await peer.opened(handle=f"handle-{len(handles)}")
        handles.append(first.resume.handle)
        if len(handles) < 4:
            await peer.break_off()
        await peer.until_end()

    async with scripted([opens]) as gateway, opened(gateway) as session:
        await session.start_listening()
    assert handles == ["", "handle-0", "handle-1", "handle-2"]


async def test_a_session_that_reconnects_or_is_adopted_is_told_of_and_goes_on():
    async def serve(peer: AttachPeer) -> None:
        await peer.opened()
        changed = pb.StateChanged(
            state=session_pb2.SESSION_STATE_RECONNECTING, previous_state=session_pb2.SESSION_STATE_READY
        )
        await peer.event(1, state_changed=changed)
        await peer.expect("command")
        await peer.event(2, reconnected=pb.UpstreamReconnected(attempt_count=1))
        changed = pb.StateChanged(
            state=session_pb2.SESSION_STATE_READY, previous_state=session_pb2.SESSION_STATE_RECONNECTING
        )
        await peer.event(3, state_changed=changed)
        await peer.event(4, adopted=pb.SessionAdopted())
        await peer.until_end(5)

    async with scripted([serve]) as gateway, opened(gateway) as session:
        kinds = []
        async for event in session.events():
            kinds.append(type(event))
            if event.sequence == 1:
                assert session.state is SessionState.RECONNECTING
                listening = asyncio.create_task(session.start_listening())
            if event.sequence == 4:
                break
        listening.cancel()
        assert kinds == [
            StateChangedEvent,
            UpstreamReconnectedEvent,
            StateChangedEvent,
            SessionAdoptedEvent,
        ]
        assert session.state is SessionState.READY


async def test_ending_reaches_a_session_at_whichever_target_knows_it():
    """No session is left paid for because the first address is gone or does not know it."""

    async def knows_nothing(request, context):
        from grpc_status import rpc_status

        await context.abort_with_status(
            rpc_status.to_status(status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND))
        )

    async with scripted() as first, scripted() as second:
        first.unary["EndSession"] = knows_nothing
        async with AsyncClient(["127.0.0.1:1", first.address, second.address]) as client:
            record = await client.end_session(SESSION_ID)
            assert record.state is SessionState.ENDED
            assert second.ended_ids == [SESSION_ID]


async def test_the_secrets_of_a_session_are_not_in_its_repr():
    async with scripted() as gateway, opened(gateway) as session:
        shown = f"{session!r} {session.room!r} {session.record!r}"
        assert session.room.viewer_token == "secret-token"
        assert session.handle == HANDLE
        assert "secret-token" not in shown
        assert HANDLE not in shown


async def test_unary_calls_raise_the_class_of_their_reason():
    async def refuses(request, context):
        from grpc_status import rpc_status

        refusal = status("SESSION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, session_id=request.session_id)
        await context.abort_with_status(rpc_status.to_status(refusal))

    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["GetSession"] = refuses
        with pytest.raises(SessionNotFound) as raised:
            await client.get_session("nobody")
        assert raised.value.metadata == {"session_id": "nobody"}
        assert raised.value.code is grpc.StatusCode.NOT_FOUND


async def test_idempotent_calls_are_repeated_and_interrupts_are_not():
    calls = []

    async def flaky(request, context):
        calls.append(type(request).__name__)
        if calls.count(calls[-1]) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "try again")
        return pb.GetServerInfoResponse(version="1")

    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary |= {"GetServerInfo": flaky, "InterruptSession": flaky}
        assert (await client.server_info()).version == "1"
        with pytest.raises(ConnectionLost):
            await client.interrupt_session(SESSION_ID)
    assert calls == ["GetServerInfoRequest"] * 3 + ["InterruptSessionRequest"]


async def test_lists_fetch_pages_as_they_are_needed():
    asked = []

    async def pages(request, context):
        asked.append(request.page_token)
        start = int(request.page_token or 0)
        found = [session_pb2.Session(id=str(number)) for number in range(start, start + request.page_size)]
        return pb.ListSessionsResponse(sessions=found, next_page_token=str(start + 2) if start < 4 else "")

    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        gateway.unary["ListSessions"] = pages
        found = [session.id async for session in client.list_sessions(page_size=2, states=["ready"])]
    assert found == ["0", "1", "2", "3", "4", "5"]
    assert asked == ["", "2", "4"]


@pytest.mark.parametrize("body_fails", [False, True])
async def test_an_end_that_cannot_be_asked_for_is_told_unless_something_worse_was(body_fails):
    """The gateway ends the session itself then, after the grace."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.read()
        await peer.break_off()

    async def opens(peer: AttachPeer) -> None:
        await peer.opened(grace_s=0.1)
        await peer.break_off()

    async def use(client: AsyncClient) -> None:
        async with client.open_session("avatar") as session:
            with pytest.raises(ConnectionLost):
                await session.start_listening()
            gateway.end_fault = grpc.StatusCode.INTERNAL
            if body_fails:
                raise LookupError

    async with scripted([opens, breaks]) as gateway, AsyncClient(gateway.address) as client:
        with pytest.raises(LookupError if body_fails else InternalError):
            await use(client)


async def test_what_this_library_cannot_understand_ends_the_session_with_a_reason():
    """A fault of our own is raised to everyone who waits, and the session is still ended."""

    async def breaks(peer: AttachPeer) -> None:
        await peer.opened(session_pb2.SESSION_STATE_CONNECTING)
        impossible = sessions_event_with_an_impossible_time()
        await peer.write(event=impossible)
        await peer.read()

    def sessions_event_with_an_impossible_time() -> pb.SessionEvent:
        event = pb.SessionEvent(sequence=1, notice=pb.UpstreamNotice(type="t"))
        event.time.seconds = 1 << 60
        return event

    async with scripted([breaks]) as gateway, AsyncClient(gateway.address) as client:
        async with client.open_session("avatar") as session:
            with pytest.raises(InternalError, match="bug in this library"):
                await session.ready()
        assert gateway.ended_ids == [SESSION_ID]


async def test_a_stream_whose_session_has_ended_is_closed_from_this_side_first():
    """A gateway that closes first resets the stream, and proxies make another status of that."""
    closed = asyncio.Event()

    async def waits(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.until_end()
        assert await peer.read() is None
        closed.set()

    async with scripted([waits]) as gateway, opened(gateway) as session:
        await session.end()
    assert closed.is_set()


async def test_a_session_is_opened_once():
    async with scripted() as gateway, AsyncClient(gateway.address) as client:
        session = client.open_session("avatar")
        with pytest.raises(SessionClosed, match="not open"):
            session.handle  # noqa: B018
        async with session:
            with pytest.raises(SessionClosed, match="once"):
                await session.open()
