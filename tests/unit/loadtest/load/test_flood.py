"""A flood comes at ten times each quota, and counts what the gateway accepts and refuses."""

import time
from collections.abc import AsyncIterator

import grpc
import pytest

from liveavatar.gateway.channel import Connection
from liveavatar.gateway.v1 import session_service_pb2, session_service_pb2_grpc
from load.figures import Recorder
from load.flood import HOLD_S, TIMES, Flood, Rates
from load.recorder import LoadRecorder
from stage.tenants import NOISY, QUOTAS


class _Sessions(session_service_pb2_grpc.SessionServiceServicer):
    """Gateway that answers GetServerInfo and implements no other method."""

    async def GetServerInfo(self, request, context):  # noqa: N802 - gRPC's
        return session_service_pb2.GetServerInfoResponse()


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    server = grpc.aio.server()
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(_Sessions(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = Connection(f"127.0.0.1:{port}", None, ())
    yield connection
    await connection.close()
    await server.stop(0)


def test_each_kind_of_call_comes_at_ten_times_its_quota():
    quotas = QUOTAS[NOISY]
    rates = Rates.of(quotas)
    assert rates.unary == 10 * quotas["unary_calls_per_s"]
    assert rates.lists == 10 * quotas["list_calls_per_s"]
    assert rates.opens == pytest.approx(10 * quotas["opens_per_min"] / 60)
    assert rates.streams * HOLD_S == TIMES * quotas["max_streams"]
    assert rates.watches * HOLD_S == TIMES * quotas["max_watches"]
    assert rates.opens * HOLD_S == TIMES * quotas["max_sessions"]


async def test_answers_are_counted_and_what_no_quota_refuses_is_an_error(connection: Connection):
    recorder = LoadRecorder(Recorder(time.monotonic()), lambda *_: False)
    rates = Rates(unary=50, lists=50, opens=50, streams=50, watches=50)
    await Flood(connection, (), recorder.of_tenant("a"), rates, avatar_id="x").run(1.0)
    assert recorder.measured.counters["gateway", "calls accepted"] > 0
    assert recorder.measured.tenants["a"].counters == recorder.measured.counters
    assert set(recorder.measured.errors) == {("gateway", "FLOOD: UNIMPLEMENTED")}
