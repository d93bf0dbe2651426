"""Tables of the SQLite registry, and upgrades from former versions.

A change of a table needs a new `VERSION` and the statements that lead to it from the version before.
"""

import sqlite3
from typing import Final

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.registry.database import begin
from liveavatar_gateway.registry.pool_tables import POOL_SCHEMA
from liveavatar_gateway.registry.usage_tables import USAGE_SCHEMA

VERSION: Final = 7

_QUARANTINE: Final = """
    CREATE TABLE IF NOT EXISTS quarantine (
        session_id TEXT NOT NULL,    -- for people; no program reads this table
        account TEXT NOT NULL,
        put_aside_at TEXT NOT NULL,
        reason TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        payload BLOB NOT NULL,
        handles BLOB NOT NULL
    ) STRICT"""

_ACCOUNT_OF_UPSTREAMS: Final = """
    UPDATE upstreams SET account = coalesce(
        (SELECT account FROM sessions WHERE sessions.session_id = upstreams.session_id), '')"""

_PERMITS_OF_UPSTREAMS: Final = """
    INSERT INTO permits (id, account, tenant, owner, session_id, upstream_session_id, kind, profile, state,
        since_s, charged_s, refusal_count)
    SELECT upstream_session_id, upstreams.account, tenant, '', session_id, upstream_session_id, 'caller', '',
        'suspect', 0, 0, 0
    FROM upstreams JOIN sessions USING (session_id) WHERE NOT ended"""
"""Sessions of versions without permits run on: each gets the permit of a dead process."""

_HEAD_OF_NO_BOOT: Final = """
    INSERT INTO pool (number, version, boot_id, generation, last_number, blocked_until_s)
    VALUES (1, 1, '', '', 0, 0)"""
"""Makes the first change of the pool write times of its own boot in place of the zeros."""

_REQUESTS: Final = "CREATE INDEX requests ON sessions (tenant, request_id) WHERE request_id <> ''"

SCHEMA: Final = (
    """
    CREATE TABLE processes (
        owner TEXT PRIMARY KEY,
        boot_id TEXT NOT NULL,
        until_mono_s REAL NOT NULL,  -- end of the lease, on the clock of that boot
        address TEXT NOT NULL,
        pid INTEGER NOT NULL         -- for people; it decides nothing
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL UNIQUE,
        account TEXT NOT NULL,
        tenant TEXT NOT NULL DEFAULT '',
        owner TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        ended INTEGER NOT NULL DEFAULT 0,
        sequence INTEGER NOT NULL DEFAULT 0,
        payload BLOB NOT NULL,
        handles BLOB NOT NULL DEFAULT (CAST('[]' AS BLOB)),
        kept_boot_id TEXT,           -- of the retention, once the session has ended
        kept_until_mono_s REAL,
        end_request TEXT,            -- reason of another process's request to end the session
        request_id TEXT NOT NULL DEFAULT '',
        saved_boot_id TEXT,          -- of the last save of payload
        saved_mono_s REAL
    ) STRICT""",
    "CREATE INDEX living ON sessions (owner) WHERE NOT ended",
    _REQUESTS,
    """
    CREATE TABLE utterances (
        session_id TEXT NOT NULL,
        utterance_id TEXT NOT NULL,
        payload BLOB NOT NULL,
        UNIQUE (session_id, utterance_id)
    ) STRICT""",
    """
    CREATE TABLE upstreams (
        upstream_session_id TEXT NOT NULL UNIQUE,
        session_id TEXT NOT NULL,
        access BLOB,                 -- sealed; NULL before LiveAvatar has answered the start
        account TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX upstreams_of ON upstreams (session_id)",
    _QUARANTINE,
    *USAGE_SCHEMA,
    *POOL_SCHEMA,
)

UPGRADES: Final = {
    1: ("ALTER TABLE sessions ADD COLUMN end_wanted TEXT",),
    2: (
        "ALTER TABLE sessions ADD COLUMN request_id TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX requests ON sessions (request_id) WHERE request_id <> ''",
    ),
    3: (_QUARANTINE.replace(" payload ", " facts "),),
    4: (
        "ALTER TABLE sessions ADD COLUMN saved_boot_id TEXT",
        "ALTER TABLE sessions ADD COLUMN saved_mono_s REAL",
    ),
    5: (
        "ALTER TABLE sessions ADD COLUMN tenant TEXT NOT NULL DEFAULT ''",
        "DROP INDEX requests",
        _REQUESTS,
        "ALTER TABLE sessions RENAME COLUMN facts TO payload",
        "ALTER TABLE sessions RENAME COLUMN end_wanted TO end_request",
        "ALTER TABLE utterances RENAME COLUMN facts TO payload",
        "ALTER TABLE quarantine RENAME COLUMN facts TO payload",
        *USAGE_SCHEMA,
    ),
    6: (
        "ALTER TABLE upstreams ADD COLUMN account TEXT NOT NULL DEFAULT ''",
        _ACCOUNT_OF_UPSTREAMS,
        *POOL_SCHEMA,
        _PERMITS_OF_UPSTREAMS,
        _HEAD_OF_NO_BOOT,
    ),
}
"""Statements that lead from a version to the next."""

DISOWN: Final = "UPDATE sessions SET owner = '' WHERE NOT ended AND owner GLOB '*[^0-9A-Za-z-]*'"
"""Takes sessions away from damaged owners: an id that is not UTF-8 reads as another id, which has no session."""


def upgrade(connection: sqlite3.Connection, name: str) -> None:
    """Create the tables of a database, or bring them to the present version.

    Args:
        connection: The database.
        name: Its path, for errors.

    Raises:
        RegistryUnavailable: the tables are those of another version.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    with begin(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, *UPGRADES, VERSION):
            raise RegistryUnavailable(
                f"{name} was made by another version of the gateway (schema {version}, this version has "
                f"{VERSION}); give this gateway a file of its own with GATEWAY_REGISTRY_FILE"
            )
        for statement in SCHEMA if version == 0 else ():
            connection.execute(statement)
        for older in range(version or VERSION, VERSION):
            for statement in UPGRADES[older]:
                connection.execute(statement)
        if version != VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute(DISOWN)
