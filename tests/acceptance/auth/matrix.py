"""Every RPC with every kind of credential: each cell has the answer that the table of roles says.

The RPCs come from the contract, so a new one without a rule fails here.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from acceptance.auth.stage import Stage, stage
from acceptance.line import Line, Outcome, Setting
from liveavatar.gateway.v1 import admin_service_pb2, audio_service_pb2, session_pb2, session_service_pb2
from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.principal import RULES, Role
from testkit.caller import Caller, make_spec, refusal, write
from testkit.tenants import caller_with

SERVICES = (
    session_service_pb2.DESCRIPTOR.services_by_name["SessionService"],
    audio_service_pb2.DESCRIPTOR.services_by_name["AudioService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
_LAST = ("EndSession", "EjectSession", "Drain", "Undrain")
"""Methods that change what the others need."""
_IN_OWN_ROOM = ("CreateViewerTokens", "RemoveViewer")
"""Methods that only a session in a room of the caller's own has."""
_OWN_ROOM = session_pb2.LiveKitRoom(name="acme-room")
_NO_LIVEKIT_SERVER: Mapping[str, object] = {
    "livekit_url": "ws://127.0.0.1:9",
    "livekit_key": "key",
    "livekit_secret": "s" * 32,
}
_UNDO = {"Drain": "Undrain", "PauseAccount": "ResumeAccount", "DrainAccount": "ResumeAccount"}
"""Methods that take back what keeps further sessions from being created."""


def methods() -> Mapping[str, MethodDescriptor]:
    """Return every method of the contract by `service/method`, those that end something last."""
    found = {f"{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
    return dict(sorted(found.items(), key=lambda item: _LAST.index(item[1].name) if item[1].name in _LAST else -1))


def request_of(method: MethodDescriptor, *, session_id: str, handle: str) -> Any:
    """Return a request about one session; the empty message for a method that names none."""
    request = message_factory.GetMessageClass(method.input_type)()
    fields = {field.name for field in method.input_type.fields}
    if "session_id" in fields:
        request.session_id = session_id
    if "account" in fields:
        request.account = "default"
    match method.name:
        case "CreateSession" | "PrepareSession":
            request.spec.CopyFrom(make_spec())
        case "Attach":
            request.resume.handle = handle
        case "StreamAudio" | "ListenAudio":
            request.header.session_id = session_id
        case "WatchSessions":
            request.add.session_id = session_id
        case "CreateViewerTokens":
            request.viewers.add(identity="ann")
        case "RemoveViewer":
            request.identity = "ann"
    return request


class Matrix:
    """Cells of the matrix, each asked of a real gateway."""

    def __init__(self, at: Stage) -> None:
        self._at = at
        self.cells = 0
        self.wrong: list[str] = []

    async def ask(self, caller: Caller, path: str, method: MethodDescriptor, request: Any) -> str:
        """Return OK, or the reason of the refusal."""
        channel: Any = caller.channel
        response = message_factory.GetMessageClass(method.output_type)
        make = channel.stream_stream if method.client_streaming else channel.unary_unary
        call = make(
            f"/{path}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        while True:
            try:
                answer = await self._answer(call, request, streams=method.client_streaming)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core":
                    # grpc.aio lost the status: the stream ended while its first message was written.
                    continue
                reason = refusal(error).reason
                # The stage has no LiveKit server: who may listen or remove a viewer gets as far as the room.
                return "OK" if reason == "ROOM_UNREACHABLE" else reason
            if method.name == "WatchSessions" and answer.HasField("removed"):
                # A refused watch is an answer on the stream, with the status that a call would have.
                return "SESSION_NOT_FOUND"
            return "OK"

    @staticmethod
    async def _answer(call: Any, request: Any, *, streams: bool) -> Any:
        if not streams:
            return await call(request, timeout=30)
        stream = call(timeout=30)
        try:
            await write(stream, request)
            # Raises the status of a refused stream.
            response = await stream.read()
            assert response is not grpc.aio.EOF
            return response
        finally:
            stream.cancel()

    def expect(self, path: str, credential: str, got: str, *, wanted: set[str]) -> None:
        """Count a cell, and note it if it has another answer than one of those."""
        self.cells += 1
        if got not in wanted:
            self.wrong.append(f"{path} with {credential}: {got}, not {' or '.join(sorted(wanted))}")


async def _run(_setting: Setting) -> Outcome:
    found = methods()
    contract = {path for path in RULES if not path.startswith("grpc.")}
    if contract != set(found):
        raise AssertionError(f"rules and contract differ: {sorted(contract ^ set(found))}")
    with stage("acme", "beta", admin_port=0, **_NO_LIVEKIT_SERVER) as at:
        matrix = Matrix(at)
        everything = [role.value for role in Role]
        credentials = {
            "no credential": "",
            "a wrong key": keys.generate().text,
            "a wrong signature": at.token("acme", *everything)[:-8] + "AAAAAAAA",
            "an expired token": at.token("acme", *everything, lifetime_s=-3600),
            "another tenant": at.token("beta", *(role for role in everything if role != "admin")),
            **{f"the role {role}": at.token("acme", role) for role in everything},
            "every role": at.token("acme", *everything),
        }
        async with caller_with(at.gateway.address, credentials["every role"]) as own:
            for path, method in found.items():
                address = at.gateway.admin_address if "AdminService" in path else at.gateway.address
                for name, credential in credentials.items():
                    room = {"livekit_room": _OWN_ROOM} if method.name in _IN_OWN_ROOM else {}
                    created = await own.create(**room) if method.name != "Undrain" else None
                    session_id = created.session.id if created else "none"
                    request = request_of(method, session_id=session_id, handle=created.handle if created else "")
                    async with caller_with(address, credential) as caller:
                        got = await matrix.ask(caller, path, method, request)
                        if method.name in _UNDO and got == "OK":
                            undo = f"liveavatar.gateway.v1.AdminService/{_UNDO[method.name]}"
                            undoing = request_of(found[undo], session_id="", handle="")
                            await matrix.ask(caller, undo, found[undo], undoing)
                    matrix.expect(path, name, got, wanted=_wanted(path, method, name))
                    if created is not None:
                        await own.end(session_id)
        figure = f"{matrix.cells - len(matrix.wrong)} of {matrix.cells} cells, {len(found)} RPCs"
        return Outcome(figure="; ".join([figure, *matrix.wrong[:5]]), passed=not matrix.wrong)


def _wanted(path: str, method: MethodDescriptor, credential: str) -> set[str]:
    """Return the answers that a cell may have."""
    names_session = method.name in ("Attach", "StreamAudio", "ListenAudio", "WatchSessions") or any(
        field.name == "session_id" for field in method.input_type.fields
    )
    match credential:
        case "no credential":
            return {"CREDENTIAL_MISSING"}
        case "a wrong key" | "a wrong signature":
            return {"CREDENTIAL_INVALID"}
        case "an expired token":
            return {"CREDENTIAL_EXPIRED"}
        case "another tenant":
            if RULES[path] == {Role.ADMIN}:
                return {"ROLE_MISSING"}
            return {"SESSION_NOT_FOUND"} if names_session else {"OK"}
        case "every role":
            return {"OK"}
        case _:
            role = Role(credential.removeprefix("the role "))
            allowed = role in RULES[path]
            if method.name == "Attach" and role is Role.OPEN:
                # The stream is allowed, and this first message of it is not: only `open` is.
                allowed = False
            return {"OK"} if allowed else {"ROLE_MISSING"}


MATRIX = Line(
    name="matrix",
    goal="every RPC x credential has the answer of the table",
    run=_run,
)
