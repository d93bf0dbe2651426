"""The end of a failed call: one status for whatever was raised, and an incident for a fault of the gateway."""

import grpc
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc._cython import cygrpc

from liveavatar_gateway.core import errors as e
from liveavatar_gateway.rpc.interceptors.errors import abort, with_status


class Context:
    """Notes how a call was aborted, and ends it the way gRPC does."""

    def __init__(self) -> None:
        self.aborted: tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]] | None = None

    async def abort(self, code, message, metadata) -> None:
        self.aborted = code, message, metadata
        raise grpc.aio.AbortError

    @property
    def status(self) -> status_pb2.Status:
        assert self.aborted is not None
        ((key, value),) = self.aborted[2]
        assert key == "grpc-status-details-bin"
        return status_pb2.Status.FromString(value)


@pytest.fixture
def context():
    return Context()


async def end(context: Context, fault: BaseException) -> None:
    """Let a servicer raise something."""

    async def raising(_requests, _context):
        raise fault

    await with_status(raising)(None, context)


def info(status: status_pb2.Status) -> ErrorInfo:
    (found,) = [packed for packed in status.details if packed.Is(ErrorInfo.DESCRIPTOR)]
    unpacked = ErrorInfo()
    found.Unpack(unpacked)
    return unpacked


async def test_a_call_ends_with_the_status_and_its_details(context):
    with pytest.raises(grpc.aio.AbortError):
        await abort(context, e.AudioGap("u-1", 10, 20))
    assert context.aborted[:2] == (grpc.StatusCode.FAILED_PRECONDITION, context.status.message)
    assert info(context.status).reason == "AUDIO_GAP"


async def test_a_call_that_is_not_refused_is_left_alone(context):
    async def returning(requests, _context):
        return requests

    assert await with_status(returning)("response", context) == "response"
    assert context.aborted is None


@pytest.mark.parametrize(
    "fault",
    [
        grpc.aio.InternalError("write"),
        ExceptionGroup("tasks", [grpc.aio.InternalError("write")]),
        cygrpc._ServerStoppedError("read"),
        ExceptionGroup("tasks", [cygrpc._ServerStoppedError("read")]),
    ],
    ids=["alone", "in a task", "server stopped", "server stopped, in a task"],
)
async def test_a_write_to_a_caller_that_is_gone_is_no_fault(context, capsys, fault):
    await end(context, fault)
    assert context.aborted is None
    assert "rpc.fault" not in "".join(capsys.readouterr())


async def test_a_fault_beside_a_write_to_a_caller_that_is_gone_is_one(context):
    with pytest.raises(grpc.aio.AbortError):
        await end(context, ExceptionGroup("tasks", [grpc.aio.InternalError("write"), ValueError("x")]))
    assert info(context.status).reason == "INTERNAL"


async def test_a_refusal_ends_the_call_with_its_status(context):
    with pytest.raises(grpc.aio.AbortError):
        await end(context, e.Draining())
    assert context.aborted[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_refusal_among_what_several_tasks_raised_is_found(context):
    inner = ExceptionGroup("tasks", [ValueError("x"), e.SessionEnded("s-1", "IDLE")])
    with pytest.raises(grpc.aio.AbortError):
        await end(context, ExceptionGroup("tasks", [ExceptionGroup("empty", [ValueError("x")]), inner]))
    assert info(context.status).reason == "SESSION_ENDED"


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("key la-secret-123 refused"),
        ExceptionGroup("tasks", [ValueError("token la-secret-123")]),
    ],
    ids=["one", "several"],
)
async def test_a_fault_of_our_own_tells_an_incident_and_nothing_of_its_inside(context, fault, capsys):
    with pytest.raises(grpc.aio.AbortError):
        await end(context, fault)
    found = info(context.status)
    assert context.aborted[0] is grpc.StatusCode.UNKNOWN
    assert found.reason == "INTERNAL"
    assert found.metadata["incident"] in context.status.message
    assert b"secret" not in context.status.SerializeToString()
    assert found.metadata["incident"] in capsys.readouterr().out


@pytest.mark.parametrize("raised", [grpc.aio.AbortError(), grpc.RpcError()])
async def test_a_call_that_was_ended_already_is_not_ended_again(context, raised):
    with pytest.raises(type(raised)):
        await end(context, raised)
    assert context.aborted is None
