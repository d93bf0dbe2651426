"""Credentials travel with every call, and are renewed without the caller's notice."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from clients.python.scripted import (
    HANDLE,
    AttachPeer,
    AudioPeer,
    WatchPeer,
    fluent,
    scripted,
    status,
    watchful,
    well_behaved,
)
from cryptography import x509

from liveavatar.gateway import (
    TLS,
    AsyncClient,
    Client,
    CredentialExpired,
    CredentialInvalid,
    CredentialMissing,
    RoleMissing,
    SessionEndedEvent,
    Token,
    TokenUnavailable,
    UpstreamNoticeEvent,
)
from liveavatar.gateway.v1 import session_service_pb2 as pb
from liveavatar_gateway.auth import keys
from liveavatar_gateway.auth.auth_file import AuthConfig
from liveavatar_gateway.auth.authenticator import Authenticator
from liveavatar_gateway.auth.jwks import KeyCache
from liveavatar_gateway.auth.open_calls import OpenCalls
from liveavatar_gateway.auth.tokens import TokenVerifier
from liveavatar_gateway.rpc.interceptors.authentication import AuthenticationInterceptor
from liveavatar_gateway.rpc.interceptors.bounds import BoundsInterceptor
from liveavatar_gateway.rpc.interceptors.calls import SilentCalls
from liveavatar_gateway.rpc.interceptors.errors import ErrorInterceptor
from liveavatar_gateway.rpc.unread import UnreadAnswers
from liveavatar_gateway.telemetry.metrics import Metrics
from testkit.certificates import Authority
from testkit.tokens import TokenIssuer

KEY, OTHER, WATCHER = keys.generate(), keys.generate(), keys.generate()
EXPIRED = status("CREDENTIAL_EXPIRED", grpc.StatusCode.UNAUTHENTICATED, expired_at="now")


def authorization(context) -> str:
    return dict(context.invocation_metadata()).get("authorization", "")


async def info(request, context):
    return pb.GetServerInfoResponse(version=authorization(context))


def auth_config(issuer: TokenIssuer, **changes) -> AuthConfig:
    now = datetime.now(UTC)

    def entry(key, roles, **more):
        return {"id": key.key_id, "digest": key.digest, "roles": roles, "created": now, **more}

    roles = ["open", "speak", "control", "watch"]
    entries = [entry(KEY, roles, **changes), entry(OTHER, roles)]
    trusted = {
        "issuer": issuer.name,
        "audience": ["gateway"],
        "algorithms": ["ES256"],
        "jwks_url": "https://issuer.example/jwks",
        "tenant": "acme",
        "roles": roles,
    }
    tenants = {"acme": {"keys": entries}, "beta": {"keys": [entry(WATCHER, ["watch"])]}}
    return AuthConfig.model_validate({"tenants": tenants, "issuers": [trusted]})


@contextlib.asynccontextmanager
async def authenticating(issuer: TokenIssuer, *scripts, **options):
    """Run a scripted gateway behind the interceptors of the real one."""

    async def fetch() -> bytes:
        return issuer.jwks

    verifier = TokenVerifier(
        lambda found: KeyCache(fetch, found.algorithms, name="i", refresh_s=300, refetch_s=30)
    )
    authenticator = Authenticator(auth_config(issuer), verifier)
    open_calls = OpenCalls(authenticator.check, grace_s=30)
    interceptors = [
        ErrorInterceptor(),
        AuthenticationInterceptor(authenticator, open_calls),
        BoundsInterceptor(
            Metrics(),
            first_message_timeout_s=30.0,
            silent_calls=SilentCalls(100),
            unread=UnreadAnswers(Metrics(), limit_bytes=1_000_000, timeout_s=30.0),
        ),
    ]
    async with scripted(*scripts, interceptors=interceptors, **options) as gateway:
        gateway.unary["GetServerInfo"] = info
        yield gateway, authenticator
    await authenticator.aclose()


@pytest.fixture
def issuer():
    return TokenIssuer()


class Tokens:
    """Token source that counts its calls."""

    def __init__(self, *texts):
        self.texts, self.call_count = list(texts), 0

    async def __call__(self):
        self.call_count += 1
        return self.texts.pop(0)


async def test_a_key_travels_with_every_call_and_every_resume(identity):
    seen = []

    def noting(name, script):
        async def play(peer):
            seen.append((name, authorization(peer.context)))
            await script(peer)

        return play

    async def broken(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.break_off()

    async def noted_info(request, context):
        seen.append(("info", authorization(context)))
        return pb.GetServerInfoResponse()

    server = grpc.ssl_server_credentials([(identity.key, identity.certificate)])
    async with scripted(
        [noting("attach", broken), noting("resume", well_behaved)],
        [noting("speech", fluent)],
        watches=[noting("watch", watchful)],
        credentials=server,
    ) as gateway:
        gateway.unary["GetServerInfo"] = noted_info
        tls = TLS(ca_file=identity.certificate_path)
        async with AsyncClient(gateway.address, credentials="s3cret", tls=tls) as client:
            await client.server_info()
            async with client.open_session("avatar") as session:
                await session.say(bytes(960))
            async with client.watch():
                pass
            assert "s3cret" not in repr(client)
    assert {name for name, _ in seen} == {"info", "attach", "resume", "speech", "watch"}
    assert {text for _, text in seen} == {"Bearer s3cret"}


async def test_keys_and_tokens_are_accepted_by_the_gateways_authentication(issuer, tmp_path):
    (tmp_path / "key").write_text(KEY.text + "\n")
    async with authenticating(issuer) as (gateway, _):
        for given in (KEY.text, tmp_path / "key", issuer.token):
            async with (
                AsyncClient(gateway.address, credentials=given) as client,
                client.open_session("a") as session,
            ):
                assert (await session.say(bytes(960))).kind == "played"


async def test_refusals_are_typed_and_raised_at_once(issuer):
    async with authenticating(issuer) as (gateway, _):
        for given, expected in [(None, CredentialMissing), (keys.generate().text, CredentialInvalid)]:
            async with AsyncClient(gateway.address, credentials=given) as client:
                with pytest.raises(expected):
                    await client.server_info()
                with pytest.raises(expected):
                    await client.open_session("avatar").open()
                with pytest.raises(expected):
                    await client.watch().open()
        async with AsyncClient(gateway.address, credentials=WATCHER.text) as client:
            with pytest.raises(RoleMissing):
                await client.open_session("avatar").open()


async def test_an_expired_token_is_renewed_and_the_call_made_again(issuer):
    source = Tokens(issuer.token(exp=1), issuer.token(), issuer.token(exp=1), issuer.token(exp=1))
    async with authenticating(issuer) as (gateway, _):
        async with AsyncClient(gateway.address, credentials=source) as client:
            await client.server_info()
            async with client.open_session("avatar") as session:
                await session.say(bytes(960))
            assert source.call_count == 2
        async with AsyncClient(gateway.address, credentials=source) as client:
            with pytest.raises(CredentialExpired):
                await client.server_info()
            assert source.call_count == 4


async def test_a_token_is_renewed_before_its_end(issuer):
    soon = datetime.now(UTC) + timedelta(seconds=-1)
    made = [Token(issuer.token(), soon), Token(issuer.token(), None)]
    async with authenticating(issuer) as (gateway, _):
        client = AsyncClient(gateway.address, credentials=lambda: made.pop(0))
        async with client:
            await client.server_info()
            assert len(made) == 1
            await client.server_info()
            assert made == []


async def test_a_key_is_replaced_while_a_session_speaks(issuer, tmp_path):
    """The rotation of the docs: a second key in the file of the client, then the first one is revoked."""
    path = tmp_path / "key"
    path.write_text(KEY.text)
    async with authenticating(issuer) as (gateway, authenticator):
        client = AsyncClient(gateway.address, credentials=path)
        async with client, client.open_session("avatar") as session:
            await session.say(bytes(960))
            path.write_text(OTHER.text)
            authenticator.use(auth_config(issuer, revoked=datetime.now(UTC)))
            assert (await session.say(bytes(960))).kind == "played"
            assert (await client.server_info()).version == f"Bearer {OTHER.text}"


async def test_a_session_whose_token_ends_goes_on_with_another_one():
    """Both streams end with CREDENTIAL_EXPIRED, in the middle of an utterance, and no byte is lost."""
    seen = []

    async def attach(peer: AttachPeer) -> None:
        seen.append(authorization(peer.context))
        if len(seen) > 1:
            await well_behaved(peer)
            return
        await peer.opened()
        await peer.refuse(EXPIRED)

    async def cut(peer: AudioPeer) -> None:
        seen.append(authorization(peer.context))
        await peer.ready()
        begin = await peer.expect("begin")
        await peer.ack(begin.utterance_id, 0)
        await peer.expect("chunk")
        await peer.refuse(EXPIRED)

    async def speak(peer: AudioPeer) -> None:
        seen.append(authorization(peer.context))
        await peer.ready()
        begin = await peer.expect("begin")
        assert begin.resume
        await peer.ack(begin.utterance_id, 0)
        received = 0
        while (message := await peer.read()) is not None and message.WhichOneof("message") == "chunk":
            assert message.chunk.offset_bytes == received
            received += len(message.chunk.audio)
            heard.append(len(message.chunk.audio))
        await peer.ended(begin.utterance_id)
        await peer.read()

    heard: list[int] = []
    source = Tokens("one", "two", "three", "four")
    async with scripted([attach], [cut, speak]) as gateway:
        client = AsyncClient(gateway.address, credentials=source)
        async with client, client.open_session("avatar") as session:
            assert (await session.say(bytes(96_000))).kind == "played"
    assert sum(heard) == 96_000
    assert seen[0] == "Bearer one"
    assert set(seen[2:]) <= {"Bearer two", "Bearer three"}


async def test_a_go_away_for_a_credential_goes_unnoticed():
    seen = []

    async def attach(peer: AttachPeer) -> None:
        seen.append(authorization(peer.context))
        await peer.opened()
        if len(seen) == 1:
            await peer.notice(1)
            await peer.write(go_away=pb.GoAway(handle=HANDLE, reason=pb.GO_AWAY_REASON_CREDENTIAL))
            await peer.read()
            return
        await peer.notice(2)
        await peer.until_end(3)

    async with scripted([attach]) as gateway:
        client = AsyncClient(gateway.address, credentials=Tokens("one", "two"))
        async with client, client.open_session("avatar") as session:
            async with asyncio.timeout(10):
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
            assert (await session.say(bytes(960))).kind == "played"
            await session.end()
            events = [type(event) async for event in session.events()]
    assert seen == ["Bearer one", "Bearer two"]
    assert events == [UpstreamNoticeEvent, UpstreamNoticeEvent, SessionEndedEvent]


async def test_a_stream_whose_key_is_revoked_ends_at_once():
    async def attach(peer: AttachPeer) -> None:
        await peer.opened()
        await peer.refuse(status("CREDENTIAL_INVALID", grpc.StatusCode.UNAUTHENTICATED, cause="revoked"))

    async with scripted([attach]) as gateway, AsyncClient(gateway.address, credentials="lag_key") as client:
        session = client.open_session("avatar")
        await session.open()
        with pytest.raises(CredentialInvalid):
            async for _ in session.events():
                pass
    assert gateway.attach_count == 1


async def test_a_watch_goes_on_with_another_token():
    seen = []

    async def watch(peer: WatchPeer) -> None:
        seen.append(authorization(peer.context))
        if len(seen) == 2:
            await watchful(peer)
            return
        await peer.asked()
        await peer.progress()
        await peer.refuse(EXPIRED)

    async with scripted(watches=[watch]) as gateway:
        client = AsyncClient(gateway.address, credentials=Tokens("one", "two"))
        async with client, client.watch() as changes, asyncio.timeout(10):
            while len(seen) < 2:
                await anext(changes)
    assert seen == ["Bearer one", "Bearer two"]


async def test_nothing_that_is_shown_holds_a_credential(issuer, caplog):
    """Log lines of all levels, errors with their causes, and reprs."""
    shown = []
    with caplog.at_level(logging.DEBUG):
        async with authenticating(issuer) as (gateway, _):
            secret = issuer.token(exp=1)
            async with AsyncClient(gateway.address, credentials=lambda: secret) as client:
                for session in (client.open_session("avatar"), client.resume_session(HANDLE)):
                    with pytest.raises(CredentialExpired) as raised:
                        await session.open()
                    shown += [repr(raised.value), str(raised.value), repr(session)]
                    error: BaseException | None = raised.value
                    while (error := error.__cause__ if error is not None else None) is not None:
                        shown.append(repr(error))
                shown.append(repr(client))
            async with AsyncClient(gateway.address, credentials=lambda: f"{secret} {secret}") as client:
                with pytest.raises(TokenUnavailable) as unusable:
                    await client.server_info()
                shown += [repr(unusable.value), repr(unusable.value.__cause__)]
    assert secret not in "".join([*shown, caplog.text])


def test_the_blocking_client_renews_too(issuer):
    """A blocking source is called in a thread of its own, and may be slow."""
    made = [issuer.token(exp=1), issuer.token()]

    async def serve(use):
        async with authenticating(issuer) as (gateway, _):
            await asyncio.to_thread(use, gateway.address)

    def use(address):
        with Client(address, credentials=lambda: made.pop(0)) as client, client.open_session("a") as session:
            assert session.say(bytes(960)).result(timeout=10).kind == "played"

    asyncio.run(serve(use))
    assert made == []


async def test_a_new_client_certificate_is_used_for_new_connections_and_keeps_the_session(tmp_path):
    authority = Authority()
    server = authority.server()
    names = []

    def write(name: str) -> None:
        signed = authority.sign(name, x509.UniformResourceIdentifier(f"spiffe://example.org/{name}"))
        for file, content in (("cert.pem", signed.certificate), ("key.pem", signed.key)):
            (tmp_path / f"{file}.new").write_bytes(content)
            (tmp_path / f"{file}.new").replace(tmp_path / file)

    async def certified(request, context):
        names.append(context.auth_context()["peer_uri"][0].decode().rpartition("/")[2])
        return pb.GetServerInfoResponse()

    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    write("old")
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)], authority.certificate, require_client_auth=True
    )
    tls = TLS(ca_file=tmp_path / "ca.pem", certificate_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    async with scripted(credentials=credentials) as gateway:
        gateway.unary["GetServerInfo"] = certified
        client = AsyncClient(gateway.address, tls=tls)
        async with client, client.open_session("avatar") as session:
            await client.server_info()
            write("new")
            await client.server_info()
            assert (await session.say(bytes(960))).kind == "played"
            assert session.connected
    assert names == ["old", "new"]
    assert gateway.attach_count == 1
