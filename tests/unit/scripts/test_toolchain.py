"""What `make test` brings, and what it says where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts/toolchain.py"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(*arguments: str, path: Path, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but `path` on PATH, under another user's id where `code` says so."""
    start = f"import sys, os; sys.path.insert(0, {str(SCRIPT.parent)!r}); import toolchain; {code}; "
    return subprocess.run(
        [sys.executable, "-S", "-c", f"{start}sys.argv[1:] = {list(arguments)!r}; toolchain.main()"],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


AS_USER = "os.geteuid = lambda: 1000"
AS_ROOT = "os.geteuid = lambda: 0"
NOTHING_THERE = "toolchain.SystemPackage.is_installed = lambda self: False"


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("sudo", ["", "exit 1"], ids=["no sudo", "a sudo that asks for a password"])
def test_a_user_who_may_not_install_is_told_the_one_line_that_does(bin_folder, sudo):
    program(bin_folder, "apt-get", "exit 9")
    if sudo:
        program(bin_folder, "sudo", sudo)
    done = run("system", path=bin_folder, code=f"{AS_USER}; {NOTHING_THERE}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "sudo apt-get install -y --no-install-recommends chromium libfaketime" in line


def test_a_system_without_apt_is_told_what_is_needed(bin_folder):
    done = run("system", path=bin_folder, code=f"{AS_ROOT}; {NOTHING_THERE}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "tests need chromium libfaketime" in line


@pytest.mark.parametrize("user", [AS_ROOT, AS_USER], ids=["root", "sudo without a password"])
def test_what_is_missing_is_installed_by_apt_without_a_question(bin_folder, tmp_path, user):
    (bin_folder / "env").symlink_to("/usr/bin/env")
    program(bin_folder, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/apt.log')
    program(bin_folder, "sudo", f'echo sudo >> {tmp_path}/apt.log; shift; "$@"')
    program(bin_folder, "true", "")
    done = run("system", path=bin_folder, code=f"{user}; {NOTHING_THERE}")
    assert done.returncode == 0, done.stderr
    commands = [line for line in (tmp_path / "apt.log").read_text().splitlines() if line != "sudo"]
    assert [line.split()[0] for line in commands] == ["noninteractive"] * 2
    assert commands[0].endswith("update")
    assert commands[1].endswith("install -y --no-install-recommends chromium libfaketime")


def test_an_apt_that_fails_ends_with_what_it_said(bin_folder):
    (bin_folder / "env").symlink_to("/usr/bin/env")
    program(bin_folder, "apt-get", "echo no such mirror >&2; exit 100")
    done = run("system", path=bin_folder, code=f"{AS_ROOT}; {NOTHING_THERE}")
    assert done.returncode == 1
    assert "no such mirror" in done.stderr


def test_a_program_that_does_as_well_counts(bin_folder):
    program(bin_folder, "google-chrome", "")
    code = "toolchain.SYSTEM_PACKAGES = toolchain.SYSTEM_PACKAGES[:1]"
    call = f"{code}; sys.exit(0 if toolchain.SYSTEM_PACKAGES[0].is_installed() else 3)"
    assert run("system", path=bin_folder, code=call).returncode == 0
    (bin_folder / "google-chrome").unlink()
    assert run("system", path=bin_folder, code=call).returncode == 3
    assert run("system", path=bin_folder, code=call, CHROMIUM="/opt/chrome").returncode == 0


@pytest.mark.parametrize(
    ("tool", "said", "enough"),
    [
        ("node", "v18.19.1", False),
        ("node", "v20.20.2", True),
        ("node", "v24.1.0", True),
        ("go", "go1.19.8", False),
        ("go", "go1.26.0", True),
        ("go", "go1.27.3", True),
        ("go", "", False),
        ("node", "a riddle", False),
    ],
)
def test_a_tool_counts_when_it_is_new_enough(bin_folder, tool, said, enough):
    program(bin_folder, tool, f"echo {said}")
    program(bin_folder, "npm", "")
    # An interpreter elsewhere, so that this environment's own tools are not found.
    done = run(tool, "--check", path=bin_folder, code=f"sys.executable = {str(bin_folder / 'python')!r}")
    assert done.returncode == (0 if enough else 1), done.stderr


def test_node_without_npm_does_not_count(bin_folder):
    program(bin_folder, "node", "echo v24.1.0")
    done = run("node", "--check", path=bin_folder, code=f"sys.executable = {str(bin_folder / 'python')!r}")
    assert done.returncode == 1


def test_make_brings_tools_before_tests_and_the_demo_fetches_none():
    def steps(target: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    test, demo = steps("test"), steps("demo")
    for brought in ("toolchain.py system", "livekit_server.py --unless-found", "npm", "pytest"):
        assert brought in test
    assert test.index("toolchain.py system") < test.index("bin/pytest")
    assert "toolchain.py node --check" in demo
    for fetched in (
        "toolchain.py system",
        "livekit_server.py",
        "pip install --quiet --require-hashes -r requirements/node",
    ):
        assert fetched not in demo
