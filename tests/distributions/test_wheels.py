"""The four wheels, each alone in an empty environment, and with the oldest releases that it asks for."""

import contextlib
import email
import json
import re
import subprocess
import sys
import wave
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from liveavatar_demo.process import clean_environment
from liveavatar_gateway import __version__
from testkit.processes import server as run_server

pytestmark = [pytest.mark.wheels, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
SOURCES = {
    "liveavatar-gateway-client": ROOT / "clients/python",
    "liveavatar-gateway": ROOT / "server/liveavatar_gateway",
    "liveavatar-emulator": ROOT / "server/liveavatar_emulator",
    "liveavatar-gateway-demo": ROOT / "demo",
}
PACKAGES = {
    "liveavatar-gateway-client": "liveavatar",
    "liveavatar-gateway": "liveavatar_gateway",
    "liveavatar-emulator": "liveavatar_emulator",
    "liveavatar-gateway-demo": "liveavatar_demo",
}
CLIENT = "liveavatar-gateway-client"
API_KEY = "emulator-key"
LOCKED = ("--constraint", str(ROOT / "requirements/dev.txt"))
OLDEST = ("--resolution", "lowest-direct")


def run(*command: Any, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"env": clean_environment(), "timeout": 200, **options}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


class Wheel:
    """A built distribution."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as file:
            self.names = file.namelist()
            (metadata,) = [name for name in self.names if name.endswith(".dist-info/METADATA")]
            self.metadata = email.message_from_bytes(file.read(metadata))

    @property
    def requirements(self) -> list[str]:
        """Requirements on other people's distributions, without extras."""
        asked = self.metadata.get_all("Requires-Dist") or []
        return [each for each in asked if "extra ==" not in each and not each.startswith("liveavatar-")]

    def extra(self, name: str) -> list[str]:
        """Requirements of an extra on other people's distributions."""
        asked = self.metadata.get_all("Requires-Dist") or []
        found = [each.partition(";")[0].strip() for each in asked if f"extra == '{name}'" in each]
        return [each for each in found if not each.startswith("liveavatar-")]


class Environment:
    """A virtual environment that holds nothing but what is installed into it here."""

    def __init__(self, folder: Path) -> None:
        run(TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, folder)
        self.programs = folder / "bin"
        self.python = self.programs / "python"

    def install(self, *arguments: Any) -> None:
        run(TOOLS / "uv", "pip", "install", "--quiet", "--python", self.python, *arguments)

    def installed(self) -> dict[str, str]:
        listed = run(TOOLS / "uv", "pip", "list", "--quiet", "--format", "json", "--python", self.python)
        return {each["name"]: each["version"] for each in json.loads(listed.stdout)}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Wheel]:
    folder = tmp_path_factory.mktemp("wheels")
    built = {}
    for name, source in SOURCES.items():
        run(TOOLS / "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
        built[name] = Wheel(folder / f"{name.replace('-', '_')}-{__version__}-py3-none-any.whl")
    return built


@pytest.fixture(scope="module")
def make(wheels: dict[str, Wheel], tmp_path_factory: pytest.TempPathFactory):
    """Make an environment with what is named, ours from the wheels and the rest as `how` says."""

    def make(*names: str, how: tuple[str, ...] = LOCKED) -> Environment:
        environment = Environment(tmp_path_factory.mktemp("environment") / "venv")
        ours = ("--find-links", wheels[CLIENT].path.parent)
        if how is OLDEST:
            # What counts as direct is what is named, so the wheels' own requirements are named.
            asked = [each for name in names for each in wheels[name].requirements]
            environment.install(*OLDEST, *asked)
            environment.install("--no-deps", *(wheels[name].path for name in names))
        else:
            environment.install(*how, *ours, *names)
        return environment

    return make


@pytest.fixture(scope="module")
def client(make) -> Environment:
    return make(CLIENT)


@pytest.fixture(scope="module")
def server(make) -> Environment:
    return make("liveavatar-gateway")


@pytest.fixture(scope="module")
def oldest_client(make) -> Environment:
    return make(CLIENT, how=OLDEST)


@contextlib.contextmanager
def serving(program: Path, environment: dict[str, str], folder: Path) -> Iterator[Mapping[str, Any]]:
    """Run the `serve` of an installed command until the block ends."""
    with run_server(program.name, environment, folder, program=program) as process:
        yield process.info


@contextlib.contextmanager
def stack(emulator: Environment, gateway: Environment, folder: Path) -> Iterator[tuple[str, str]]:
    """Addresses of a gateway and of the emulator that it talks to, each from its environment."""
    knobs = {"EMULATOR_READY_DELAY_MS": "50"}
    with serving(emulator.programs / "liveavatar-emulator", knobs, folder) as emulated:
        settings = {
            "LIVEAVATAR_API_URL": emulated["url"],
            "LIVEAVATAR_API_KEY": API_KEY,
            "GATEWAY_REGISTRY_FILE": str(folder / "registry.db"),
        }
        with serving(gateway.programs / "liveavatar-gateway", settings, folder) as ready:
            yield ready["address"], emulated["url"]


@pytest.fixture(scope="module")
def running(make, server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with stack(make("liveavatar-emulator"), server, tmp_path_factory.mktemp("running")) as addresses:
        yield addresses


def hello(environment: Environment, address: str) -> dict[str, Any]:
    # -P keeps the script's folder off the path; the tree is not on it either.
    script = Path(__file__).with_name("hello.py")
    return json.loads(run(environment.python, "-P", "-W", "error", script, address, cwd="/").stdout)


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_holds_its_own_package_and_nothing_else(wheels, name):
    """Copies of other people's modules, google.rpc above all, would shadow theirs."""
    top = {each.split("/")[0] for each in wheels[name].names}
    assert top == {PACKAGES[name], f"{name.replace('-', '_')}-{__version__}.dist-info"}
    assert any(each.endswith(".dist-info/licenses/LICENSE") for each in wheels[name].names)
    assert not [each for each in wheels[name].names if each.endswith(("pyproject.toml", ".pyc"))]


def test_the_client_brings_grpc_and_protobuf_alone(client):
    assert set(client.installed()) - {"typing-extensions"} == {
        *(CLIENT, "grpcio", "protobuf", "googleapis-common-protos"),
    }


def test_without_its_extra_the_client_says_how_to_get_it_and_with_it_hears_voice(make, client):
    probe = "from liveavatar.gateway.voice import silero; print(silero()().probability(bytes(1024)))"
    done = run(client.python, "-P", "-c", probe, cwd="/", check=False)
    assert "ExtraMissing" in done.stderr
    assert "pip install 'liveavatar-gateway-client[turns]'" in done.stderr
    environment = make(f"{CLIENT}[turns]")
    assert float(run(environment.python, "-P", "-W", "error", "-c", probe, cwd="/").stdout) < 0.5


def test_the_client_speaks_from_an_environment_of_its_own(client, running):
    told = hello(client, running[0])
    assert told["spoken"] == ["PLAYED", "PLAYED"]
    assert told["refused"] == "SESSION_NOT_FOUND"


def test_the_server_comes_with_a_command_that_speaks(server, running, tmp_path):
    command = server.programs / "liveavatar-gateway"
    assert "Commands" in run(command, "--help").stdout
    assert __version__ in run(command, "--version").stdout
    with wave.open(str(tmp_path / "word.wav"), "wb") as word:
        word.setparams((1, 2, 16_000, 0, "NONE", ""))
        word.writeframes(bytes(16_000))
    said = run(command, "say", tmp_path / "word.wav", "--sandbox", "--address", running[0], "--json", cwd="/")
    assert json.loads(said.stdout)["outcome"] == "played"


def test_the_emulator_comes_with_its_page(running):
    page = httpx.get(f"{running[1]}/viewer", trust_env=False)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


class TestDemo:
    def test_without_its_extra_it_says_how_to_get_it(self, server):
        done = run(server.programs / "liveavatar-gateway", "demo", check=False)
        assert done.returncode != 0
        assert "pip install 'liveavatar-gateway[demo]'" in done.stderr
        assert "Traceback" not in done.stderr

    def test_the_demo_is_an_extra_of_the_server(self, make, tmp_path):
        environment = make("liveavatar-gateway[demo]")
        command = environment.programs / "liveavatar-gateway"
        bare = {**clean_environment(), "XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}
        done = run(command, "demo", "--json", "--ready-delay-ms", "0", "--out", tmp_path / "avatar.wav", env=bare)
        assert json.loads(done.stdout)["ok"] is True


class TestOldest:
    """The lower bounds are true: with the oldest releases that they allow, everything works."""

    def test_the_client_gets_the_releases_that_its_bounds_name(self, oldest_client, wheels):
        installed = oldest_client.installed()
        bounds = dict(re.match(r"([\w-]+).*>=([\d.]+)", each).groups() for each in wheels[CLIENT].requirements)
        assert {name: installed[name].split(".")[: bound.count(".") + 1] for name, bound in bounds.items()} == {
            name: bound.split(".") for name, bound in bounds.items()
        }

    def test_the_client_speaks(self, oldest_client, running):
        told = hello(oldest_client, running[0])
        assert told["spoken"] == ["PLAYED", "PLAYED"]
        assert told["refused"] == "SESSION_NOT_FOUND"

    def test_the_clients_own_tests_pass(self, oldest_client, wheels):
        oldest_client.install(*OLDEST, *wheels[CLIENT].extra("turns"))
        # cryptography makes the certificates of the tests.
        tools = ("pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "cryptography")
        oldest_client.install(*LOCKED, *tools)
        # Some compare with the gateway's own rules, which need nothing installed.
        environment = {**clean_environment(), "PYTHONPATH": str(ROOT / "server"), "CI": "true"}
        done = run(
            *(oldest_client.python, "-m", "pytest", "--quiet", "--noconftest", "-p", "no:cacheprovider"),
            "tests/unit/client",
            cwd=ROOT,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        assert re.search(r"\d{2,} passed", done.stdout)

    def test_server_and_emulator_serve(self, make, oldest_client, tmp_path):
        server = make(CLIENT, "liveavatar-gateway", how=OLDEST)
        emulator = make("liveavatar-emulator", how=OLDEST)
        with stack(emulator, server, tmp_path) as (address, _):
            assert hello(oldest_client, address)["spoken"] == ["PLAYED", "PLAYED"]
