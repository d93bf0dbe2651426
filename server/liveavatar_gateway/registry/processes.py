"""Processes that share an SQLite registry: their leases, locks and journals."""

import math
import os
import sqlite3

from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.journal import JournalFolder
from liveavatar_gateway.registry.lease import is_dead
from liveavatar_gateway.registry.liveness import ProcessLock

_RENEW = """
    INSERT INTO processes (owner, boot_id, until_mono_s, address, pid) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (owner) DO UPDATE SET until_mono_s = excluded.until_mono_s, address = excluded.address"""
_IDLE = """
    SELECT owner FROM processes WHERE owner <> ?
    AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.owner = processes.owner AND NOT ended)"""


class Processes:
    """Processes of one machine that share a database, this process among them."""

    def __init__(
        self, owner: str, config: LeaseConfig, clock: MachineClock, lock: ProcessLock, journals: JournalFolder
    ) -> None:
        self._owner = owner
        self._config = config
        self._clock = clock
        self._lock = lock
        self._journals = journals

    def renew(self, connection: sqlite3.Connection, address: str) -> None:
        """Renew the lease of this process."""
        until_mono_s = self._clock.now_s() + self._config.ttl_s
        connection.execute(_RENEW, (self._owner, self._clock.boot_id, until_mono_s, address, os.getpid()))

    def leave(self, connection: sqlite3.Connection) -> None:
        """Remove the lease of this process."""
        connection.execute("DELETE FROM processes WHERE owner = ?", (self._owner,))

    def is_dead(self, connection: sqlite3.Connection, owner: str) -> bool:
        """Return whether a process is dead, by its lock where it has one, else by its lease."""
        lease = connection.execute(
            "SELECT boot_id, until_mono_s FROM processes WHERE owner = ?", (owner,)
        ).fetchone()
        return is_dead(
            None if lease is None else self._lease_left_s(*lease),
            seen_alive=self._lock.is_alive(owner),
            grace_s=self._config.grace_s,
        )

    def is_silent(self, connection: sqlite3.Connection, owner: str) -> bool:
        """Return whether the lease of a process has run out, which also that of a suspended process does."""
        lease = connection.execute(
            "SELECT boot_id, until_mono_s FROM processes WHERE owner = ?", (owner,)
        ).fetchone()
        left_s = None if lease is None else self._lease_left_s(*lease)
        return left_s is not None and left_s < 0.0

    def _lease_left_s(self, boot_id: str, until_mono_s: float) -> float | None:
        if not self._clock.reads(boot_id):
            return None
        # An implausible number would keep the sessions of a dead process forever.
        return until_mono_s - self._clock.now_s() if self._clock.is_plausible(until_mono_s) else -math.inf

    def purge(self, connection: sqlite3.Connection) -> None:
        """Remove dead processes that own no living session, and journals of processes without any."""
        for (owner,) in connection.execute(_IDLE, (self._owner,)).fetchall():
            if self.is_dead(connection, owner):
                connection.execute("DELETE FROM processes WHERE owner = ?", (owner,))
                self._lock.remove(owner)
                self._journals.remove(owner)
        self._purge_journals(connection)

    def _purge_journals(self, connection: sqlite3.Connection) -> None:
        """Remove journals that processes left because they could not write them to the tables."""
        for owner in list(self._journals.owners()):
            if owner == self._owner or self._lock.is_alive(owner) or self._journals.is_fresh(owner):
                continue
            known = connection.execute(
                "SELECT 1 FROM processes WHERE owner = ?1 "
                "UNION SELECT 1 FROM sessions WHERE owner = ?1 AND NOT ended",
                (owner,),
            )
            if known.fetchone() is None:
                self._journals.remove(owner)
