"""Lines, exit codes and clean-up on signals."""

import ast
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from liveavatar_gateway import cli
from liveavatar_gateway.cli.output import fail, print_json, print_line, stoppable

_FOLDER = Path(cli.__file__).parent


def test_a_line_is_one_line_without_effects(capsys):
    print_line("a\x1b[2J\nb\u202e")
    assert capsys.readouterr().out == "a\\x1b[2J\\nb\\u202e\n"


def test_json_is_printable_ascii(capsys):
    print_json({"label": "\x1b\x7f\u202e"})
    assert capsys.readouterr().out == '{\n  "label": "\\u001b\\u007f\\u202e"\n}\n'


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_command_prints_past_the_function_that_escapes(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printing = [ast.unparse(call.func) for call in calls if ast.unparse(call.func) in ("click.echo", "print")]
    assert printing == (["click.echo"] * 2 if path.name == "output.py" else [])


def test_a_failure_is_printed_with_the_name_of_the_program(capsys):
    with pytest.raises(SystemExit) as ended:
        fail("broken", 7)
    assert (ended.value.code, capsys.readouterr().err) == (7, "liveavatar-gateway: broken\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("say", "\x1b[2J\u202e.wav", "--sandbox"),
        ("say", __file__, "--\x1b[2J\u202e"),
        ("sessions", "list", "--state", "\x1b[2J\u202e"),
        ("\x1b[2J\u202e",),
    ],
    ids=str,
)
def test_errors_of_usage_are_escaped(arguments):
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 2
    assert all(line.isprintable() for line in done.output.splitlines())
    assert r"\x1b[2J" in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_clean_up_runs_on_a_signal(number):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), number)
                signal.pause()
            finally:
                cleaned.append(number)

    with pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, cleaned) == (128 + number, [number])
    assert signal.getsignal(signal.SIGTERM) is before
