"""Write the table of settings into a guide, from `config/settings.py`: names, defaults, ranges and meanings.

Usage: settings_table.py FILE          rewrite the table between the two markers in FILE
       settings_table.py --check FILE  fail if the table differs from the code
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from liveavatar_gateway.config import PREFIX, Settings

_BEGIN: Final = "<!-- settings: written by `make settings-table` -->"
_END: Final = "<!-- end of settings -->"


def table() -> str:
    """Return all settings as a Markdown table, in the order of the code."""
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    return "\n".join(["| variable | default | range | what |", "|---|---|---|---|", *rows])


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{PREFIX}{name.upper()}`", _default(field.default), _range(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value in (None, "") else f"`{_shown(value)}`"


def _range(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "true, false"
    bounds = []
    for bound in field.metadata:
        match bound:
            case Ge(low):
                bounds.append(_shown(low))
            case Gt(low):
                bounds.append(f"above {_shown(low)}")
            case Le(high):
                bounds.append(f"to {_shown(high)}")
    return " ".join(bounds)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")


def rewritten(text: str) -> str:
    """Return `text` with the current table between its markers."""
    head, begin, rest = text.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        sys.exit(f"settings_table: the file has no `{_BEGIN}` followed by `{_END}`")
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


def main() -> None:
    """Parse the command line; rewrite or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="Markdown file with the markers")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the table is stale")
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8")
    fresh = rewritten(text)
    if options.check and fresh != text:
        sys.exit(f"settings_table: {options.file} is stale, run `make settings-table`")
    if not options.check:
        options.file.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
