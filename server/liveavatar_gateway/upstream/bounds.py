"""Limits of what LiveAvatar says: each text and number is bounded where it comes in."""

import math
from typing import Final

MAX_REASON_BYTES: Final = 100
"""Reasons are words like MAX_DURATION_REACHED; a session's end repeats them several times in its gRPC trailers."""
MAX_KIND_BYTES: Final = 100
MAX_ID_CHARS: Final = 128
"""LiveAvatar's ids are UUIDs."""
MAX_WORDS_BYTES: Final = 500
"""Bytes of a notice or a refusal that callers are told: trailers of gRPC take 8 kB in all."""
MAX_URL_CHARS: Final = 4096
MAX_TOKEN_CHARS: Final = 16_384
MIN_SESSION_S: Final = 1.0
MAX_SESSION_S: Final = 30 * 86_400.0
"""Longest limit of a session that is believed; plans have at most hours."""
_MARKER: Final = "… (cut)"


def bounded(text: str, max_bytes: int) -> str:
    """Return `text`, cut between two characters and marked as cut if its UTF-8 is longer than `max_bytes`."""
    # Most texts are short: one that fits even at four bytes a character needs no encoding to know.
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text[: max_bytes + 1].encode(errors="replace")
    if len(encoded) <= max_bytes and len(text) <= max_bytes:
        return encoded.decode()
    kept = encoded[: max_bytes - len(_MARKER.encode())]
    return kept.decode(errors="ignore") + _MARKER


def session_seconds(value: object) -> float | None:
    """Return a session's limit in seconds; None when `value` is no number, or none that can be true.

    Read leniently: one of LiveAvatar's fixtures shows the number as a string.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and MIN_SESSION_S <= seconds <= MAX_SESSION_S else None
