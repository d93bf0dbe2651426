import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from liveavatar.gateway import DEFAULT_OPTIONS, ConnectionLost, MessageRefused, errors
from liveavatar.gateway.channel import (
    HEARTBEAT_FLOOR_S,
    Connection,
    Stream,
    answer,
    heartbeat_interval_s,
    merged_options,
    transient,
)
from liveavatar.gateway.refusals import from_rpc_error


def failed(code, details=""):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def test_grpc_repeats_nothing_below_this_library():
    options = dict(DEFAULT_OPTIONS)
    assert options["grpc.enable_retries"] == 0
    assert "grpc.service_config" not in options


def test_pings_keep_a_quiet_stream_alive_and_stop_without_one():
    options = dict(DEFAULT_OPTIONS)
    assert 20_000 <= options["grpc.keepalive_time_ms"] <= 30_000
    assert options["grpc.keepalive_permit_without_calls"] == 0
    assert options["grpc.http2.max_pings_without_data"] == 0


def test_a_silent_peer_is_noticed_within_the_default_grace():
    """30 s; gRPC would wait a minute for a ping's answer."""
    options = dict(DEFAULT_OPTIONS)
    assert options["grpc.http2.ping_timeout_ms"] == options["grpc.keepalive_timeout_ms"]
    assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] < 30_000


def test_the_callers_options_win():
    merged = merged_options([("grpc.keepalive_time_ms", 60_000), ("grpc.ssl_target_name_override", "me")])
    assert dict(merged)["grpc.keepalive_time_ms"] == 60_000
    assert dict(merged)["grpc.ssl_target_name_override"] == "me"
    assert len(merged) == len(DEFAULT_OPTIONS) + 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.ConnectionLost("", code=grpc.StatusCode.UNAVAILABLE), True),
        (errors.Draining("", code=grpc.StatusCode.UNAVAILABLE), True),
        (errors.OwnerMoved("", code=grpc.StatusCode.ABORTED), True),
        (errors.InternalError("", code=grpc.StatusCode.INTERNAL, reason=""), True),
        (errors.InternalError("", code=grpc.StatusCode.UNKNOWN), False),
        (errors.FirstMessageTimeout("", code=grpc.StatusCode.DEADLINE_EXCEEDED), True),
        (errors.RegistryUnavailable("", code=grpc.StatusCode.UNAVAILABLE), False),
        (errors.MessageRefused("", code=grpc.StatusCode.RESOURCE_EXHAUSTED), False),
        (errors.ForkedClient("", code=grpc.StatusCode.FAILED_PRECONDITION), False),
        (errors.ClientClosed("", code=grpc.StatusCode.CANCELLED), False),
        (errors.UpstreamUnreachable("", code=grpc.StatusCode.UNAVAILABLE), False),
        (errors.SessionEnded("", code=grpc.StatusCode.FAILED_PRECONDITION), False),
        (errors.AttachSuperseded("", code=grpc.StatusCode.ABORTED), False),
    ],
)
def test_only_the_transport_is_tried_again(error, again):
    assert transient(error) is again


FINAL = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}


@pytest.mark.parametrize("code", sorted(set(grpc.StatusCode) - {grpc.StatusCode.OK}, key=lambda code: code.name))
def test_a_status_without_the_gateways_reason_is_tried_again_unless_waiting_cannot_help(code):
    assert transient(from_rpc_error(failed(code, "Received RST_STREAM with error code 11"))) is (code not in FINAL)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (5 vs. 4)"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Sent message larger than max (5 vs. 4)"),
        (grpc.StatusCode.INTERNAL, "Exception deserializing response!"),
    ],
)
def test_a_message_that_grpc_refuses_is_not_sent_again(code, said):
    error = from_rpc_error(failed(code, said))
    assert isinstance(error, MessageRefused)
    assert str(error) == said
    assert not transient(error)


async def test_bytes_that_are_no_message_are_no_end():
    """grpc.aio gives None for them."""
    with pytest.raises(MessageRefused):
        await Stream(FakeCall([None])).read()

    async def undecodable():
        return None

    with pytest.raises(MessageRefused):
        await answer(undecodable())


@pytest.mark.parametrize(
    ("announced", "interval_s"),
    [
        (duration_pb2.Duration(), None),
        (duration_pb2.Duration(seconds=-1), None),
        (duration_pb2.Duration(nanos=1), HEARTBEAT_FLOOR_S),
        (duration_pb2.Duration(seconds=20), 20.0),
        (duration_pb2.Duration(seconds=(1 << 63) - 1), float(1 << 63)),
    ],
)
def test_a_heartbeat_interval_is_bounded_however_it_is_announced(announced, interval_s):
    assert heartbeat_interval_s(announced) == interval_s


