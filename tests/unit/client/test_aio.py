from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from unit.client.fakes import FakeRuntime

from liveavatar.gateway import TLS, AsyncClient, Avatar, PlaintextRefused, SessionOptions, SessionState, Viewer
from liveavatar.gateway.channel import CallOptions
from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as pb


class Stub:
    """Gateway that keeps the requests of unary calls, and answers from a list."""

    def __init__(self, *answers):
        self.requests, self._answers = [], list(answers)

    def __getattr__(self, name):
        async def call(request, **_):
            self.requests.append(request)
            return self._answers.pop(0)

        return call


class Runtime(FakeRuntime):
    """Shared state whose unary calls go to a stub."""

    def __init__(self, stub):
        super().__init__()
        self.stub, self.once = stub, []

    async def call(self, call, timeout_s, *, once=False):
        self.once.append(once)
        return await call(self.stub, CallOptions(timeout=timeout_s, metadata=()))


def client(*answers, **options):
    made = AsyncClient("a:1", **options)
    made._runtime = Runtime(Stub(*answers))
    return made


@pytest.mark.parametrize("target", ["gateway:50051", "localhost:50051,gateway:50051", "unixes:50051"])
def test_a_credential_travels_to_another_machine_only_with_tls_or_on_request(target):
    for given in ("lag_key", Path("token"), lambda: "token"):
        with pytest.raises(PlaintextRefused, match="tls=True"):
            AsyncClient(target, credentials=given)
        AsyncClient(target, credentials=given, tls=True)
        AsyncClient(target, credentials=given, allow_plaintext=True)


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "[::1]:50051", "localhost:50051", "unix:/run/gateway"])
def test_a_credential_travels_in_plaintext_within_this_machine(target):
    AsyncClient(target, credentials="lag_key")


async def test_an_address_that_a_target_names_gets_no_credential_in_plaintext():
    made = AsyncClient("127.0.0.1:1", credentials="lag_key")
    made._runtime.connection("127.0.0.1:1")
    with pytest.raises(PlaintextRefused):
        made._runtime.connection("10.0.0.1:1")
    await made.close()


def test_the_credential_is_in_no_repr():
    made = AsyncClient("a:1", credentials="lag_key", tls=True)
    assert "lag_key" not in repr(made)
    assert "lag_key" not in repr(vars(made))


def test_channel_credentials_are_no_credential_of_a_call():
    for given in (grpc.ssl_channel_credentials(), grpc.access_token_call_credentials("token")):
        with pytest.raises(TypeError, match="`tls`"):
            AsyncClient("a:1", credentials=given)


def test_unusable_files_are_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        AsyncClient("a:1", tls=TLS(ca_file=tmp_path / "missing.pem"))


def test_a_target_is_needed():
    with pytest.raises(ValueError, match="target"):
        AsyncClient("")


def test_durations_are_seconds_or_timedeltas():
    made = AsyncClient("a:1", chunk_duration=timedelta(milliseconds=50), resume_timeout=2)
    assert (made._chunk_s, made._resume_timeout) == (0.05, timedelta(seconds=2))


async def test_a_session_is_opened_with_its_options_and_a_fresh_request_id():
    made = client()
    opened = [
        made.open_session(SessionOptions("avatar", sandbox=True))._attach._first.open,
        made.open_session("avatar", sandbox=True)._attach._first.open,
        made.open_session("avatar", request_id="mine")._attach._first.open,
    ]
    assert [request.spec.sandbox for request in opened] == [True, True, False]
    assert opened[0].request_id != opened[1].request_id
    assert opened[2].request_id == "mine"


async def test_a_session_is_resumed_behind_the_last_known_event():
    resume = client().resume_session("handle", 7)._attach._first.resume
    assert (resume.handle, resume.after_sequence) == ("handle", 7)


async def test_a_session_is_created_for_another_process():
    made = client(pb.CreateSessionResponse(session=session_pb2.Session(id="s"), handle="handle"))
    created = await made.create_session("avatar", labels={"a": "b"})
    assert (created.session.id, created.handle) == ("s", "handle")
    assert dict(made._runtime.stub.requests[0].spec.labels) == {"a": "b"}


