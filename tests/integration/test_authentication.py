"""Authentication at a real server: a refusal needs no body, and a certificate names its caller."""

import asyncio
import contextlib
import struct
import threading
import time
from datetime import UTC, datetime

import grpc
import pytest
from cryptography import x509
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from liveavatar.gateway.v1 import session_service_pb2 as p
from liveavatar.gateway.v1 import session_service_pb2_grpc
from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import AuthConfig
from liveavatar_gateway.auth.authenticator import Authenticator
from liveavatar_gateway.auth.jwks import KeyCache
from liveavatar_gateway.auth.open_calls import OpenCalls
from liveavatar_gateway.auth.principal import RULES
from liveavatar_gateway.auth.tokens import TokenVerifier
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.rpc.interceptors.authentication import AuthenticationInterceptor, current_principal
from liveavatar_gateway.rpc.interceptors.bounds import BoundsInterceptor
from liveavatar_gateway.rpc.interceptors.calls import SilentCalls
from liveavatar_gateway.rpc.interceptors.errors import ErrorInterceptor
from liveavatar_gateway.rpc.interceptors.handlers import wrapped
from liveavatar_gateway.rpc.unread import UnreadAnswers
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit import http2
from testkit.certificates import Authority
from testkit.http2 import DATA, HEADERS, RST_STREAM, Connection
from testkit.tokens import TokenIssuer

KEY = keys.generate()
AGENT = "spiffe://example.org/agent"
STREAMS = ("Attach", "WatchSessions", "StreamAudio")
METHODS = [method for method in RULES if method.startswith("liveavatar.")]
PREFIX = b"\0" + struct.pack(">I", 1_000_000)
"""Begin of a message of a megabyte."""


class Handler(grpc.GenericRpcHandler):
    """Serves every method of the table, each kind as the contract has it, and answers who called."""

    def service(self, handler_call_details):
        name = handler_call_details.method.removeprefix("/")
        if name not in METHODS:
            return None
        if name.rpartition("/")[2] in STREAMS:
            return grpc.stream_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(
            self.unary, response_serializer=p.GetServerInfoResponse.SerializeToString
        )

    async def unary(self, _request, _context):
        caller = current_principal()
        return p.GetServerInfoResponse(version=f"{caller.tenant} by {caller.method}")

    async def stream(self, _requests, _context):
        raise AssertionError("the handler was called")


class Refusals(grpc.aio.ServerInterceptor):
    """Notes, behind the errors, what each method raised."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    async def intercept_service(self, continuation, handler_call_details):
        def note(behaviour):
            async def call(requests, context):
                try:
                    return await behaviour(requests, context)
                except GatewayError as error:
                    self.seen.append((handler_call_details.method.removeprefix("/"), error.reason))
                    raise

            return call

        return wrapped(await continuation(handler_call_details), note)


def config(issuer: TokenIssuer) -> AuthConfig:
    key = {"id": KEY.key_id, "digest": KEY.digest, "roles": ["open"], "created": datetime.now(UTC)}
    certificate = {"name": f"uri:{AGENT}", "roles": ["speak"]}
    return AuthConfig.model_validate(
        {
            "tenants": {"acme": {"keys": [key]}, "beta": {"certificates": [certificate]}},
            "issuers": [
                {
                    "issuer": issuer.name,
                    "audience": ["gateway"],
                    "algorithms": ["ES256"],
                    "jwks_url": "https://issuer.example/jwks",
                    "tenant": "acme",
                    "roles": ["watch"],
                }
            ],
        }
    )


@contextlib.asynccontextmanager
async def serving(issuer: TokenIssuer, credentials: grpc.ServerCredentials | None = None):
    async def fetch() -> bytes:
        return issuer.jwks

    authenticator = Authenticator(
        config(issuer),
        TokenVerifier(lambda found: KeyCache(fetch, found.algorithms, name="i", refresh_s=300, refetch_s=30)),
    )
    refusals = Refusals()
    server = grpc.aio.server(
        interceptors=[
            ErrorInterceptor(),
            refusals,
            AuthenticationInterceptor(authenticator, OpenCalls(authenticator.check, grace_s=30.0)),
            BoundsInterceptor(
                Metrics(),
                first_message_timeout_s=30.0,
                silent_calls=SilentCalls(100),
                unread=UnreadAnswers(Metrics(), limit_bytes=1_000_000, timeout_s=30.0),
            ),
        ],
        options=[("grpc.so_reuseport", 0)],
    )
    server.add_generic_rpc_handlers((Handler(),))
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address = "127.0.0.1:0"
    port = (
        server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    )
    await server.start()
    try:
        yield f"127.0.0.1:{port}", refusals
    finally:
        await server.stop(0)
        await authenticator.aclose()


@pytest.fixture
def issuer():
    return TokenIssuer()


@pytest.fixture
async def server(issuer):
    async with serving(issuer) as found:
        yield found


@pytest.fixture
def address(server):
    return server[0]


def reason(error: grpc.aio.AioRpcError) -> str:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def info(address: str, *metadata: tuple[str, str]) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        return (await stub.GetServerInfo(p.GetServerInfoRequest(), metadata=metadata, timeout=10)).version


def refuse_without_a_body(address: str, method: str, body: str) -> tuple[list[int], bool]:
    """Make a call whose body does not end; return the kinds of the answer's frames, and whether it was reset."""
    stop = threading.Event()
    with Connection(address) as connection:
        stream = connection.call(f"/{method}", end=False)

        def send_without_end() -> None:
            content = PREFIX
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    connection.socket.sendall(http2.frame(DATA, 0, stream, content))
                    content = b"x" * 1000
                    time.sleep(0.01)

        sender = threading.Thread(target=send_without_end)
        if body == "a part of a message":
            connection.socket.sendall(http2.frame(DATA, 0, stream, PREFIX + b"x"))
        elif body == "a message without end":
            sender.start()
        try:
            frames = [frame.kind for frame in connection.answer(stream)]
            # The reset makes the caller stop sending.
            while frames[-1] != RST_STREAM:
                frame = connection.read()
                if frame.stream == stream:
                    frames.append(frame.kind)
        finally:
            stop.set()
            if sender.ident is not None:
                sender.join()
    return frames[:-1], frames[-1] == RST_STREAM


