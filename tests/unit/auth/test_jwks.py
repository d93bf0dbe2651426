"""Key sets: usable keys alone, read once for all, read again in time, and never more often than allowed."""

import asyncio
import os

import httpx
import pytest

from liveavatar_gateway.auth import jwks
from liveavatar_gateway.auth.jwks import KeyCache, KeySet, KeySetClient, KeySetError, KeysUnavailable
from liveavatar_gateway.upstream.proxies import Proxies
from testkit.tokens import TokenIssuer, key_set, private_key, public_jwk

P256 = private_key("P-256")
ALL = ("RS256", "PS256", "ES256", "ES384", "EdDSA")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Source:
    """Key set of an issuer that can fail and wait."""

    def __init__(self) -> None:
        self.issuer = TokenIssuer()
        self.reads = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> bytes:
        self.reads += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.issuer.jwks


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source():
    return Source()


@pytest.fixture
async def cache(source, clock):
    made = KeyCache(
        source.fetch, ["ES256"], name="issuer", refresh_s=300.0, refetch_s=30.0, timeout_s=5.0, clock=clock
    )
    yield made
    await made.aclose()


async def settle():
    """Let a read beside the calls end; parsing takes a thread."""
    for _ in range(200):
        await asyncio.sleep(0.001)
        if not [task for task in asyncio.all_tasks() if task.get_name().startswith("auth/jwks")]:
            return
    raise AssertionError("a read did not end")


class TestKeySet:
    @pytest.mark.parametrize(
        ("kind", "algorithms"),
        [("P-256", {"ES256"}), ("P-384", {"ES384"}), ("Ed25519", {"EdDSA"}), ("RSA-2048", {"RS256", "PS256"})],
    )
    def test_a_key_is_bound_to_the_algorithms_of_its_type(self, kind, algorithms):
        found = KeySet(key_set(public_jwk(private_key(kind), kid="a")), ALL)
        assert {algorithm for algorithm in ALL if found.find("a", algorithm)} == algorithms

    def test_an_algorithm_that_is_not_configured_has_no_key(self):
        content = key_set(public_jwk(private_key("Ed25519"), kid="a"), public_jwk(P256, kid="b"))
        assert KeySet(content, ["ES256"]).find("a", "EdDSA") is None

    def test_the_algorithm_of_a_key_excludes_others(self):
        content = key_set(public_jwk(private_key("RSA-2048"), kid="a", alg="PS256"))
        found = KeySet(content, ALL)
        assert found.find("a", "PS256")
        assert found.find("a", "RS256") is None

    @pytest.mark.parametrize(
        "unusable",
        [
            {"kty": "oct", "kid": "b", "k": "c2VjcmV0"},
            {"kty": "EC", "kid": "b", "crv": "P-256", "x": "!", "y": "!"},
            {"kty": "EC", "kid": "b", "crv": "P-256"},
            {"kty": "EC", "kid": "b", "crv": ["P-256"]},
            {"kty": "EC", "kid": "b", "crv": "secp256k1"},
            {"kty": "RSA", "kid": "b", "n": 1, "e": None},
            {"kty": 7, "kid": "b"},
            {"kid": "b"},
            public_jwk(P256, kid=7),
            public_jwk(P256, kid="b", use="enc"),
            "b",
            None,
        ],
    )
    def test_an_unusable_key_is_left_out_and_the_others_are_used(self, unusable):
        found = KeySet(key_set(unusable, public_jwk(P256, kid="a")), ALL)
        assert len(found) == 1
        assert found.find("a", "ES256")

    def test_the_private_part_of_a_key_is_not_kept(self):
        found = KeySet(key_set(public_jwk(P256, kid="a", d="AAAA")), ALL)
        assert not hasattr(found.find("a", "ES256").key, "private_numbers")

    @pytest.mark.parametrize(
        "content",
        [b"", b"\xff", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 100_000, key_set({"kty": "oct"})],
    )
    def test_what_is_no_key_set_is_refused(self, content):
        with pytest.raises(KeySetError):
            KeySet(content, ALL)

    def test_a_token_without_a_key_id_is_verified_with_the_only_key(self):
        one = key_set(public_jwk(P256, kid="a"))
        two = key_set(public_jwk(P256, kid="a"), public_jwk(private_key(), kid="b"))
        assert KeySet(one, ALL).find(None, "ES256")
        assert KeySet(two, ALL).find(None, "ES256") is None


