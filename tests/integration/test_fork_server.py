"""Processes that the fork server starts are like those of `python -m`, and start without imports of their own."""

import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testkit import processes
from testkit.fork_server import SHARED, Forked, ForkServer

REPORT = """
    import atexit, json, os, signal, sys

    print("written")
    print("complained", file=sys.stderr)
    found = {
        "argv": sys.argv[1:],
        "name": __name__,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "input": sys.stdin.read(),
        "leads session": os.getsid(0) == os.getpid(),
        "umask": os.umask(0),
        "files": [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")],
        "default": [signal.getsignal(number) is signal.SIG_DFL for number in (15, 1, 17)],
        "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "loaded": [name in sys.modules for name in ("liveavatar_gateway.app", "liveavatar_emulator.app")],
    }
    atexit.register(lambda: open(sys.argv[1], "w").write(json.dumps(found)))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Callable[..., Forked]:
    """Run a program as a module from the fork server."""
    monkeypatch.syspath_prepend(tmp_path)

    def start(program: str, *arguments: str, **environment: str) -> Forked:
        name = f"program_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(program))
        log_path = tmp_path / "log"
        log_path.touch()
        return SHARED.start(name, arguments, environment=environment, log_path=log_path)

    return start


def test_a_process_finds_what_a_command_would(run, tmp_path: Path):
    before = os.umask(0o027)
    try:
        process = run(REPORT, str(tmp_path / "found"), "word", GATEWAY_PORT="1", ODD="a=b")
    finally:
        os.umask(before)
    assert process.wait(30) == 0
    found: dict[str, Any] = json.loads((tmp_path / "found").read_text())
    assert found.pop("loaded") == [True, True]
    assert found == {
        "argv": [str(tmp_path / "found"), "word"],
        "name": "__main__",
        "environment": {"GATEWAY_PORT": "1", "ODD": "a=b"},
        "folder": str(Path.cwd()),
        "input": "",
        "leads session": True,
        "umask": 0o027,
        "files": ["0", "1", "2"],
        "default": [True, True, True],
        "interrupts": True,
    }
    assert sorted((tmp_path / "log").read_text().split()) == ["complained", "written"]


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('no such file')", 1, "no such file"),
        ("raise ValueError('unforeseen')", 1, "ValueError: unforeseen"),
        ("import os; os.kill(os.getpid(), 6)", -signal.SIGABRT, ""),
    ],
)
def test_the_exit_code_is_that_of_a_command(run, tmp_path: Path, program, code, says):
    process = run(program)
    assert [process.wait(30), process.wait(), process.poll()] == [code] * 3
    assert says in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("end", "code"), [(Forked.terminate, -signal.SIGTERM), (Forked.kill, -signal.SIGKILL)])
def test_a_process_runs_until_it_is_ended(run, end, code):
    process = run("import time; time.sleep(120)")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    end(process)
    assert process.wait(30) == code
    process.send_signal(signal.SIGTERM)


def test_the_fork_server_has_no_threads(run):
    """A fork copies none of them, nor what they hold: of gRPC, only the import may come before it."""
    process = run("import time; time.sleep(120)")
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    parent = next(line.split()[1] for line in status if line.startswith("PPid"))
    assert [task.name for task in Path(f"/proc/{parent}/task").iterdir()] == [parent]
    process.kill()
    process.wait(30)


@pytest.mark.parametrize(
    ("variable", "taken"),
    [
        ("GATEWAY_PORT", True),
        ("LIVEAVATAR_API_KEY", True),
        ("https_proxy", True),
        ("PYTHONPATH", False),
        ("LD_PRELOAD", False),
        ("MALLOC_ARENA_MAX", False),
        ("GRPC_VERBOSITY", False),
        ("TZ", False),
    ],
)
def test_a_variable_that_imports_may_read_needs_a_new_interpreter(variable, taken):
    assert ForkServer().takes({**os.environ, variable: "other"}) == taken


def test_gateways_are_forked_unless_they_need_a_new_program(shared_emulator, tmp_path: Path):
    def kind(package: str = "liveavatar_gateway", **options: Any) -> type[processes.Server]:
        environment = options.pop("environment", {})
        return type(processes.server(package, environment, tmp_path, **options))

    assert kind() == kind("liveavatar_emulator") == kind(environment={"GATEWAY_PORT": "1"})
    forked = kind()
    assert forked is not processes.Server
    assert type(shared_emulator.process) is forked
    for needs in ({"fresh": True}, {"log_fd": 1}, {"terminal_fd": 0}, {"program": Path("/bin/gateway")}):
        assert kind(**needs) is processes.Server
    assert kind(environment={"LD_PRELOAD": "/lib/libfaketime.so"}) is processes.Server
