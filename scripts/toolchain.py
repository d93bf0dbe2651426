"""Install the programs that `make test` needs beyond Python's packages.

System packages are installed with apt. Node.js and Go are installed from PyPI, pinned, into the running virtual
environment, unless PATH has a recent enough version.

Usage: toolchain.py system [--only PACKAGE] | toolchain.py node|go [--check]
"""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_APT_TIMEOUT_S: Final = 600
_SERVERS: Final = ("/usr/sbin", "/usr/local/sbin")
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
"""Program that Debian's packages ask before they start a service; 101 means no."""


def _path_with_servers() -> str:
    """Return PATH with the folders of servers, which Debian omits for users."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SERVERS])


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPackage:
    """A Debian package, and the traces by which it or an equivalent package is recognised."""

    name: str
    programs: tuple[str, ...] = ()
    """Programs, any of which on PATH is sufficient."""
    files: str = ""
    """Pattern below /; any matching file is sufficient."""
    variable: str = ""
    """Environment variable for a program of the user's own."""
    service: str = ""
    """Service of the package, kept from starting because tests run the program themselves."""

    def is_installed(self) -> bool:
        """Return whether any trace of the package is found."""
        if self.variable and os.environ.get(self.variable):
            return True
        if any(shutil.which(program, path=_path_with_servers()) for program in self.programs):
            return True
        return bool(self.files) and any(Path("/").glob(self.files))


SYSTEM_PACKAGES: Final = (
    # Browser for the tests of the viewer's page.
    SystemPackage(
        name="chromium",
        programs=("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
        variable="CHROMIUM",
    ),
    # Library for tests with clocks that jump or run fast.
    SystemPackage(name="libfaketime", files="usr/lib/*/faketime/libfaketime.so.1"),
    # Proxies, tested with the settings of deploy/proxies.
    SystemPackage(name="nginx-light", programs=("nginx",), service="nginx"),
    SystemPackage(name="haproxy", programs=("haproxy",), service="haproxy"),
    # Voice of users in tests, and of examples/agent.py.
    SystemPackage(name="espeak-ng", programs=("espeak-ng",)),
)
"""Packages that tests need from the system. A test that needs another program adds it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that Debian 12 lacks or has too old."""

    title: str
    ask: tuple[str, ...]
    """Command that prints the version."""
    needed: tuple[int, ...]
    also: tuple[str, ...] = ()
    """Further programs that must be on PATH."""
    lock: str
    """Requirements file of the PyPI package with the program."""

    @property
    def needed_text(self) -> str:
        """Needed version as text."""
        return ".".join(map(str, self.needed))

    def problem(self, path: str) -> str | None:
        """Return the reason why no program on `path` is sufficient; None if one is."""
        for program in (self.ask[0], *self.also):
            if shutil.which(program, path=path) is None:
                return f"there is no `{program}`"
        try:
            # Go would download another toolchain if a go.mod in a parent folder required it.
            environment = {**os.environ, "PATH": path, "GOTOOLCHAIN": "local"}
            said = subprocess.run(
                self.ask, check=True, capture_output=True, text=True, timeout=60, env=environment
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            return f"`{' '.join(self.ask)}` failed: {error}"
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None or tuple(map(int, found.groups())) < self.needed:
            return f"`{self.ask[0]}` is {said.strip() or 'of an unknown version'}"
        return None


TOOLS: Final = {
    "node": Tool(
        title="Node.js", ask=("node", "--version"), needed=(20,), also=("npm",), lock="requirements/node.txt"
    ),
    "go": Tool(title="Go", ask=("go", "env", "GOVERSION"), needed=(1, 26), lock="requirements/go.txt"),
}


def path_with_environment() -> str:
    """Return PATH with this virtual environment's programs first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def provide(name: str) -> None:
    """Install a tool into this virtual environment unless a recent enough version is present."""
    tool = TOOLS[name]
    if tool.problem(path_with_environment()) is None:
        return
    # `make --jobs` requests both tools at once, and two pips must not write to one environment at once.
    with (Path(sys.prefix) / "toolchain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _install(tool)


def _install(tool: Tool) -> None:
    problem = tool.problem(path_with_environment())
    if problem is None:
        return
    print(
        f"{tool.title} {tool.needed_text} or newer is needed, {problem}: installing {tool.lock} into {sys.prefix}",
        file=sys.stderr,
    )
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(_ROOT / tool.lock)]
    if subprocess.run(install, check=False, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"toolchain: no {tool.title} could be installed, see above; install {tool.needed_text} yourself")
    if problem := tool.problem(path_with_environment()):
        sys.exit(f"toolchain: {tool.lock} is installed and {problem}")


def install_system_packages(packages: Iterable[SystemPackage] = SYSTEM_PACKAGES) -> None:
    """Install missing packages with apt, or exit with the command that installs them."""
    missing = [package for package in packages if not package.is_installed()]
    if not missing:
        return
    named = [package.name for package in missing]
    names = " ".join(named)
    if shutil.which("apt-get") is None:
        sys.exit(f"toolchain: tests need {names}; install them with this system's package manager, then run again")
    as_root: list[str] = []
    if os.geteuid() != 0:
        by_hand = f"sudo apt-get update && sudo apt-get install -y --no-install-recommends {names}"
        as_root = ["sudo", "-n"]
        if shutil.which("sudo") is None or _fails([*as_root, "true"]):
            sys.exit(f"toolchain: tests need {names}; run: {by_hand}")
    print(f"installing with apt: {names}", file=sys.stderr)
    apt = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    apt += ["-o", f"DPkg::Lock::Timeout={_APT_TIMEOUT_S}", "-o", "Dpkg::Use-Pty=0"]
    services = [package.service for package in missing if package.service]
    said = ""
    with _no_service_starts(as_root) if services else contextlib.nullcontext():
        # An update fails if any source is unreadable, even if the needed lists are fresh: only the install counts.
        for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *named]):
            done = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
            said += done.stdout + done.stderr
    if done.returncode != 0:
        sys.stderr.write(said)
        sys.exit(f"toolchain: `{' '.join(command)}` failed, see above")
    for service in services:
        if _fails([*as_root, "update-rc.d", service, "disable"]):
            print(f"the service {service} could not be disabled; it may start at boot", file=sys.stderr)


@contextlib.contextmanager
def _no_service_starts(as_root: list[str]) -> Iterator[None]:
    """Keep packages from starting their services: nginx would take port 80 of this machine."""
    if _POLICY.exists():
        yield
        return
    if _fails([*as_root, "sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {_POLICY} && chmod 755 {_POLICY}"]):
        sys.exit(f"toolchain: {_POLICY} could not be written")
    try:
        yield
    finally:
        subprocess.run([*as_root, "rm", "-f", str(_POLICY)], check=False, stdin=subprocess.DEVNULL)


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode != 0


def main() -> None:
    """Parse the command line and install the named programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["system", *TOOLS])
    parser.add_argument("--check", action="store_true", help="install nothing; exit 1 if a tool is missing")
    parser.add_argument("--only", choices=[package.name for package in SYSTEM_PACKAGES], help="one system package")
    options = parser.parse_args()
    if options.what == "system":
        install_system_packages(one for one in SYSTEM_PACKAGES if options.only in (None, one.name))
    elif options.check:
        sys.exit(TOOLS[options.what].problem(path_with_environment()) is not None)
    else:
        provide(options.what)


if __name__ == "__main__":
    main()