class TestKeyCache:
    async def test_a_set_is_read_once_for_all(self, cache, source):
        source.gate.clear()
        asked = [asyncio.create_task(cache.find("k1", "ES256")) for _ in range(50)]
        await asyncio.sleep(0)
        source.gate.set()
        assert all(await asyncio.gather(*asked))
        assert await cache.find("k1", "ES256")
        assert source.reads == 1

    async def test_a_caller_that_goes_away_does_not_end_the_read_of_the_others(self, cache, source):
        source.gate.clear()
        first = asyncio.create_task(cache.find("k1", "ES256"))
        second = asyncio.create_task(cache.find("k1", "ES256"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        source.gate.set()
        assert await second
        assert source.reads == 1

    async def test_an_old_set_is_read_again_beside_the_calls(self, cache, source, clock):
        await cache.find("k1", "ES256")
        clock.now_s += 301
        source.gate.clear()
        assert await cache.find("k1", "ES256")
        await asyncio.sleep(0)
        assert source.reads == 2
        source.gate.set()
        await settle()

    async def test_a_removed_key_is_of_no_use_once_the_set_was_read_again(self, cache, source, clock):
        await cache.find("k1", "ES256")
        source.issuer.rotate()
        del source.issuer.entries[0]
        clock.now_s += 601
        assert await cache.find("k1", "ES256") is None

    async def test_a_new_key_is_found_at_once(self, cache, source):
        await cache.find("k1", "ES256")
        source.issuer.rotate()
        assert await cache.find("k2", "ES256")
        assert source.reads == 2

    async def test_unknown_keys_cause_one_read_in_a_while(self, cache, source, clock):
        await cache.find("k1", "ES256")
        assert await cache.find("unknown", "ES256") is None
        for number in range(20):
            with pytest.raises(KeysUnavailable) as refused:
                await cache.find(f"unknown-{number}", "ES256")
            assert refused.value.retry_after_s == 30.0
        assert source.reads == 2
        assert await cache.find("k1", "ES256")
        clock.now_s += 30
        assert await cache.find("unknown", "ES256") is None
        assert source.reads == 3

    @pytest.mark.parametrize(
        "error", [OSError("no route"), httpx.ConnectError("refused"), KeySetError("HTTP 500")]
    )
    async def test_without_keys_the_caller_is_told_when_to_come_back(self, cache, source, clock, error):
        source.error = error
        for _ in range(3):
            with pytest.raises(KeysUnavailable) as refused:
                await cache.find("k1", "ES256")
            assert refused.value.retry_after_s == jwks.RETRY_S
        assert source.reads == 1
        clock.now_s += jwks.RETRY_S
        source.error = None
        assert await cache.find("k1", "ES256")

    async def test_an_outage_of_the_issuer_leaves_the_keys_in_use_for_a_day(self, cache, source, clock):
        await cache.find("k1", "ES256")
        source.error = OSError("no route")
        clock.now_s += jwks.MAX_STALE_S
        assert await cache.find("k1", "ES256")
        clock.now_s += 1
        with pytest.raises(KeysUnavailable):
            await cache.find("k1", "ES256")

    async def test_a_new_key_during_an_outage_is_not_called_wrong(self, cache, source):
        await cache.find("k1", "ES256")
        source.error = OSError("no route")
        with pytest.raises(KeysUnavailable):
            await cache.find("k2", "ES256")

    async def test_a_read_has_a_deadline(self, source, clock):
        source.gate.clear()
        cache = KeyCache(
            source.fetch, ["ES256"], name="i", refresh_s=300, refetch_s=30, timeout_s=0.01, clock=clock
        )
        with pytest.raises(KeysUnavailable):
            await cache.find("k1", "ES256")
        await cache.aclose()

    async def test_an_outage_is_logged_once(self, cache, source, clock, capsys):
        source.error = OSError("no route")
        for _ in range(3):
            clock.now_s += 60
            with pytest.raises(KeysUnavailable):
                await cache.find("k1", "ES256")
        assert capsys.readouterr().out.count("auth.jwks_failed") == 1

    async def test_a_read_is_logged_if_the_set_has_changed_or_an_outage_is_over(
        self, cache, source, clock, capsys
    ):
        async def lines_after_a_read() -> int:
            clock.now_s += 301
            await cache.find("k1", "ES256")
            while cache.is_reading:
                await asyncio.sleep(0.001)
            return capsys.readouterr().out.count("auth.jwks_read")

        assert await lines_after_a_read() == 1
        assert await lines_after_a_read() == 0
        source.issuer.rotate()
        assert await lines_after_a_read() == 1
        source.error = OSError("no route")
        assert await lines_after_a_read() == 0
        source.error = None
        assert await lines_after_a_read() == 1

    async def test_closing_ends_a_read(self, source, clock):
        source.gate.clear()
        cache = KeyCache(source.fetch, ["ES256"], name="i", refresh_s=300, refetch_s=30, clock=clock)
        waiting = asyncio.create_task(cache.find("k1", "ES256"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert cache.is_reading
        await cache.aclose()
        assert not cache.is_reading
        with pytest.raises(asyncio.CancelledError):
            await waiting


class TestFile:
    async def test_a_file_is_read_and_read_again_for_a_new_key(self, tmp_path):
        issuer, path = TokenIssuer(), tmp_path / "jwks.json"
        path.write_bytes(issuer.jwks)
        cache = jwks.file_cache(path, ["ES256"], name="i", refresh_s=300)
        assert await cache.find("k1", "ES256")
        issuer.rotate()
        path.write_bytes(issuer.jwks)
        assert await cache.find("k2", "ES256")
        await cache.aclose()

    @pytest.mark.parametrize("kind", ["missing", "pipe", "folder", "huge"])
    async def test_an_unusable_file_leaves_no_keys(self, tmp_path, kind):
        path = tmp_path / "jwks.json"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "huge":
            path.write_bytes(b" " * (jwks.MAX_BYTES + 1))
        cache = jwks.file_cache(path, ["ES256"], name="i", refresh_s=300)
        with pytest.raises(KeysUnavailable):
            await cache.find("k1", "ES256")
        await cache.aclose()


async def body(content):
    yield content


class TestClient:
    @staticmethod
    async def fetch(answer):
        client = KeySetClient(Proxies(), transport=httpx.MockTransport(answer))
        try:
            return await client.fetch("https://issuer.example/jwks")
        finally:
            await client.aclose()

    async def test_the_body_of_the_answer_is_the_key_set(self):
        assert await self.fetch(lambda _: httpx.Response(200, content=body(b"{}"))) == b"{}"

    async def test_a_redirect_is_not_followed(self):
        asked = []

        def answer(request):
            asked.append(str(request.url))
            return httpx.Response(302, headers={"location": "https://evil.example/jwks"})

        with pytest.raises(KeySetError, match="HTTP 302"):
            await self.fetch(answer)
        assert asked == ["https://issuer.example/jwks"]

    async def test_a_body_without_end_is_cut_off(self):
        sent = 0

        async def endless():
            nonlocal sent
            while True:
                sent += 65536
                yield b"x" * 65536

        with pytest.raises(KeySetError, match="more than"):
            await self.fetch(lambda _: httpx.Response(200, content=endless()))
        assert sent <= jwks.MAX_BYTES + 65536

    async def test_a_cache_of_an_address_reads_it(self):
        issuer = TokenIssuer()
        client = KeySetClient(
            Proxies(), transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body(issuer.jwks)))
        )
        cache = client.cache("https://issuer.example/jwks", ["ES256"], name="i", refresh_s=300, refetch_s=30)
        assert await cache.find("k1", "ES256")
        await cache.aclose()
        await client.aclose()
