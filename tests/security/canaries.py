"""Known secrets, and the search for them in whatever a process leaves behind, as they are and encoded."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

_MIN_CHARS: Final = 12
"""Shorter texts are found in other words."""
_TOKEN: Final = re.compile(r"eyJ[\w-]+\.[\w-]+\.([\w-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Finding:
    """Secret in a place where it does not belong."""

    secret: str
    """Name of the secret, not its text."""
    form: str
    place: str
    around: str
    """Text before it."""

    def __str__(self) -> str:
        return f"{self.secret} is in {self.place} ({self.form}), after {self.around!r}"


@dataclass(slots=True)
class Canaries:
    """Secrets by name."""

    texts: dict[str, list[str]] = field(default_factory=dict)

    def plant(self, name: str, text: str) -> str:
        """Add a secret, and return its text. Of a web token, the signature alone is a secret too."""
        assert len(text) >= _MIN_CHARS, f"{name} is too short to be found"
        parts = [text]
        if (token := _TOKEN.fullmatch(text)) is not None:
            parts.append(token[1])
        self.texts.setdefault(name, []).extend(parts)
        return text

    def search(self, place: str, content: str | bytes, *, allowed: frozenset[str] = frozenset()) -> list[Finding]:
        """Return the secrets in a content, except those that belong there."""
        data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
        folded = data.lower()
        found = []
        for name, texts in self.texts.items():
            if name in allowed:
                continue
            for text in texts:
                for form, encoded in forms(text):
                    at = (folded if form == "hex" else data).find(encoded)
                    if at >= 0:
                        around = data[max(0, at - 60) : at].decode(errors="replace")
                        found.append(Finding(name, form, place, around))
        return found


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """Yield a secret in every form in which it may be written down."""
    raw = text.encode()
    yield "raw", raw
    if (quoted := quote(text, safe="")) != text:
        yield "URL-encoded", quoted.encode()
    yield "hex", raw.hex().encode()
    for skipped in range(3):
        # In base64 a text has three forms, by its position in what is encoded; its first and last bytes are mixed
        # with others.
        whole = base64.b64encode(bytes(skipped) + raw).rstrip(b"=")
        middle = whole[4 if skipped else 0 : len(whole) - 2]
        yield "base64", middle
        yield "base64", middle.translate(bytes.maketrans(b"+/", b"-_"))
