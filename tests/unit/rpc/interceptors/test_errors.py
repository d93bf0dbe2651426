"""The end of a failed call: one status for whatever was raised, and an incident for a fault of the gateway."""

import asyncio
import gc
import sqlite3
import weakref

import grpc
import pytest
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc._cython import cygrpc
from structlog.testing import capture_logs

from liveavatar_gateway import incidents
from liveavatar_gateway.core import errors as e
from liveavatar_gateway.registry.database import unavailable
from liveavatar_gateway.rpc.interceptors.errors import abort, with_status
from liveavatar_gateway.telemetry.limited_log import LimitedLog


class Context:
    """Notes how a call was aborted, and ends it the way gRPC does."""

    def __init__(self) -> None:
        self.aborted: tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]] | None = None
        self.error: grpc.aio.AbortError | None = None

    async def abort(self, code, message, metadata=()) -> None:
        self.aborted = code, message, metadata
        # gRPC keeps the error too.
        self.error = grpc.aio.AbortError()
        raise self.error

    @property
    def status(self) -> status_pb2.Status:
        assert self.aborted is not None
        ((key, value),) = self.aborted[2]
        assert key == "grpc-status-details-bin"
        return status_pb2.Status.FromString(value)


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Lines of the tests before count for none."""
    monkeypatch.setattr(incidents, "_faults", LimitedLog(incidents._log))


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


async def _refuse(_requests, _context):
    raise e.QuotaExceeded("acme", "unary_calls_per_s", limit=1, retry_after_s=1.0)


async def _refuse_in_a_task(_requests, _context):
    raise ExceptionGroup("tasks", [e.AudioGap("u-1", 10, 20)])


async def _abort(_requests, context):
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")


@pytest.mark.parametrize("behaviour", [_refuse, _refuse_in_a_task, _abort])
async def test_a_refused_call_leaves_nothing_to_the_garbage_collector(behaviour):
    async def outermost(context):
        await with_status(behaviour)(None, context)

    context = Context()
    alive = weakref.ref(context)
    gc.disable()
    try:
        call = asyncio.create_task(outermost(context))
        await asyncio.wait({call})
        assert isinstance(call.exception(), grpc.aio.AbortError)
        assert context.aborted is not None
        del call, context
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.enable()


HOSTILE = "<html>squid/5.7 proxy.corp.example</html> /var/lib/gateway/registry.db no such table: sessions"
PARTS = ("squid", "proxy.corp", "<html>", "/var/lib", "registry.db", "no such table")
FAULTS = (
    sqlite3.OperationalError(HOSTILE),
    sqlite3.DatabaseError(HOSTILE),
    OSError(13, HOSTILE, "/var/lib/gateway/registry.db"),
    FileNotFoundError(2, "No such file", "/var/lib/gateway/registry.db"),
    UnicodeDecodeError("utf-8", HOSTILE.encode(), 0, 1, HOSTILE),
    KeyError(HOSTILE),
    ValueError(HOSTILE),
    RuntimeError(HOSTILE),
)


def leaves(kind: type[e.GatewayError] = e.GatewayError) -> list[type[e.GatewayError]]:
    """Classes of errors without subclasses."""
    below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
    return below or [kind]


def sent(context: Context) -> str:
    """All that a caller reads of the end of a call."""
    assert context.aborted is not None
    return f"{context.aborted[1]} {context.aborted[2]!r}"


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_no_cause_of_an_error_reaches_the_caller(context, kind, fault):
    error = kind.__new__(kind)
    e.GatewayError.__init__(error, "what happened", values={"session_id": "s-1"})
    error.detail = HOSTILE
    error.add_note(HOSTILE)
    error.__cause__ = fault
    with capture_logs() as lines, pytest.raises(grpc.aio.AbortError):
        await end(context, error)
    assert not [part for part in PARTS if part in sent(context)]
    found = info(context.status)
    assert found.reason == kind.reason
    assert found.metadata["session_id"] == "s-1"
    # Other tests of this process may have logged the same within the minute.
    assert all(line["incident"] == found.metadata["incident"] for line in lines)
    assert found.metadata["incident"] in context.aborted[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("grouped", [False, True])
async def test_nothing_of_a_fault_of_the_gateway_reaches_the_caller(context, fault, grouped):
    with capture_logs() as lines, pytest.raises(grpc.aio.AbortError):
        await end(context, ExceptionGroup(HOSTILE, [fault]) if grouped else fault)
    assert not [part for part in PARTS if part in sent(context)]
    # Of many such lines within seconds only some are written.
    incident = info(context.status).metadata["incident"]
    assert incident
    assert all(line["incident"] == incident for line in lines)


async def test_an_unusable_registry_names_no_file(context, tmp_path):
    path = tmp_path / "registry.db"
    with pytest.raises(e.RegistryUnavailable) as refused, unavailable(path):
        sqlite3.connect(tmp_path / "missing" / "registry.db")
    with capture_logs() as lines, pytest.raises(grpc.aio.AbortError):
        await end(context, refused.value)
    assert str(path) in lines[0]["detail"]
    assert "registry.db" not in sent(context)
    assert "unable to open" not in sent(context)
