"""Check of docstrings, proto comments and documents for openers and phrases that the house rules exclude.

A docstring opens with an imperative verb or a noun phrase; ruff's D401 holds the verbs of functions, this script
holds the words that open a relative clause or a question. See CONTRIBUTING.md, "Prose".
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_RELATIVE = ("That", "What", "Whatever", "Which", "Whichever", "Who", "Whoever", "Whom", "Whose")
_ADVERBS = ("How", "Since", "When", "Whenever", "Where", "Wherever", "Whether", "Why")
OPENERS = frozenset({"One", *_RELATIVE, *_ADVERBS})
"""First words that a docstring or a proto comment must not have."""

PHRASES = {
    r"\breckon\w*": "compute",
    r"\bfor the books\b": "recorded",
    r"\bits like\b": "similar",
    r"\bnot any ?more\b": "no longer",
    r"\bfor ever\b": "forever",
}
"""Phrases that read as a translation, with the plain word for each."""

DOCUMENT_PHRASES = PHRASES | {
    r"\ball the same\b": "nevertheless",
    r"(?<!\()(?<!called )\bbarge-?ins?\b": "interrupt",
    r"\bfor want of\b": "for lack of",
    r"\bgo(?:es|ing)? on\b|\bwent on\b": "continue",
    r"\bgo(?:es)? up\b|\bwent up\b": "is sent",
    r"\bgood for some\b": "enough for about",
    r"\bhasten\w*": "speed up",
    r"\bin line\b(?! with)": "queued",
    r"\blets? go of\b": "release",
    r"\bmerely\b": "only",
    r"\bplaces? on the account\b": "permit",
    r"\btaken for\b": "counts as",
    r"\btell(?:s|ing)?\b|\btold\b": "report",
    r"\bthe one before\b": "the previous",
    r"\btorn down\b": "deleted",
    r"\bwhoever\b": "the caller that",
}
"""Phrases that documents must not have: they are read by people who do not know the code."""

_GENERATED = ("_pb2", "third_party/", "node_modules/")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring, those of attributes and constants included."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        documented: list[ast.stmt | None] = [None, *node.body]
        for before, statement in zip(documented, node.body, strict=False):
            if before is not None and not isinstance(before, ast.Assign | ast.AnnAssign):
                continue
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield statement.lineno, text


def proto_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of each block of `//` comments."""
    block: list[str] = []
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        stripped = line.strip()
        if stripped.startswith("//"):
            block.append(stripped.removeprefix("//").strip())
        elif block:
            yield number - len(block), " ".join(block)
            block = []


_QUOTED = re.compile(r"`[^`]*`")


def paragraphs(source: str) -> Iterator[tuple[int, str]]:
    """Yield each line of a document that is prose: outside code fences, and without inline code."""
    fenced = False
    for number, line in enumerate(source.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            # Names of fields and tests are quoted as they are.
            yield number, _QUOTED.sub("", line)


def opener(text: str) -> list[str]:
    """Return the complaint about the first word of a docstring or comment, if there is one."""
    words = text.split()
    first = words[0].strip("`*\"'(,.:;") if words else ""
    return [f'opens with "{first}"; open with an imperative verb or a noun phrase'] if first in OPENERS else []


def phrases(text: str, excluded: Mapping[str, str] = PHRASES) -> list[str]:
    """Return the complaints about phrases in a text."""
    found = []
    for phrase, plain in excluded.items():
        found += [f'says "{match.group(0)}"; say "{plain}"' for match in re.finditer(phrase, text, re.IGNORECASE)]
    return found


_READERS = {".py": docstrings, ".proto": proto_comments, ".md": paragraphs}


def check(path: Path) -> list[str]:
    """Return the complaints about one file, each with its place."""
    source = path.read_text()
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    found: list[str] = []
    for line, text in _READERS[path.suffix](source):
        is_document = path.suffix == ".md"
        complaints = phrases(text, DOCUMENT_PHRASES) if is_document else opener(text) + phrases(text)
        found += [f"{name}:{line}: {complaint}" for complaint in complaints]
    return found


def tracked() -> list[Path]:
    """Return the project's own Python and proto files and documents, those not committed yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.proto", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    paths = [ROOT / name for name in listed if name and not any(part in name for part in _GENERATED)]
    return [path for path in paths if path.exists()]


def main(arguments: list[str] | None = None) -> int:
    """Print the complaints and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path, help="files to check; default: all of the project")
    parser.add_argument("--count", action="store_true", help="print the number of complaints alone")
    options = parser.parse_args(arguments)
    found = [fault for path in options.files or tracked() for fault in check(path.resolve())]
    print(len(found) if options.count else "\n".join(found) or "prose: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
