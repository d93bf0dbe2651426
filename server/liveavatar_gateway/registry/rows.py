"""Reading of stored sessions from the tables and journals of an SQLite registry.

Another program or a failing disk may have damaged any value. A damaged value costs what it held and is named; the
ids at LiveAvatar remain, so that the session can be stopped.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from liveavatar_gateway.registry.base import Fence, HandleHash, LeaseConfig, Payload, StoredSession, Upstream
from liveavatar_gateway.registry.clock import MachineClock
from liveavatar_gateway.registry.fault_log import FaultLog
from liveavatar_gateway.registry.journal import Entry, JournalFolder
from liveavatar_gateway.registry.journal_buffer import Journaled, unpack_handles
from liveavatar_gateway.registry.sealing import Sealer, Unopenable

_Kind = TypeVar("_Kind")

MAX_NUMBER: Final = 1 << 53
"""Above any sequence number or epoch that a gateway counts up to."""

_ROWS: Final = """
    SELECT session_id, owner, epoch, ended, sequence, sessions.payload, handles, boot_id, until_mono_s, address,
        end_request, account, saved_boot_id, saved_mono_s, tenant
    FROM sessions LEFT JOIN processes USING (owner)"""


def access_context(session_id: str, upstream_session_id: str) -> str:
    """Return the place to which sealed access to a LiveAvatar session is bound."""
    return f"{session_id}/{upstream_session_id}"


class RowReader:
    """Reader of stored sessions, each completed by the journal of its owner."""

    def __init__(
        self, config: LeaseConfig, clock: MachineClock, sealer: Sealer, journals: JournalFolder, faults: FaultLog
    ) -> None:
        self._ttl_s = config.ttl_s
        self._clock = clock
        self._sealer = sealer
        self._journals = journals
        self._faults = faults

    def read(self, connection: sqlite3.Connection, condition: str, *values: Any) -> list[StoredSession]:
        """Return the sessions that a condition selects."""
        # Journals first: values that leave a journal meanwhile are in the table by then.
        found = connection.execute(f"{_ROWS} {condition}", values).fetchall()
        journals = {owner: self._journals.read(owner) for owner in {columns[1] for columns in found}}
        if journals:
            found = connection.execute(f"{_ROWS} {condition}", values).fetchall()
        return [self._stored(connection, columns, journals.get(columns[1], {})) for columns in found]

    def _stored(
        self, connection: sqlite3.Connection, columns: Sequence[Any], journal: Mapping[str, Sequence[Entry]]
    ) -> StoredSession:
        session_id, owner, epoch, ended, sequence, packed, handles, boot_id, until_mono_s, address = columns[:10]
        problems: list[str] = []
        payload = _parsed(packed, dict, "payload", problems)
        journaled = Journaled.read(journal.get(session_id, ()), epoch, Fence(session_id, epoch))
        hashes = _handles(handles, problems) if journaled.handles is None else journaled.handles
        if journaled.sequence is not None:
            sequence = journaled.sequence
        if not 0 <= sequence <= MAX_NUMBER:
            problems.append(f"its last event cannot have number {sequence}")
            sequence = 0
        if not 0 < epoch <= MAX_NUMBER:
            problems.append(f"it cannot have had {epoch} owners")
        if problems:
            self._faults.error(session_id, "registry.row_unreadable", reason="; ".join(problems))
        return StoredSession(
            session_id=session_id,
            owner=owner,
            epoch=epoch,
            ended=bool(ended),
            sequence=sequence,
            payload=payload,
            utterances=tuple({**self._utterances(connection, session_id), **journaled.utterances}.items()),
            upstreams=self._upstreams(connection, session_id),
            handles=hashes,
            seen_mono_s=self._comparable(boot_id, until_mono_s, -self._ttl_s),
            address=address or "",
            end_request=columns[10] or "",
            account=columns[11],
            saved_mono_s=self._comparable(*columns[12:14]),
            tenant=columns[14],
            unreadable="; ".join(problems),
        )

    def _utterances(self, connection: sqlite3.Connection, session_id: str) -> dict[str, Payload]:
        utterances: dict[str, Payload] = {}
        for utterance_id, packed in connection.execute(
            "SELECT utterance_id, payload FROM utterances WHERE session_id = ? ORDER BY rowid", (session_id,)
        ).fetchall():
            problems: list[str] = []
            payload = _parsed(packed, dict, "payload", problems)
            if problems:
                self._faults.error(
                    session_id, "registry.utterance_unreadable", utterance=utterance_id, reason=problems[0]
                )
            else:
                utterances[utterance_id] = payload
        return utterances

    def _upstreams(self, connection: sqlite3.Connection, session_id: str) -> tuple[Upstream, ...]:
        rows = connection.execute(
            "SELECT upstream_session_id, access, account FROM upstreams WHERE session_id = ? ORDER BY rowid",
            (session_id,),
        ).fetchall()
        return tuple(
            Upstream(name, self._unsealed(session_id, name, sealed), account) for name, sealed, account in rows
        )

    def _unsealed(self, session_id: str, upstream_session_id: str, sealed: bytes | None) -> Payload | None:
        if sealed is None:
            return None
        problems: list[str] = []
        try:
            opened = self._sealer.open(sealed, context=access_context(session_id, upstream_session_id))
        except Unopenable as error:
            problems.append(str(error))
        else:
            access = _parsed(opened, dict, "access", problems)
        if problems:
            # The session can still be stopped, by its id alone.
            self._faults.error(session_id, "registry.unopenable", reason=problems[0])
            return None
        return access

    def _comparable(self, boot_id: str | None, mono_s: float | None, offset_s: float = 0.0) -> float | None:
        """Return a stored time on the caller's clock, which is the machine's; None when nobody can tell."""
        known_mono_s = self._clock.comparable(boot_id, mono_s)
        return None if known_mono_s is None else known_mono_s + offset_s


def _handles(packed: bytes, problems: list[str]) -> tuple[HandleHash, ...]:
    handles = unpack_handles(_parsed(packed, list, "handles", problems))
    if handles is None:
        problems.append("its handles are no digests with times")
        return ()
    return handles


def _parsed(packed: bytes, kind: type[_Kind], name: str, problems: list[str]) -> _Kind:
    """Return JSON of a kind; an empty value, and a reason in `problems`, when it is damaged."""
    try:
        found = orjson.loads(packed)
    except (ValueError, TypeError) as error:
        problems.append(f"its {name} are no JSON: {error}")
        return kind()
    if not isinstance(found, kind):
        problems.append(f"its {name} are a {type(found).__name__}")
        return kind()
    return found
