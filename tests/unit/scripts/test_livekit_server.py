"""The LiveKit server is built once, whole, and its progress shows."""

import subprocess
import sys
from pathlib import Path

import pytest

from liveavatar_demo.livekit_server import VERSION

ROOT = Path(__file__).resolve().parents[3]
LINES = ["go: downloading github.com/one v1", "go: downloading github.com/two v2", "runtime", "net/http", "main"]
BUILT = f'#!/bin/sh\necho "livekit-server version {VERSION}"\n'


def build(folder: Path, go: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a `go` that is this shell script."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "go").write_text(
        f'#!/bin/sh\nif [ "$1" = env ]; then echo go1.26.5; exit; fi\necho "$@" >> {folder}/calls\n{go}\n'
    )
    (programs / "go").chmod(0o755)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import livekit_server as script; "
        # A go of this environment's own would be found first.
        f"sys.executable = {str(programs / 'python')!r}; script._PROGRESS_S = 0.05; "
        f"sys.argv[1:] = {list(arguments)!r}; script.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )


@pytest.fixture
def good(tmp_path: Path) -> str:
    (tmp_path / "server").write_text(BUILT)
    (tmp_path / "server").chmod(0o755)
    say = "; ".join(f"echo '{line}' >&2" for line in LINES)
    return f'{say}; sleep 0.2; cp {tmp_path}/server "$GOBIN/server"'


def test_it_is_built_once_and_shows_how_far_it_is(tmp_path, good):
    program = tmp_path / f".cache/liveavatar-gateway/livekit-server-{VERSION}"
    first = build(tmp_path, good)
    assert (first.returncode, first.stdout.strip()) == (0, str(program)), first.stderr
    assert "2 modules downloaded, 3 packages compiled" in first.stderr.splitlines()[-1]
    assert len(first.stderr.splitlines()) > 2
    again = build(tmp_path, good)
    assert (again.returncode, again.stdout.strip(), again.stderr) == (0, str(program), "")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_build_that_fails_shows_what_go_said_and_leaves_nothing(tmp_path):
    done = build(tmp_path, "echo 'no such module' >&2; exit 1", "--output", str(tmp_path / "out/server"))
    assert done.returncode == 1
    assert "no such module" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_program_that_is_named_is_enough_for_tests(tmp_path):
    (tmp_path / "mine").write_text(BUILT)
    (tmp_path / "mine").chmod(0o755)
    done = build(tmp_path, "exit 1", "--unless-found", LIVEKIT_SERVER=str(tmp_path / "mine"))
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "mine"))
    assert not (tmp_path / "calls").exists()
