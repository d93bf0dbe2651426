"""File of the pool for a gateway that keeps sessions warm: one account, and one profile that learns."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stage.services import API_KEY


@contextlib.contextmanager
def pool_file(*, sessions: int, warm: int, avatar_id: str) -> Iterator[Path]:
    """Write the file, outside of any folder that is kept: beside it lies the account's key.

    Args:
        sessions: Concurrent sessions of the account.
        warm: Most warm sessions.
        avatar_id: Avatar of the warm sessions.
    """
    with tempfile.TemporaryDirectory(prefix="load-pool-") as private:
        key, file = Path(private) / "account.key", Path(private) / "pool.toml"
        for path, content in (
            (key, API_KEY),
            (
                file,
                f"""[accounts.load]
api_key_file = "{key}"
max_sessions = {sessions}

[profiles.arrivals]
avatar_id = "{avatar_id}"
mode = "learnt"
min = 0
max = {warm}
""",
            ),
        ):
            path.touch(mode=0o600)
            path.write_text(content)
        yield file
