"""Bounds of LiveAvatar's texts and numbers, applied where they are read."""

import math
from typing import Final

MAX_REASON_BYTES: Final = 100
"""Limit of reasons such as MAX_DURATION_REACHED, which the gRPC trailers of a session's end repeat."""
MAX_KIND_BYTES: Final = 100
MAX_ID_CHARS: Final = 128
"""LiveAvatar's ids are UUIDs."""
MAX_MESSAGE_BYTES: Final = 500
"""Limit of notices and error messages passed to callers: gRPC trailers hold 8 kB in total."""
MAX_URL_CHARS: Final = 4096
MAX_TOKEN_CHARS: Final = 16_384
MIN_SESSION_S: Final = 1.0
MAX_SESSION_S: Final = 30 * 86_400.0
"""Longest plausible session limit; plans allow hours at most."""
_MARKER: Final = "… (cut)"


def bounded(text: str, max_bytes: int) -> str:
    """Return `text`, cut between two characters and marked as cut if its UTF-8 is longer than `max_bytes`."""
    # Most texts are short: a text that fits at four bytes per character need not be encoded.
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text[: max_bytes + 1].encode(errors="replace")
    if len(encoded) <= max_bytes and len(text) <= max_bytes:
        return encoded.decode()
    kept = encoded[: max_bytes - len(_MARKER.encode())]
    return kept.decode(errors="ignore") + _MARKER


def session_seconds(value: object) -> float | None:
    """Return a session's limit in seconds; None if `value` is not a number or not plausible.

    Accepts strings too, because one of LiveAvatar's fixtures shows the number as a string.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and MIN_SESSION_S <= seconds <= MAX_SESSION_S else None
