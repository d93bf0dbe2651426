"""Files in TOML that operators write: tables that refuse unknown keys, and errors that name place and cause."""

import difflib
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

_BARE_KEY: Final = re.compile(r"[\w-]{1,100}", re.ASCII)
_MAX_PROBLEMS: Final = 5
"""Problems that an error lists."""

Place = tuple[int | str, ...]
"""Keys and positions that lead to a value."""


class Table(BaseModel):
    """Table of a file. Unknown keys and values of another type are refused, and errors repeat no values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class BadToml(ValueError):
    """Content that is not TOML; the message has the cause."""


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the values of a file.

    Raises:
        BadToml: the content is not text, or not TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadToml("is not text in UTF-8") from None
    # A number of thousands of digits is a plain ValueError.
    except (ValueError, RecursionError) as error:
        raise BadToml(f"is not TOML: {str(error)[:200]}") from None


def explain(error: ValidationError, known_keys: Callable[[Place], Sequence[str]]) -> str:
    """Return the problems of a file with their places.

    Args:
        error: Result of the validation.
        known_keys: Returns the keys of the table in which the unknown key at a place was found.
    """
    problems = error.errors(include_url=False, include_input=False)
    lines = [
        f"{where}: {cause}" if (where := _path(p["loc"])) else cause
        for p in problems
        if (cause := _cause(p, known_keys))
    ]
    left = len(lines) - _MAX_PROBLEMS
    return "; ".join(lines[:_MAX_PROBLEMS]) + (f"; and {left} more" if left > 0 else "")


def _cause(problem: Any, known_keys: Callable[[Place], Sequence[str]]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), known_keys(problem["loc"]), n=1)
            return f"unknown key{f'; did you mean {near[0]}?' if near else ''}"
        case "missing":
            return "is missing"
        case "string_pattern_mismatch":
            return f"does not match {problem['ctx']['pattern']}"
        case _:
            return str(problem["msg"]).removeprefix("Value error, ")


def _path(place: Place) -> str:
    """Return the path of a value, as in `tenants.acme.keys[0].digest`."""
    found = ""
    for part in place:
        if isinstance(part, int):
            found += f"[{part}]"
        # pydantic marks keys of a table, whose pattern was not met, with a part of its own.
        elif part != "[key]":
            found += f".{part if _BARE_KEY.fullmatch(part) else repr(part[:100])}"
    return found.removeprefix(".")
