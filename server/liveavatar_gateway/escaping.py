r"""Escapes for texts from outside, so that they cannot act on a terminal, a log or a spreadsheet.

A label, a name or an error message may hold sequences that move the cursor, colour or retitle a terminal, reverse
the direction of the text around them, or begin a line that looks like another program's. Escaped, they are shown
as Python writes them, as in `\x1b[2J`.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

_JOINERS: Final = "\u200c\u200d"
"""Invisible too, but Persian, Indic scripts and emoji are misspelt without them, and they affect no other text."""
_ACTIVE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of controls, formats such as bidi overrides, line separators, and points without glyph."""
_FORMULA: Final = re.compile(r"\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Beginnings of formulas, also in full width, as spreadsheets of several vendors read them.

Source: OWASP, CSV Injection.
"""


def escaped(text: str) -> str:
    """Return the text on one line, with every character that has an effect but no glyph escaped."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_active(character) else character for character in text
    )


def csv_cell(text: str) -> str:
    """Return the text for a cell of a CSV file, escaped, and not taken for a formula by a spreadsheet."""
    # Tested before it is escaped: a leading tab is skipped by spreadsheets.
    quoted = f"'{text}" if _FORMULA.match(text) else text
    return escaped(quoted)


def json_text(value: object, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return JSON in printable ASCII: its escapes take the place of all other characters.

    Args:
        value: Value to write.
        indent: Number of spaces by level; None for a single line.
        default: Makes a JSON value of any other.
    """
    # DEL is the one character of ASCII that `json` leaves as it is, and occurs in texts alone.
    return json.dumps(value, indent=indent, default=default, ensure_ascii=True).replace("\x7f", r"\u007f")


def _is_active(character: str) -> bool:
    return unicodedata.category(character) in _ACTIVE and character not in _JOINERS
