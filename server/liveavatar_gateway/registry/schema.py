"""Tables of the SQLite registry. A change of them is a new `VERSION` and a way from the one before."""

from typing import Final

VERSION: Final = 5

_QUARANTINE: Final = """
    CREATE TABLE IF NOT EXISTS quarantine (
        session_id TEXT NOT NULL,    -- for people; nothing is read from here
        account TEXT NOT NULL,
        put_aside_at TEXT NOT NULL,
        reason TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        facts BLOB NOT NULL,
        handles BLOB NOT NULL
    ) STRICT"""

SCHEMA: Final = (
    """
    CREATE TABLE processes (
        owner TEXT PRIMARY KEY,
        boot_id TEXT NOT NULL,
        until_mono_s REAL NOT NULL,  -- of that boot
        address TEXT NOT NULL,
        pid INTEGER NOT NULL         -- for people; nothing is decided by it
    ) STRICT, WITHOUT ROWID""",
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL UNIQUE,
        account TEXT NOT NULL,
        owner TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        ended INTEGER NOT NULL DEFAULT 0,
        sequence INTEGER NOT NULL DEFAULT 0,
        facts BLOB NOT NULL,
        handles BLOB NOT NULL DEFAULT (CAST('[]' AS BLOB)),
        kept_boot_id TEXT,           -- once it has ended
        kept_until_mono_s REAL,
        end_wanted TEXT,             -- why somebody else wants it to end
        request_id TEXT NOT NULL DEFAULT '',
        saved_boot_id TEXT,          -- of the last save of facts
        saved_mono_s REAL
    ) STRICT""",
    "CREATE INDEX living ON sessions (owner) WHERE NOT ended",
    "CREATE INDEX requests ON sessions (request_id) WHERE request_id <> ''",
    """
    CREATE TABLE utterances (
        session_id TEXT NOT NULL,
        utterance_id TEXT NOT NULL,
        facts BLOB NOT NULL,
        UNIQUE (session_id, utterance_id)
    ) STRICT""",
    """
    CREATE TABLE upstreams (
        upstream_session_id TEXT NOT NULL UNIQUE,
        session_id TEXT NOT NULL,
        access BLOB                  -- sealed; NULL before start has answered
    ) STRICT""",
    "CREATE INDEX upstreams_of ON upstreams (session_id)",
    _QUARANTINE,
)

UPGRADES: Final = {
    1: ("ALTER TABLE sessions ADD COLUMN end_wanted TEXT",),
    2: (
        "ALTER TABLE sessions ADD COLUMN request_id TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX requests ON sessions (request_id) WHERE request_id <> ''",
    ),
    3: (_QUARANTINE,),
    4: (
        "ALTER TABLE sessions ADD COLUMN saved_boot_id TEXT",
        "ALTER TABLE sessions ADD COLUMN saved_mono_s REAL",
    ),
}
"""What leads from a version to the next."""
