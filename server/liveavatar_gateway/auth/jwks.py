"""Key sets of token issuers: read from a file or an address, bounded, cached, and renewed beside the calls."""

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import structlog

from liveavatar_gateway.guarded_files import read_guarded
from liveavatar_gateway.upstream.proxies import Proxies

MAX_BYTES: Final = 256 * 1024
"""Largest key set that is read; key sets take a few kilobytes."""
TIMEOUT_S: Final = 10.0
"""Longest read of a key set."""
RETRY_S: Final = 5.0
"""Shortest time between two reads while a key set cannot be read."""
MAX_STALE_S: Final = 86_400.0
"""Longest use of a key set that cannot be read again: an outage of the issuer ends no calls for a day."""
_FILE_REFRESH_S: Final = 10.0
_FILE_REFETCH_S: Final = 1.0
_MAX_KEYS: Final = 100

_PUBLIC: Final = ("kty", "kid", "use", "alg", "n", "e", "crv", "x", "y")
"""Members of a key that are used; the private ones of a key set published by mistake are not."""
_ALGORITHMS: Final[Mapping[tuple[Any, Any], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Algorithms of each type of key and curve. Symmetric keys have none."""

Fetch = Callable[[], Awaitable[bytes]]
"""Reads the bytes of a key set; raises `KeySetError`, OSError or httpx.HTTPError."""

_log = structlog.get_logger(__name__)


class KeySetError(ValueError):
    """Unusable key set; the message names the cause."""


class KeysUnavailable(Exception):
    """Lack of keys to verify a token with at present."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"no keys at present; again in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class KeySet:
    """Public keys of an issuer, each bound to one algorithm."""

    def __init__(self, content: bytes, algorithms: Sequence[str]) -> None:
        """Parse a key set. Keys of unknown types, and keys for other uses, are left out.

        Args:
            content: JSON web key set.
            algorithms: Algorithms that the issuer may use.

        Raises:
            KeySetError: the content is not a key set, or has no usable key.
        """
        try:
            found = json.loads(content)
            entries = found["keys"] if isinstance(found, dict) else None
        except (ValueError, KeyError, RecursionError):
            entries = None
        if not isinstance(entries, list):
            raise KeySetError("is not a JSON web key set")
        self.content = content
        self._keys: dict[str | None, dict[str, jwt.PyJWK]] = {}
        for entry in entries[:_MAX_KEYS]:
            if isinstance(entry, dict):
                self._add(entry, algorithms)
        if not self._keys:
            raise KeySetError("has no key that the configured algorithms can use")

    def __len__(self) -> int:
        return len(self._keys)

    def _add(self, entry: dict[str, Any], algorithms: Sequence[str]) -> None:
        kid, kty, crv = entry.get("kid"), entry.get("kty"), entry.get("crv")
        if not isinstance(kty, str) or not isinstance(crv, str | None) or not isinstance(kid, str | None):
            return
        if entry.get("use", "sig") != "sig":
            return
        public: dict[str, Any] = {name: entry[name] for name in _PUBLIC if name in entry}
        for algorithm in _ALGORITHMS.get((kty, crv), ()):
            if algorithm not in algorithms or entry.get("alg", algorithm) != algorithm:
                continue
            # An unusable key must not keep the others from being used.
            with contextlib.suppress(jwt.PyJWTError, ValueError, TypeError, AttributeError):
                self._keys.setdefault(kid, {})[algorithm] = jwt.PyJWK(public, algorithm)

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key of a token's header; None if the set lacks it.

        A token that names no key is verified with the only key, if the set has no more.
        """
        if kid is None and len(self._keys) == 1:
            (only,) = self._keys.values()
            return only.get(algorithm)
        return self._keys.get(kid, {}).get(algorithm)


class KeyCache:
    """Key set of one issuer, read at its first use. Concurrent callers share a read. The creator closes it."""

    def __init__(
        self,
        fetch: Fetch,
        algorithms: Sequence[str],
        *,
        name: str,
        refresh_s: float,
        refetch_s: float,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty cache.

        Args:
            fetch: Reads the key set.
            algorithms: Algorithms that the issuer may use.
            name: Name of the issuer, for the log.
            refresh_s: Age at which the set is read again, beside the calls; at twice this age calls wait for it.
            refetch_s: Shortest time between two reads for the sake of keys that the set lacks.
            timeout_s: Longest read.
            clock: Monotonic clock.
        """
        self._fetch = fetch
        self._algorithms = tuple(algorithms)
        self._name = name
        self._refresh_s = refresh_s
        self._refetch_s = refetch_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at_s = -math.inf
        self._retry_at_s = -math.inf
        self._refetch_at_s = -math.inf
        self._flight: asyncio.Task[None] | None = None
        self._error = ""

    @property
    def is_reading(self) -> bool:
        """True while the key set is being read."""
        return self._flight is not None

    async def aclose(self) -> None:
        """Cancel a read in progress."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key of a token's header; None if the issuer does not have it.

        Raises:
            KeysUnavailable: the key set cannot be read now, or may not be read again yet.
        """
        age_s = self._clock() - self._read_at_s
        if self._keys is None or age_s > 2 * self._refresh_s:
            await self._renew()
        elif age_s > self._refresh_s:
            self._start()
        if self._keys is None or self._clock() - self._read_at_s > MAX_STALE_S:
            raise KeysUnavailable(self._wait_s())
        keys = self._keys
        key = keys.find(kid, algorithm)
        if key is not None:
            return key
        # The issuer may have made a new key. Anybody can name a key, so the number of reads is limited.
        now_s = self._clock()
        if now_s < self._refetch_at_s:
            raise KeysUnavailable(self._refetch_at_s - now_s)
        self._refetch_at_s = now_s + self._refetch_s
        await self._renew()
        if self._keys is keys:
            raise KeysUnavailable(self._wait_s())
        return self._keys.find(kid, algorithm)

    def _wait_s(self) -> float:
        """Return the time after which a set that could not be read is read again."""
        return max(self._retry_at_s - self._clock(), 1.0)

    async def _renew(self) -> None:
        """Wait for a read, in which other callers may take part, unless the last one failed just now."""
        self._start()
        if self._flight is not None:
            # A caller that goes away must not end the read of the others.
            await asyncio.shield(self._flight)

    def _start(self) -> None:
        if self._flight is None and self._clock() >= self._retry_at_s:
            self._flight = asyncio.create_task(self._read(), name=f"auth/jwks {self._name}")
            self._flight.add_done_callback(self._landed)

    def _landed(self, _: asyncio.Task[None]) -> None:
        self._flight = None

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                content = await self._fetch()
                # Large sets of large keys take milliseconds to parse.
                keys = await asyncio.to_thread(KeySet, content, self._algorithms)
        except (ValueError, OSError, httpx.HTTPError) as error:
            cause = str(error)[:200] or type(error).__name__
            self._retry_at_s = self._clock() + min(RETRY_S, self._refetch_s)
            if cause != self._error:
                _log.error(
                    "auth.jwks_failed", issuer=self._name, error=cause, has_older_keys=self._keys is not None
                )
            self._error = cause
            return
        is_news = self._keys is None or self._keys.content != content or bool(self._error)
        self._keys, self._read_at_s, self._error = keys, self._clock(), ""
        # Files are read every few seconds; only a changed set, or the end of an outage, deserves a line.
        if is_news:
            _log.info("auth.jwks_read", issuer=self._name, keys=len(keys))


def file_cache(path: Path, algorithms: Sequence[str], *, name: str, refresh_s: float) -> KeyCache:
    """Return the cache of a key set in a file, which is read again after seconds, since that costs little."""

    def read() -> bytes:
        # A pipe without a writer would block the thread.
        if path.exists() and not path.is_file():
            raise KeySetError(f"{path} is not a regular file")
        content = read_guarded(path, MAX_BYTES, private=False)
        if len(content) > MAX_BYTES:
            raise KeySetError(f"{path} is larger than {MAX_BYTES} bytes")
        return content

    async def fetch() -> bytes:
        return await asyncio.to_thread(read)

    return KeyCache(
        fetch, algorithms, name=name, refresh_s=min(refresh_s, _FILE_REFRESH_S), refetch_s=_FILE_REFETCH_S
    )


class KeySetClient:
    """HTTP client for key sets. Redirects are refused: they could lead to keys of somebody else."""

    def __init__(self, proxies: Proxies, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Create a client.

        Args:
            proxies: Proxies through which issuers are called.
            transport: Replaces the network.
        """
        self._proxies = proxies
        self._transport = transport
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    async def fetch(self, url: str) -> bytes:
        """Return the key set at an address.

        Raises:
            KeySetError: the answer is not a key set.
            httpx.HTTPError: there was no answer.
        """
        client = await self._client(url)
        async with client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise KeySetError(f"{url} answered HTTP {response.status_code}")
            content = b""
            async for part in response.aiter_raw():
                content += part
                if len(content) > MAX_BYTES:
                    raise KeySetError(f"{url} sent more than {MAX_BYTES} bytes")
        return content

    async def _client(self, url: str) -> httpx.AsyncClient:
        proxy = self._proxies.of_url(url)
        name = "" if proxy is None else proxy.url
        if name not in self._clients:
            # Reading the trusted certificates takes tens of milliseconds.
            context = await asyncio.to_thread(httpx.create_ssl_context)
            self._clients.setdefault(
                name,
                httpx.AsyncClient(
                    transport=self._transport,
                    proxy=name or None,
                    trust_env=False,
                    verify=context,
                    timeout=None,  # noqa: S113 - `KeyCache` bounds the whole read
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ),
            )
        return self._clients[name]

    def cache(
        self, url: str, algorithms: Sequence[str], *, name: str, refresh_s: float, refetch_s: float
    ) -> KeyCache:
        """Return the cache of the key set at an address."""
        return KeyCache(lambda: self.fetch(url), algorithms, name=name, refresh_s=refresh_s, refetch_s=refetch_s)
