"""Every text, list and map in requests has a bound, and a gateway refuses more with the name of the field."""

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from liveavatar.gateway.v1 import admin_service_pb2, audio_service_pb2, session_service_pb2
from liveavatar_gateway.rpc.field_bounds import BOUNDS, ByHandler, Labels, Messages, Numbers, Text, Texts
from testkit import processes
from testkit.caller import STEP_TIMEOUT_S, refused

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
_FILES = (session_service_pb2, audio_service_pb2, admin_service_pb2, health_pb2, reflection_pb2)
_METHODS = [
    method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def _paths(message: Descriptor, parents: tuple[FieldDescriptor, ...] = ()) -> list[tuple[FieldDescriptor, ...]]:
    """Return the ways to all texts, lists and maps in a message."""
    found = []
    for field in message.fields:
        path = (*parents, field)
        if field.is_repeated or field.type in _TEXTS:
            found.append(path)
        if field.type == FieldDescriptor.TYPE_MESSAGE and not _is_map(field):
            found += _paths(field.message_type, path)
    return found


def _is_map(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.GetOptions().map_entry


_FIELDS = [(method, path) for method in _METHODS for path in _paths(method.input_type)]
_CHECKED = [
    (method, path) for method, path in _FIELDS if not isinstance(BOUNDS.get(path[-1].full_name), ByHandler)
]


def test_every_text_list_and_map_in_requests_has_a_bound():
    fields = {path[-1].full_name for _, path in _FIELDS}
    assert fields - set(BOUNDS) == set(), "add their bounds to rpc/field_bounds.py"
    assert set(BOUNDS) - fields == set()


def _beyond(field: FieldDescriptor) -> object:
    """Return a value beyond the bound of a field."""
    match BOUNDS[field.full_name]:
        case Text(max_chars=most):
            return "x" * (most + 1)
        case Texts(max_count=most):
            return ["x"] * (most + 1)
        case Numbers(max_count=most):
            return [1] * (most + 1)
        case Messages(max_count=most):
            return [GetMessageClass(field.message_type)() for _ in range(most + 1)]
        case Labels(max_count=most):
            return {f"key-{number}": "x" for number in range(most + 1)}
    raise AssertionError(field.full_name)


def _request(kind: Descriptor, path: tuple[FieldDescriptor, ...]) -> Message:
    value: object = _beyond(path[-1])
    for field in reversed(path):
        if field.is_repeated and field is not path[-1]:
            value = [value]
        value = GetMessageClass(field.containing_type)(**{field.name: value})
    assert isinstance(value, Message)
    assert value.DESCRIPTOR is kind
    return value


@pytest.fixture(scope="module")
def gateway(shared_emulator):
    with processes.gateway(shared_emulator.url, admin_port=0, reflection="true") as found:
        yield found


@pytest.mark.parametrize(
    ("method", "path"),
    _CHECKED,
    ids=[f"{method.name}-{'.'.join(field.name for field in path)}" for method, path in _CHECKED],
)
async def test_a_value_beyond_its_bound_is_refused_with_the_name_of_its_field(gateway, method, path):
    is_for_operators = method.containing_service.name == "AdminService"
    address = gateway.admin_address if is_for_operators else gateway.address
    request = _request(method.input_type, path).SerializeToString()
    name = f"/{method.containing_service.full_name}/{method.name}"
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(name)(iter([request]), timeout=STEP_TIMEOUT_S)
        why = await refused(call.read())
    assert (why.reason, why.code) == ("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT)
    inner = [f"{field.name}[0]" if field.is_repeated else field.name for field in path[:-1]]
    assert why.field == ".".join([*inner, path[-1].name])
