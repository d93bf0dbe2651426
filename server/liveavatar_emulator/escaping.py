"""Escapes for texts of callers, so that they cannot act on a terminal or begin a line of a log."""

import json
import unicodedata
from typing import Any, Final

import orjson

_JOINERS: Final = "\u200c\u200d"
"""Invisible too, but some scripts and emoji are misspelt without them, and they affect no other text."""
_ACTIVE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of controls, formats such as bidi overrides, line separators, and points without glyph."""


def escaped(text: str) -> str:
    """Return the text on one line, with every character that has an effect but no glyph escaped."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_active(character) else character for character in text
    )


def json_line(row: dict[str, Any]) -> bytes:
    """Return a JSON line in printable ASCII: its escapes take the place of all other characters."""
    line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    if line.isascii() and b"\x7f" not in line:
        return line
    text = json.dumps(row, ensure_ascii=True, separators=(",", ":"))
    return text.replace("\x7f", r"\u007f").encode() + b"\n"


def _is_active(character: str) -> bool:
    return unicodedata.category(character) in _ACTIVE and character not in _JOINERS
