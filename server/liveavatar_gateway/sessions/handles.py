"""Handles: secrets that resume one session, each good until a newer one was given out, and a while longer."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from liveavatar_gateway.registry.base import HandleHash

KEEP_S: Final = 60.0
"""How long a handle works at least after a newer one was given out: that one may never have arrived."""
_ID_CHARS: Final = 36
"""Of a session's id."""
_MOST: Final = 64
"""Handles of one session that work at once; above that the oldest is forgotten."""


class Handles:
    """What resumes one session. Only hashes are kept; a handle is known to whoever was given it.

    The newest handle works as long as the session can be found. The time comes in as `now_s`, monotonic seconds.
    """

    def __init__(
        self, session_id: str, *, keep_s: float, tenant: str = "", hashes: Sequence[HandleHash] = ()
    ) -> None:
        """Begin without a handle, or with those that another process gave out.

        Args:
            session_id: Whose they are; every handle begins with it.
            keep_s: How long one works after a newer one was given out, at least `KEEP_S`. As long as the session
                outlives a lost stream, or a caller that never got the newer one could not come back in time.
            tenant: Whose session it is. A handle works for that tenant alone.
            hashes: Those that work already, the newest last.
        """
        self._session_id = session_id
        self._keep_s = max(KEEP_S, keep_s)
        self._tenant = tenant
        self.hashes: tuple[HandleHash, ...] = tuple(hashes)
        """Those that work, the newest last."""

    def issue(self, now_s: float, *, beside: bool = False) -> str:
        """Give out a fresh handle; those before it work a while longer, unless it is `beside` them."""
        handle = f"{self._session_id}.{secrets.token_urlsafe(24)}"
        kept = [one for one in self.hashes if one.until_mono_s is None or one.until_mono_s > now_s]
        if not beside:
            until_s = now_s + self._keep_s
            kept = [one if one.until_mono_s is not None else HandleHash(one.sha256, until_s) for one in kept]
        self.hashes = (*kept, HandleHash(self._digest(self._tenant, handle)))[-_MOST:]
        return handle

    def accepts(self, handle: str, now_s: float, *, tenant: str = "") -> bool:
        """Whether a tenant may resume the session with this; compared in constant time."""
        digest = self._digest(tenant, handle)
        found = [one for one in self.hashes if hmac.compare_digest(one.sha256, digest)]
        return any(one.until_mono_s is None or one.until_mono_s > now_s for one in found)

    @staticmethod
    def _digest(tenant: str, handle: str) -> str:
        return hashlib.sha256(f"{tenant}\0{handle}".encode()).hexdigest()


def session_id_of(handle: str) -> str:
    """The session a handle claims to be of; no longer than an id can be, since refusals name it."""
    return handle.partition(".")[0][:_ID_CHARS]
