"""Install a pinned livekit-server for development, from its Go module, into a cache; print its path.

The release is `VERSION` in `liveavatar_demo/livekit_server.py`. The newest release for `go install` is
1.13.5: from 1.13.6 on, its go.mod has `replace` directives, which `go install module@version` refuses.

A missing or outdated Go is installed from PyPI into this virtual environment.

Usage: livekit_server.py [--output FILE] [--unless-found]
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import toolchain
from liveavatar_demo.livekit_server import (
    VARIABLE,
    VERSION,
    ServerMissing,
    cached_program,
    find_program,
)

_MODULE = f"github.com/livekit/livekit-server/cmd/server@v{VERSION}"
_PROGRESS_S = 10.0
_SHOWN_LINES = 30
_ALTERNATIVES = f"""\
Other ways to a livekit-server:
  macOS          brew install livekit
  Docker         docker run --rm --network host livekit/livekit-server --dev
  a program      {VARIABLE}=/path/to/livekit-server names your own program"""


def installed_version(program: Path) -> str | None:
    """Return the version that a program reports, or None if the program does not run."""
    try:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"version (\S+)", said.stdout)
    return found.group(1) if found else None


class Progress:
    """State of a build, counted from the lines of `go install -v`."""

    def __init__(self) -> None:
        self._started_mono_s = time.monotonic()
        self._downloaded = 0
        self._compiled = 0
        self.last_lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        """Last lines of the output, shown if the build fails."""

    def read(self, lines: Iterable[str]) -> None:
        """Count the lines until the output ends."""
        for line in lines:
            self.last_lines.append(line)
            if line.startswith("go: downloading"):
                self._downloaded += 1
            elif not line.startswith(("go:", "#")):
                self._compiled += 1

    def show(self) -> None:
        """Print the progress in one line."""
        seconds = time.monotonic() - self._started_mono_s
        print(
            f"building livekit-server {VERSION}: {self._downloaded} modules downloaded, "
            f"{self._compiled} packages compiled, {seconds:.0f} s",
            file=sys.stderr,
        )


def install(program: Path) -> None:
    """Build beside `program` and move the finished file, so that `program` is never incomplete."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".livekit-server-") as folder:
        environment = {**os.environ, "PATH": toolchain.path_with_environment(), "GOBIN": folder}
        # The module's go.mod may name a newer toolchain, which Go would download.
        environment["GOTOOLCHAIN"] = "local"
        go = shutil.which("go", path=environment["PATH"]) or "go"
        progress = Progress()
        with subprocess.Popen(
            [go, "install", "-v", _MODULE],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as build:
            assert build.stderr is not None
            reader = threading.Thread(target=progress.read, args=[build.stderr])
            reader.start()
            while reader.is_alive():
                reader.join(_PROGRESS_S)
                progress.show()
        if build.returncode != 0:
            sys.stderr.writelines(progress.last_lines)
            sys.exit(f"livekit_server: `go install {_MODULE}` failed, see above\n{_ALTERNATIVES}")
        (Path(folder) / "server").replace(program)


def main() -> None:
    """Parse the command line, install the server unless it is installed, print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=cached_program(os.environ), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--unless-found", action="store_true", help=f"accept the program of {VARIABLE} or PATH")
    options = parser.parse_args()
    if options.unless_found:
        with contextlib.suppress(ServerMissing):
            print(find_program(os.environ))
            return
    program: Path = options.output.absolute()
    if installed_version(program) != VERSION:
        toolchain.provide("go")
        print(f"building livekit-server {VERSION}, a few minutes the first time", file=sys.stderr)
        install(program)
        if (found := installed_version(program)) != VERSION:
            sys.exit(f"livekit_server: {program} reports version {found}, expected {VERSION}")
    print(program)


if __name__ == "__main__":
    main()
