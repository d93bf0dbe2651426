"""Values at the edges of their types, and bytes that are nearly right."""

import math
import random
from typing import Any, Final

INTEGERS: Final = (
    *(0, 1, -1, 2, 100, 127, 128, 255, 256, 500, 501, 1000, 8000, 24_000, 48_000, 48_001, 65_535, 65_536),
    *(2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, -(2**63), 2**64 - 1),
)
FLOATS: Final = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan)
SECONDS: Final = (
    *(number for number in INTEGERS if -(2**63) <= number < 2**63),
    *(-5, 301, 3000, 86_400, 86_401, 315_576_000_000, 315_576_000_001, -315_576_000_000),
)
NANOS: Final = (0, 1, -1, 999_999_999, 1_000_000_000, -999_999_999, -1_000_000_000, 2**31 - 1, -(2**31))
STRINGS: Final = (
    *("", " ", "a", "\0", "\n", "\x1b[2J\x1b]0;title\x07", "\u202eevil\u202c", "\ufeff", "\x7f\x80\x9f"),
    *("é" * 64, "🙂" * 40, "\U0010ffff", "a" * 128, "a" * 129, "a" * 4096, "../../etc/passwd", "%s%n{0}${x}"),
    *("' OR 1=1 --", "<script>", "null", "NaN", "-1", "1e999", "0" * 5000, "9" * 5000, "\ufffe\uffff"),
    *("00000000-0000-0000-0000-000000000000", "2026-11-30", "9999-12-31", "0000-00-00", "2026-02-30", "A.b"),
)
_VARINTS: Final = (b"\x00", b"\x7f", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x80" * 20)
_FIELDS: Final = (
    # A number without a field, fields without a number, groups without an end, and a length beyond the message.
    *(
        b"\xc0\x3e\x01",
        b"\x00\x00",
        b"\xc3\x3e",
        b"\xc4\x3e",
        b"\xc2\x3e\xff\xff\xff\xff\x0f",
        b"\xc6\x3e",
        b"\xc7\x3e",
    ),
    *(b"\xc1\x3e" + bytes(8), b"\xc5\x3e" + bytes(4), b"\xc2\x3e\x02\xff\xfe", b"\xc3\x3e" * 150),
)
MAX_BYTES: Final = 64 * 1024
"""Limit of a mutated input, so that repeated doubling stays cheap."""


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return bytes after one to four random changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(9):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = rng.randrange(256)
            case 2:
                del changed[at : at + rng.choice((1, 1, 2, 8, 64))]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8, 64)))
            case 4:
                changed[at:at] = changed[at : at + rng.choice((1, 4, 16, 1024))]
            case 5:
                del changed[at:]
            case 6:
                changed[at : at + 1] = rng.choice(_VARINTS)
            case 7:
                changed[at:at] = rng.choice(_FIELDS)
            case _:
                changed += rng.choice(_FIELDS)
    return bytes(changed[:MAX_BYTES])


def json_value(rng: random.Random, depth: int = 0) -> Any:
    """Return any value that JSON can hold, some that it cannot, and lone surrogates."""
    kind = rng.randrange(12 if depth < 3 else 9)
    match kind:
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2 | 3:
            return rng.choice(INTEGERS)
        case 4:
            return rng.choice(FLOATS)
        case 5:
            return 10 ** rng.choice((20, 100, 400))
        case 6:
            return "\ud800" if rng.random() < 0.1 else rng.choice(STRINGS)
        case 7 | 8:
            return rng.choice(STRINGS)
        case 9:
            return [json_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))]
        case 10:
            return nested(rng.choice((2, 20, 200)), rng)
        case _:
            return {rng.choice(STRINGS[:24]): json_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 3)))}


def nested(depth: int, rng: random.Random) -> Any:
    """Return a value inside many lists or objects."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"payload": value}
    return value


def changed_json(rng: random.Random, value: Any) -> Any:
    """Return a JSON value with one of its parts replaced, removed, doubled or moved."""
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        rest = {key: other for key, other in value.items() if key != name}
        match rng.randrange(7):
            case 0:
                return rest
            case 1 | 2:
                return {**rest, name: json_value(rng)}
            case 3:
                return {**rest, rng.choice((*value, *STRINGS[:24])): value[name]}
            case 4:
                return {**rest, "payload": {name: value[name]}}
            case _:
                return {**rest, name: changed_json(rng, value[name])}
    if isinstance(value, list) and value:
        return [*value, changed_json(rng, value[0])] if rng.random() < 0.5 else value * 2
    return json_value(rng)