class WriteCall:
    """Takes messages one at a time, as gRPC does, slowly."""

    def __init__(self):
        self.written = []
        self.busy = False
        self.over = False

    def add_done_callback(self, callback):
        pass

    async def write(self, message):
        if self.over:
            raise asyncio.InvalidStateError
        assert not self.busy, "two messages at once"
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False
        self.written.append(message)


async def test_a_heartbeat_is_sent_when_nothing_else_was_and_never_beside_it():
    call = WriteCall()
    stream = Stream(call)
    beating = asyncio.create_task(stream.keep_alive("beat", 0.02))
    for _ in range(40):
        await stream.write("speech")
    assert "beat" not in call.written
    for _ in range(3):
        before = call.written.count("beat")
        while call.written.count("beat") == before:
            await asyncio.sleep(0.001)
        await asyncio.gather(*(stream.write("speech") for _ in range(5)))
    call.over = True
    await asyncio.wait_for(beating, 5)


class FakeCall:
    """A call as grpc.aio has it, with a status that a late write spoils."""

    def __init__(self, outcomes):
        self.outcomes = list(outcomes)
        self.callbacks = []
        self.status = failed(grpc.StatusCode.OK)

    def add_done_callback(self, callback):
        self.callbacks.append(callback)

    def finish(self, status):
        self.status = status
        for callback in self.callbacks:
            callback(self)

    async def code(self):
        return self.status.code()

    async def details(self):
        return self.status.details()

    async def trailing_metadata(self):
        return self.status.trailing_metadata()

    async def read(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    write = done_writing = None


async def test_a_late_write_does_not_hide_why_a_stream_ended():
    """grpcio then says INTERNAL, in place of what the gateway said (grpc/grpc#36066)."""
    spoiled = failed(grpc.StatusCode.INTERNAL, "Internal error from Core")
    call = FakeCall([b"message", spoiled])
    stream = Stream(call)
    assert await stream.read() == b"message"
    call.finish(failed(grpc.StatusCode.ABORTED, "taken over"))
    call.finish(spoiled)
    with pytest.raises(errors.OwnershipError, match="taken over"):
        await stream.read()


async def test_a_late_write_does_not_make_a_good_end_a_bad_one():
    spoiled = failed(grpc.StatusCode.INTERNAL, "Internal error from Core")
    call = FakeCall([spoiled])
    stream = Stream(call)
    call.finish(failed(grpc.StatusCode.OK))
    assert await stream.read() is None


async def test_the_end_of_a_stream_is_none():
    assert await Stream(FakeCall([grpc.aio.EOF])).read() is None


async def test_a_call_that_was_cut_from_outside_is_no_cancellation_of_ours():
    with pytest.raises(ConnectionLost):
        await Stream(FakeCall([asyncio.CancelledError()])).read()

    async def cut():
        raise asyncio.CancelledError

    with pytest.raises(ConnectionLost):
        await answer(cut())


async def test_writing_to_a_finished_call_is_answered_with_false():
    class Finished(FakeCall):
        async def write(self, message):
            raise asyncio.InvalidStateError

        async def done_writing(self):
            raise asyncio.InvalidStateError

    stream = Stream(Finished([]))
    assert await stream.write(b"") is False
    await stream.finish_writing()


async def test_the_error_of_a_stream_is_reported_before_it_is_raised():
    seen, done = [], []
    call = FakeCall([failed(grpc.StatusCode.UNAUTHENTICATED)])
    stream = Stream(call, on_error=seen.append, on_done=lambda: done.append(True))
    call.finish(failed(grpc.StatusCode.UNAUTHENTICATED))
    with pytest.raises(errors.Unauthenticated) as raised:
        await stream.read()
    assert seen == [raised.value]
    assert done == [True]


async def test_a_retired_connection_is_closed_when_its_last_call_ends():
    connection = Connection("127.0.0.1:1", None, ())
    connection.begin_call()
    retiring = asyncio.create_task(connection.retire())
    await asyncio.sleep(0)
    assert not retiring.done()
    connection.end_call()
    await asyncio.wait_for(retiring, 5)
    await connection.close()


def test_a_failed_token_source_and_unread_keys_of_an_issuer_may_pass():
    unverifiable = errors.CredentialUnverifiable(
        "", code=grpc.StatusCode.UNAVAILABLE, reason="CREDENTIAL_UNVERIFIABLE"
    )
    assert transient(unverifiable)
    assert transient(errors.TokenUnavailable(""))
    assert not transient(errors.PlaintextRefused(""))