async def test_pages_of_sessions_are_fetched_as_they_are_needed():
    pages = [
        pb.ListSessionsResponse(sessions=[session_pb2.Session(id="1")], next_page_token="next"),
        pb.ListSessionsResponse(sessions=[session_pb2.Session(id="2")]),
    ]
    made = client(*pages)
    records = made.list_sessions(states=["ready", SessionState.ENDED], labels={"a": "b"}, page_size=1)
    found = [(record.id, len(made._runtime.stub.requests)) async for record in records]
    assert found == [("1", 1), ("2", 2)]
    first, second = made._runtime.stub.requests
    assert list(first.states) == [session_pb2.SESSION_STATE_READY, session_pb2.SESSION_STATE_ENDED]
    assert (second.page_token, second.page_size) == ("next", 1)


async def test_pages_of_avatars_are_fetched_as_they_are_needed():
    ada = pb.Avatar(id="1", name="Ada", preview_url="https://p", is_1080p=True, sandbox=True)
    made = client(
        pb.ListAvatarsResponse(avatars=[ada], next_page_token="next"),
        pb.ListAvatarsResponse(avatars=[pb.Avatar(id="2")]),
    )
    found = [avatar async for avatar in made.list_avatars(page_size=1)]
    assert [avatar.id for avatar in found] == ["1", "2"]
    assert found[0] == Avatar(id="1", name="Ada", preview_url="https://p", is_1080p=True, sandbox=True)
    assert [(r.page_token, r.page_size) for r in made._runtime.stub.requests] == [("", 1), ("next", 1)]


async def test_an_interrupt_is_not_repeated():
    made = client(pb.InterruptSessionResponse())
    await made.interrupt_session("s", "u")
    assert made._runtime.once == [True]


async def test_viewers_are_named_and_removed():
    until = datetime(2026, 11, 30, 12, tzinfo=UTC)
    access = session_pb2.ViewerAccess(identity="ann", token="for-ann")
    access.expires_at.FromDatetime(until)
    made = client(pb.CreateViewerTokensResponse(viewers=[access]), pb.RemoveViewerResponse())
    (ann,) = await made.create_viewer_tokens("s", [Viewer(identity="ann")])
    assert (ann.identity, ann.token, ann.expires_at) == ("ann", "for-ann", until)
    assert "for-ann" not in repr(ann)
    await made.remove_viewer("s", "ann")
    first, second = made._runtime.stub.requests
    assert (first.session_id, [viewer.identity for viewer in first.viewers]) == ("s", ["ann"])
    assert (second.session_id, second.identity) == ("s", "ann")
    assert made._runtime.once == [False, False]


async def test_a_pause_and_a_continuation_are_not_repeated():
    paused = pb.PauseSessionResponse(result=pb.PauseResult(utterance_id="u", paused=True))
    made = client(paused, pb.ContinueSessionResponse(result=pb.ContinueResult(utterance_id="u", was_paused=True)))
    assert (await made.pause_session("s", "u", limit=2.5, at_timeout="interrupt")).paused
    assert (await made.continue_session("s")).was_paused
    assert made._runtime.once == [True, True]
    asked = made._runtime.stub.requests[0].pause
    assert (asked.utterance_id, asked.timeout.ToTimedelta().total_seconds()) == ("u", 2.5)
    assert asked.at_timeout == pb.PAUSE_TIMEOUT_ACTION_INTERRUPT
    with pytest.raises(ValueError, match="explode"):
        await made.pause_session("s", at_timeout="explode")


async def test_a_watch_without_ids_and_labels_is_of_all_sessions():
    made = client()
    assert made.watch()._labels == {}
    assert made.watch("s")._labels is None
    assert made.watch({"s": 3}).sequences == {"s": 3}


async def test_a_session_is_prepared_and_its_reservation_taken():
    reserved = pb.PrepareSessionResponse(reservation=pb.Reservation(id="r-1"))
    created = pb.CreateSessionResponse(session=session_pb2.Session(id="s"), handle="handle")
    made = client(reserved, created)
    reservation = await made.prepare_session("avatar", hold=30, quality="low")
    assert reservation.id == "r-1"
    await made.create_session("avatar", reservation=reservation)
    first, second = made._runtime.stub.requests
    assert (first.hold.seconds, bool(first.request_id), first.spec.avatar_id) == (30, True, "avatar")
    assert second.reservation_id == "r-1"
