"""LiveAvatar sessions in the tables of an SQLite registry. Each function runs in a transaction."""

import sqlite3
from typing import Final

from liveavatar_gateway.core.errors import OwnerMoved
from liveavatar_gateway.registry.base import Fence
from liveavatar_gateway.registry.rows import access_context
from liveavatar_gateway.registry.sealing import Sealer

_ADD_UPSTREAM: Final = """
    INSERT INTO upstreams (upstream_session_id, account, session_id)
    SELECT ?, ?, session_id FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?"""
_ACCESS: Final = """
    SELECT access FROM upstreams JOIN sessions USING (session_id)
    WHERE upstream_session_id = ? AND session_id = ? AND owner = ? AND epoch = ?"""
_MOVE_UPSTREAM: Final = """
    UPDATE upstreams SET session_id = ?, access = ? WHERE upstream_session_id = ? AND EXISTS (
        SELECT 1 FROM sessions WHERE session_id = ? AND owner = ? AND epoch = ?)"""


def add(
    connection: sqlite3.Connection, owner: str, fence: Fence, upstream_session_id: str, *, account: str
) -> None:
    """Add a LiveAvatar session that is about to start; see `Registry.add_upstream`."""
    values = (upstream_session_id, account, fence.session_id, owner, fence.epoch)
    if connection.execute(_ADD_UPSTREAM, values).rowcount == 0:
        raise OwnerMoved(fence.session_id)


def move(
    connection: sqlite3.Connection,
    sealer: Sealer,
    owner: str,
    upstream_session_id: str,
    *,
    source: Fence,
    target: Fence,
) -> None:
    """Move a LiveAvatar session to another session; see `Registry.move_upstream`."""
    values = (upstream_session_id, source.session_id, owner, source.epoch)
    found = connection.execute(_ACCESS, values).fetchone()
    if found is None:
        raise OwnerMoved(source.session_id)
    (sealed,) = found
    if sealed is not None:
        # Sealed access is bound to its session.
        access = sealer.open(sealed, context=access_context(source.session_id, upstream_session_id))
        sealed = sealer.seal(access, context=access_context(target.session_id, upstream_session_id))
    moved = (target.session_id, sealed, upstream_session_id, target.session_id, owner, target.epoch)
    if connection.execute(_MOVE_UPSTREAM, moved).rowcount == 0:
        raise OwnerMoved(target.session_id)
