"""Handles: secrets that resume one session. Each is valid until a newer one is issued, and a while longer."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from liveavatar_gateway.registry.base import HandleHash

KEEP_S: Final = 60.0
"""Shortest time that a handle stays valid after a newer one was issued: that one may never have arrived."""
_ID_CHARS: Final = 36
"""Length of a session id."""
_MAX_VALID: Final = 64
"""Valid handles of one session; above that, the oldest is dropped."""


class Handles:
    """Valid handles of one session. Only hashes are kept, so a handle is known to its caller alone.

    The newest handle is valid as long as the session can be found. `now_s` is monotonic time in seconds.
    """

    def __init__(
        self, session_id: str, *, keep_s: float, tenant: str = "", hashes: Sequence[HandleHash] = ()
    ) -> None:
        """Begin without a handle, or with those that another process issued.

        Args:
            session_id: The gateway's id of the session; every handle begins with it.
            keep_s: Time that a handle stays valid after a newer one was issued, at least `KEEP_S`. As long as the
                session outlives a lost stream: the newer one may have been lost with it.
            tenant: Owner of the session. A handle is valid for that tenant alone.
            hashes: Hashes of the valid handles, the newest last.
        """
        self._session_id = session_id
        self._keep_s = max(KEEP_S, keep_s)
        self._tenant = tenant
        self.hashes: tuple[HandleHash, ...] = tuple(hashes)
        """Hashes of the valid handles, the newest last."""

    def issue(self, now_s: float, *, beside: bool = False) -> str:
        """Return a new handle; earlier ones stay valid for a while, or without end if it is `beside` them."""
        handle = f"{self._session_id}.{secrets.token_urlsafe(24)}"
        kept = [known for known in self.hashes if known.until_mono_s is None or known.until_mono_s > now_s]
        if not beside:
            until_s = now_s + self._keep_s
            kept = [
                known if known.until_mono_s is not None else HandleHash(known.sha256, until_s) for known in kept
            ]
        self.hashes = (*kept, HandleHash(self._digest(self._tenant, handle)))[-_MAX_VALID:]
        return handle

    def accepts(self, handle: str, now_s: float, *, tenant: str = "") -> bool:
        """Return whether a handle resumes the session for a tenant; compared in constant time."""
        digest = self._digest(tenant, handle)
        found = [known for known in self.hashes if hmac.compare_digest(known.sha256, digest)]
        return any(known.until_mono_s is None or known.until_mono_s > now_s for known in found)

    @staticmethod
    def _digest(tenant: str, handle: str) -> str:
        return hashlib.sha256(f"{tenant}\0{handle}".encode()).hexdigest()


def session_id_of(handle: str) -> str:
    """Return the session id in a handle, cut to the length of an id, since errors repeat it."""
    return handle.partition(".")[0][:_ID_CHARS]
