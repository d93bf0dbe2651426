"""Gateway of several tenants: each has its own credentials, sessions, quotas and ends."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import grpc
import jwt
import pytest
from cryptography import x509
from google.protobuf import duration_pb2

from liveavatar.gateway.v1 import session_pb2
from liveavatar.gateway.v1 import session_service_pb2 as p
from testkit.caller import refusal, refused, refused_stream
from testkit.certificates import Authority
from testkit.processes import gateway
from testkit.tenants import TenantsFile, caller_with


@pytest.fixture
def tenants(tmp_path):
    file = TenantsFile(tmp_path / "tenants.toml")
    file.tenant("acme")
    file.tenant("beta")
    return file


@pytest.fixture
def serving(emulator, tenants):
    with gateway(emulator.url, auth_file=tenants.path, credential_grace_s=1.0) as process:
        yield process


@pytest.fixture
async def acme(serving, tenants):
    key = tenants.key("acme")
    async with caller_with(serving.address, key) as caller:
        await _known(caller)
        yield caller


@pytest.fixture
async def beta(serving, tenants):
    key = tenants.key("beta")
    async with caller_with(serving.address, key) as caller:
        await _known(caller)
        yield caller


async def _known(caller, *, before: grpc.StatusCode = grpc.StatusCode.UNAUTHENTICATED) -> None:
    """Wait until the gateway has read the file that accepts a caller, whom it refuses with `before` until then."""
    async with asyncio.timeout(30):
        while (code := await _code(caller)) is not grpc.StatusCode.OK:
            assert code is before
            await asyncio.sleep(0.2)


async def _code(caller) -> grpc.StatusCode:
    return await caller.sessions.GetServerInfo(p.GetServerInfoRequest(), timeout=5).code()


async def test_another_tenant_cannot_see_or_use_a_session(acme, beta):
    created = await acme.create("wish", labels={"team": "a"})
    session_id = created.session.id
    assert created.session.tenant == "acme"
    attempts = {
        "get": beta.get(session_id),
        "end": beta.end(session_id),
        "interrupt": beta.sessions.InterruptSession(p.InterruptSessionRequest(session_id=session_id)),
        "resume": beta.resume(created.handle),
        "speak": beta.speak(session_id),
    }
    for name, attempt in attempts.items():
        assert (await refused(attempt)).reason == "SESSION_NOT_FOUND", name
    assert not (await beta.sessions.ListSessions(p.ListSessionsRequest())).sessions
    watch = beta.watch()
    await watch.filter(team="a")
    await watch.add(session_id)
    assert (await watch.until("removed")).session_id == session_id
    assert session_id not in await watch.progress()
    mine = await acme.sessions.ListSessions(p.ListSessionsRequest())
    assert [one.id for one in mine.sessions] == [session_id]
    assert (await acme.get(session_id)).state == session_pb2.SESSION_STATE_READY


async def test_the_same_request_id_of_two_tenants_makes_two_sessions(acme, beta):
    mine, theirs = await acme.create("wish"), await beta.create("wish")
    assert mine.session.id != theirs.session.id
    assert mine.handle != theirs.handle
    assert (await acme.create("wish")).session.id == mine.session.id


async def test_a_tenant_that_is_suspended_loses_its_sessions_and_no_other_does(acme, beta, tenants):
    attached = await acme.attach()
    await attached.until_ready()
    other = (await beta.create()).session.id
    tenants.tenant("acme", suspended=True)
    ended = await _ended(attached)
    assert ended in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.OK)
    assert (await refused(acme.get(attached.session_id))).reason == "TENANT_SUSPENDED"
    assert (await beta.get(other)).state == session_pb2.SESSION_STATE_READY
    tenants.tenant("acme", suspended=False)
    await _known(acme, before=grpc.StatusCode.PERMISSION_DENIED)
    found = await acme.get(attached.session_id)
    assert found.state == session_pb2.SESSION_STATE_ENDED
    assert found.end_reason == session_pb2.END_REASON_TENANT_SUSPENDED


async def _ended(attached) -> grpc.StatusCode:
    async with asyncio.timeout(30):
        return await attached.closed()


async def test_a_stream_whose_key_expires_is_announced_and_its_session_goes_on_with_another(
    serving, tenants, beta
):
    expiring = tenants.key("acme", expires=datetime.now(UTC) + timedelta(seconds=6))
    fresh = tenants.key("acme")
    async with caller_with(serving.address, expiring) as before, caller_with(serving.address, fresh) as after:
        await _known(after)
        attached = await before.attach()
        await attached.until_ready()
        assert await _ended(attached) is grpc.StatusCode.UNAUTHENTICATED
        (go_away,) = attached.go_aways
        assert go_away.reason == p.GO_AWAY_REASON_CREDENTIAL
        assert (await refused(before.get(attached.session_id))).reason == "CREDENTIAL_EXPIRED"
        resumed = await after.resume(go_away.handle)
        assert resumed.opened.session.state == session_pb2.SESSION_STATE_READY


async def test_a_revoked_key_ends_its_streams_without_a_grace(serving, tenants, acme):
    key = tenants.key("acme")
    async with caller_with(serving.address, key) as caller:
        await _known(caller)
        attached = await caller.attach()
        speech = await caller.speak(attached.session_id)
        watch = caller.watch()
        await watch.progress()
        tenants.revoke("acme", key)
        assert await _ended(attached) is grpc.StatusCode.UNAUTHENTICATED
        assert attached.go_aways == []
        assert await speech.status() is grpc.StatusCode.UNAUTHENTICATED
        assert await watch.call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await refused(caller.get(attached.session_id))).metadata["cause"] == "revoked API key"
        assert (await acme.get(attached.session_id)).id == attached.session_id


async def test_a_role_that_opens_does_not_command(serving, tenants):
    key = tenants.key("acme", "open")
    async with caller_with(serving.address, key) as caller:
        await _known(caller)
        attached = await caller.attach()
        await attached.until_ready()
        result = await attached.command("c-1", interrupt=p.Interrupt())
        assert result.status.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert (await refused(caller.resume(attached.opened.handle))).reason == "ROLE_MISSING"
        assert (await refused_stream(lambda: caller.speak(attached.session_id))).reason == "ROLE_MISSING"


async def test_quotas_are_refused_with_their_scope_and_changed_while_the_gateway_runs(acme, beta, tenants):
    tenants.tenant("acme", quotas={"max_sessions": 1})
    first = await acme.create()
    async with asyncio.timeout(30):
        while True:
            error = await _refusal_or_end(acme)
            if error is not None:
                break
    assert (error.reason, error.quota) == ("QUOTA_EXCEEDED", "tenant:acme/max_sessions")
    assert error.retry_s > 0
    await beta.create()
    await acme.end(first.session.id)
    await acme.create()


async def test_no_more_callers_wait_than_the_quota_allows_however_many_come_at_once(tenants, emulator):
    quotas = {"max_waiting": 2, "max_wait_s": 2.0}
    tenants.tenant("acme", quotas=quotas, budget={"minutes_per_day": 100_000})
    key = tenants.key("acme")
    with gateway(emulator.url, auth_file=tenants.path, max_sessions=1) as process:
        async with caller_with(process.address, key) as caller:
            creates = [caller.create(f"wish-{number}") for number in range(40)]
            done = await asyncio.gather(*creates, return_exceptions=True)
    reasons = Counter(refusal(one).reason for one in done if isinstance(one, grpc.aio.AioRpcError))
    assert reasons == {"QUOTA_EXCEEDED": 37, "CAPACITY_EXHAUSTED": 2}


async def _refusal_or_end(caller):
    """Return the refusal of a session; a session that was created, since the file was not read yet, is ended."""
    try:
        created = await caller.create()
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    await caller.end(created.session.id)
    return None


async def test_a_session_lasts_no_longer_than_the_quota(acme, tenants):
    attached = await acme.attach()
    await attached.until_ready()
    too_long = {"max_duration": duration_pb2.Duration(seconds=600)}
    tenants.tenant("acme", quotas={"max_session_s": 10.0})
    assert (await attached.event("ended")).session.end_reason == session_pb2.END_REASON_MAX_DURATION
    error = await refused(acme.create(**too_long))
    assert (error.field, error.quota) == ("spec.max_duration", "tenant:acme/max_session_s")


async def test_audio_above_the_rate_waits_and_is_spoken_whole(acme, tenants, emulator):
    tenants.tenant("acme", quotas={"audio_bytes_per_s": 48_000})
    await asyncio.sleep(3)
    attached = await acme.attach()
    await attached.until_ready()
    speech = await acme.speak(attached.session_id)
    await speech.say(bytes(48_000 * 4), "u")
    ended = await speech.until("ended")
    assert (ended.utterance_id, ended.played.ToSeconds()) == ("u", 4)


async def test_each_tenant_signs_for_rooms_on_a_server_of_its_own(tenants, emulator, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("o" * 32)
    own = {"livekit_url": "wss://own.example", "livekit_key": "own", "livekit_secret_file": secret}
    tenants.tenant("acme", rooms=own)
    keys = {name: tenants.key(name) for name in ("acme", "beta")}
    common = {"livekit_url": "wss://common.example", "livekit_key": "common", "livekit_secret": "c" * 32}
    with gateway(emulator.url, auth_file=tenants.path, **common) as process:
        found = {}
        for name, key in keys.items():
            async with caller_with(process.address, key) as caller:
                created = await caller.create(livekit_room={"name": f"{name}-desk"})
                theirs = "beta" if name == "acme" else "acme"
                error = await refused(caller.create(livekit_room={"name": f"{theirs}-desk"}))
                assert (error.reason, error.field) == ("ROOM_NOT_ALLOWED", "spec.livekit_room.name")
            claims = jwt.decode(created.room.viewer_token, options={"verify_signature": False})
            found[name] = (created.room.url, claims["iss"], claims["video"]["room"])
    assert found == {
        "acme": ("wss://own.example", "own", "acme-desk"),
        "beta": ("wss://common.example", "common", "beta-desk"),
    }


class TestCertificates:
    @pytest.fixture
    def authority(self):
        return Authority()

    @pytest.fixture
    def files(self, authority, tmp_path):
        server = authority.server()
        for name, content in (
            ("ca.pem", authority.certificate),
            ("cert.pem", server.certificate),
            ("key.pem", server.key),
        ):
            (tmp_path / name).write_bytes(content)
        return {
            "tls_cert_file": tmp_path / "cert.pem",
            "tls_key_file": tmp_path / "key.pem",
            "tls_client_ca_file": tmp_path / "ca.pem",
        }

    async def test_the_second_port_needs_a_certificate_and_the_first_a_key(
        self, authority, files, tenants, emulator
    ):
        name = "spiffe://example.org/agent"
        tenants.certificate("acme", f"uri:{name}")
        key = tenants.key("beta")
        signed = authority.sign("agent", x509.UniformResourceIdentifier(name))
        plain = grpc.ssl_channel_credentials(authority.certificate)
        mutual = grpc.ssl_channel_credentials(authority.certificate, signed.key, signed.certificate)
        with gateway(emulator.url, auth_file=tenants.path, mtls_port=0, **files) as process:
            address, mtls = process.process.info["address"], process.process.info["mtls_address"]
            async with caller_with(mtls, channel_credentials=mutual) as agent:
                assert (await agent.create()).session.tenant == "acme"
            async with caller_with(address, key, channel_credentials=plain) as other:
                assert (await other.create()).session.tenant == "beta"
            async with caller_with(address, channel_credentials=mutual) as ignored:
                # The first port asks for no certificate, so gRPC sends none.
                assert (await refused(ignored.create())).reason == "CREDENTIAL_MISSING"
            async with caller_with(mtls, key, channel_credentials=plain) as nobody:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await nobody.create(deadline_s=5)
                assert error.value.code() is grpc.StatusCode.UNAVAILABLE

    async def test_a_new_authority_is_accepted_without_a_restart(self, authority, files, tenants, emulator):
        name, successor = "agent.example.org", Authority("successor")
        tenants.certificate("acme", f"dns:{name}")
        signed = successor.sign("agent", x509.DNSName(name))
        mutual = grpc.ssl_channel_credentials(authority.certificate, signed.key, signed.certificate)
        with gateway(emulator.url, auth_file=tenants.path, **files) as process:
            files["tls_client_ca_file"].write_bytes(authority.certificate + successor.certificate)
            async with asyncio.timeout(30):
                while True:
                    async with caller_with(process.address, channel_credentials=mutual) as agent:
                        code = await _code(agent)
                    if code is grpc.StatusCode.OK:
                        break
                    assert code is grpc.StatusCode.UNAVAILABLE
                    await asyncio.sleep(0.2)
