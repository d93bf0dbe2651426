"""`make check` refuses docstrings that open with a relative clause or a question."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/check_prose.py"


def check(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ('"""What this is for."""\n', "1: opens with"),
        ('class A:\n    """Who is told."""\n', "2: opens with"),
        ('async def f():\n    """Whether it is so."""\n', "2: opens with"),
        ('class A:\n    x: int = 1\n    """How many bytes."""\n', "3: opens with"),
        ('LIMIT = 1\n"""When to stop."""\n', "2: opens with"),
        ('"""`Which` one."""\n', "1: opens with"),
        ('def f():\n    """Return what is not any more needed."""\n', 'say "no longer"'),
    ],
)
def test_a_docstring_with_a_banned_word_is_refused_with_its_line(tmp_path, source, complaint):
    path = tmp_path / "module.py"
    path.write_text(source)
    done = check(path)
    assert done.returncode == 1
    assert f"{path}:" in done.stdout
    assert complaint in done.stdout


def test_a_comment_of_a_message_is_a_docstring_too(tmp_path):
    path = tmp_path / "a.proto"
    path.write_text(
        "// Session of a caller.\nmessage A {\n  // Who holds it,\n  // if anybody.\n  string a = 1;\n}\n"
    )
    done = check(path)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{path}:3: opens with")


def test_verbs_and_noun_phrases_pass(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""Queue of utterances."""\n\nx = "What is no docstring"\n\n\ndef f():\n    """Return what is due."""\n'
    )
    done = check(path)
    assert (done.returncode, done.stdout) == (0, "prose: clean\n")


def test_a_document_is_held_to_more_phrases_outside_of_its_code(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(
        "The session goes on.\n\n```\nit goes on\n```\n\n`test_it_is_told` and a place in line with others.\n"
    )
    done = check(path)
    assert done.returncode == 1
    assert done.stdout == f'{path}:1: says "goes on"; say "continue"\n'


def test_a_docstring_may_use_words_that_documents_may_not(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('"""Session that goes on."""\n')
    assert check(path).returncode == 0