@pytest.mark.parametrize("body", ["nothing", "a part of a message", "a message without end"])
async def test_a_call_without_a_credential_is_refused_although_its_body_never_ends(server, body):
    """Through a handler of a unary call, gRPC would wait for the first message, without a limit."""
    address, refusals = server
    for method in METHODS:
        async with asyncio.timeout(10):
            kinds, is_reset = await asyncio.to_thread(refuse_without_a_body, address, method, body)
        assert (method, kinds, is_reset) == (method, [HEADERS], True)
    assert refusals.seen == [(method, "CREDENTIAL_MISSING") for method in METHODS]


async def test_each_method_refuses_a_call_without_a_credential_with_a_reason(address):
    async with grpc.aio.insecure_channel(address) as channel:
        for method in METHODS:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/{method}")(b"", timeout=10)
            assert (refused.value.code(), reason(refused.value)) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "CREDENTIAL_MISSING",
            )


async def test_a_key_and_a_token_name_their_caller(address, issuer):
    assert await info(address, ("authorization", f"Bearer {KEY.text}")) == "acme by api_key"
    assert await info(address, ("x-api-key", KEY.text)) == "acme by api_key"
    assert await info(address, ("authorization", f"Bearer {issuer.token()}")) == "acme by token"


async def test_calls_at_the_same_time_have_callers_of_their_own(address, issuer):
    key, token = f"Bearer {KEY.text}", f"Bearer {issuer.token()}"
    calls = [info(address, ("authorization", key if number % 2 else token)) for number in range(20)]
    assert await asyncio.gather(*calls) == ["acme by token", "acme by api_key"] * 10


async def test_a_method_that_the_roles_do_not_include_is_refused(address):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.EndSession(
                p.EndSessionRequest(), metadata=(("authorization", f"Bearer {KEY.text}"),), timeout=10
            )
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    assert "needs the role control" in refused.value.details()


async def test_health_needs_no_credential(address):
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def authority():
    return Authority()


class TestCertificates:
    @pytest.fixture
    async def secure_address(self, issuer, authority):
        server = authority.server()
        credentials = grpc.ssl_server_credentials(
            [(server.key, server.certificate)], authority.certificate, require_client_auth=True
        )
        async with serving(issuer, credentials) as found:
            yield found[0]

    @staticmethod
    async def info(address, authority, *names, metadata=()):
        caller = authority.sign("the common name", *names)
        credentials = grpc.ssl_channel_credentials(authority.certificate, caller.key, caller.certificate)
        async with grpc.aio.secure_channel(address, credentials) as channel:
            stub = session_service_pb2_grpc.SessionServiceStub(channel)
            return (await stub.GetServerInfo(p.GetServerInfoRequest(), metadata=metadata, timeout=10)).version

    async def test_a_spiffe_id_names_the_caller(self, secure_address, authority):
        name = x509.UniformResourceIdentifier(AGENT)
        assert await self.info(secure_address, authority, name) == "beta by certificate"

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ([], "CREDENTIAL_MISSING"),
            ([x509.DNSName("other.example.org")], "CREDENTIAL_INVALID"),
            # gRPC's `peer_identities` returns the same for this certificate as for the right one.
            ([x509.DNSName(AGENT)], "CREDENTIAL_INVALID"),
        ],
    )
    async def test_another_name_is_refused(self, secure_address, authority, names, expected):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.info(secure_address, authority, *names)
        assert reason(refused.value) == expected

    async def test_a_key_of_another_tenant_than_the_certificates_is_refused(self, secure_address, authority):
        metadata = (("authorization", f"Bearer {KEY.text}"),)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.info(secure_address, authority, x509.UniformResourceIdentifier(AGENT), metadata=metadata)
        assert reason(refused.value) == "CREDENTIAL_INVALID"
