"""Install a pinned livekit-server for development, from its Go module, into a cache; print its path.

The release is `VERSION` in `liveavatar_gateway/demo/livekit_server.py`, where the newest that `go install` takes
is 1.13.5: from 1.13.6 on, its go.mod has `replace` directives, which `go install module@version` refuses.

Usage: livekit_server.py [--output FILE]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from liveavatar_gateway.demo.livekit_server import VARIABLE, VERSION, cached_program

_MODULE = f"github.com/livekit/livekit-server/cmd/server@v{VERSION}"
_NEEDED = (1, 26)
"""From the module's go.mod."""
_ALTERNATIVES = f"""\
Other ways to a livekit-server:
  a newer Go     https://go.dev/dl, `brew install go`, or your distribution's package
  macOS          brew install livekit
  Docker         docker run --rm --network host livekit/livekit-server --dev
  a program      {VARIABLE}=/path/to/livekit-server names one that you have"""


def installed_version(program: Path) -> str | None:
    """What a program says of itself, or None when it does not run."""
    try:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"version (\S+)", said.stdout)
    return found.group(1) if found else None


def go_problem() -> str | None:
    """Why Go cannot build it, or None when it can."""
    if shutil.which("go") is None:
        return "Go is not installed"
    said = subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found.group(1)), int(found.group(2))) < _NEEDED:
        return f"`go` is {said or 'of an unknown version'}"
    return None


def install(program: Path) -> None:
    """Build beside `program` and move it there whole, so that a half-made one is never found."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=".livekit-server-") as folder:
        environment = {**os.environ, "GOBIN": folder}
        built = subprocess.run(["go", "install", _MODULE], env=environment, check=False, stdout=sys.stderr)
        if built.returncode != 0:
            sys.exit(f"livekit_server: `go install {_MODULE}` failed, see above\n{_ALTERNATIVES}")
        (Path(folder) / "server").replace(program)


def main() -> None:
    """Parse the command line, install what is missing, print the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=cached_program(os.environ), metavar="FILE", help="default: %(default)s"
    )
    program: Path = parser.parse_args().output.absolute()
    if installed_version(program) != VERSION:
        if problem := go_problem():
            needed = ".".join(map(str, _NEEDED))
            sys.exit(f"livekit_server: Go {needed} or newer is needed, {problem}\n{_ALTERNATIVES}")
        print(f"building livekit-server {VERSION}, a few minutes the first time", file=sys.stderr)
        install(program)
        if (found := installed_version(program)) != VERSION:
            sys.exit(f"livekit_server: {program} says it is {found}, expected {VERSION}")
    print(program)


if __name__ == "__main__":
    main()
