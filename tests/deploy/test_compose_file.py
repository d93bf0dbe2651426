"""docker-compose.yml and what belongs to it: whole, pinned, closed to the outside, without needless rights."""

import re
import shutil
import subprocess

import pytest
import yaml

from testkit.compose import FILE, ROOT, load

_SERVICES = load()["services"]
_OURS = sorted(name for name, service in _SERVICES.items() if "build" in service)
_DIGEST = r"sha256:[0-9a-f]{64}"
_DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
_KNOWN_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "init"),
    *("mem_limit", "network_mode", "networks", "pids_limit", "ports", "profiles", "read_only", "security_opt"),
    *("stop_grace_period", "tmpfs", "user", "volumes"),
}
"""Of the Compose Specification, those that are used here: a misspelt one would be ignored in silence."""


def _stages() -> dict[str, str]:
    parts = re.split(r"^FROM (\S+) AS (\S+)$", _DOCKERFILE, flags=re.MULTILINE)
    return {name: f"FROM {base}\n{body}" for base, name, body in zip(*[iter(parts[1:])] * 3, strict=True)}


def test_the_services_are_those_that_the_documents_name():
    assert set(_SERVICES) == {
        *("emulator", "gateway", "livekit", "prometheus", "grafana"),
        *("load-master", "load-worker"),
    }


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_every_key_is_one_that_compose_knows(name):
    assert set(_SERVICES[name]) <= _KNOWN_KEYS


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_what_listens_has_a_health_check(name):
    check = _SERVICES[name].get("healthcheck")
    if name == "load-worker":
        # It listens nowhere: the master knows who is there.
        assert check is None
    else:
        assert check["test"][0] == "CMD"
        assert {"interval", "timeout", "retries"} <= set(check)


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_nobody_starts_before_those_it_needs_are_healthy(name):
    for other, how in _SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in _SERVICES[other]


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_no_port_is_open_to_other_machines(name):
    for port in _SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


def test_no_port_of_this_machine_is_given_twice():
    taken = [port.rsplit(":", 1)[0] + port[-4:] for one in _SERVICES.values() for port in one.get("ports", [])]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize("name", sorted(set(_SERVICES) - set(_OURS)))
def test_images_of_others_are_pinned_to_a_release(name):
    assert re.fullmatch(rf"[\w./-]+:v?\d+\.\d+\.\d+@{_DIGEST}", _SERVICES[name]["image"])


def test_images_that_ours_are_built_on_are_pinned_to_a_release():
    bases = {base for base in re.findall(r"^FROM (\S+)", _DOCKERFILE, flags=re.MULTILINE) if base not in _stages()}
    assert bases
    for base in bases:
        assert re.fullmatch(rf"[\w./-]+:\d+\.\d+\.\d+-[\w-]+@{_DIGEST}", base)


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_containers_cannot_write_to_themselves_or_gain_rights(name):
    service = _SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_every_container_has_bounds_for_memory_and_processes(name):
    service = _SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*[mg]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 2048


@pytest.mark.parametrize("name", sorted(set(_SERVICES) - set(_OURS)))
def test_images_of_others_do_not_run_as_root(name):
    assert int(_SERVICES[name]["user"].partition(":")[0]) > 0


def test_nobody_can_log_in_to_grafana_and_all_may_only_look():
    environment = _SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not [name for name in environment if "PASSWORD" in name]


def test_the_emulator_which_others_reach_has_a_token_that_the_load_reads_and_nobody_writes():
    emulator = _SERVICES["emulator"]
    file = emulator["environment"]["EMULATOR_CONTROL_TOKEN_FILE"]
    (volume,) = emulator["volumes"]
    name, folder = volume.split(":")
    assert file.startswith(f"{folder}/")
    for other in ("load-master", "load-worker"):
        assert _SERVICES[other]["environment"]["LOAD_EMULATOR_TOKEN_FILE"] == file
        assert f"{name}:{folder}:ro" in _SERVICES[other]["volumes"]
    assert "/_emulator" not in " ".join(emulator["healthcheck"]["test"])
    for stage in ("runtime", "load"):
        assert re.search(rf"install -d -o 10001 -m 0700 (\S+ )*{folder}$", _stages()[stage], flags=re.MULTILINE)


@pytest.mark.parametrize("name", _OURS)
def test_our_images_are_stages_of_the_dockerfile_and_run_as_nobody_special(name):
    build = _SERVICES[name]["build"]
    assert (ROOT / build["dockerfile"]).exists()
    assert re.findall(r"^USER (\S+)$", _stages()[build["target"]], flags=re.MULTILINE) == ["10001"]


def test_the_last_stage_is_the_service_itself():
    assert list(_stages())[-1] == "runtime"


def test_images_that_run_have_no_compiler_or_sources_of_the_build():
    stages = _stages()
    for name in ("runtime", "load"):
        assert stages[name].startswith("FROM base\n")
        assert "pip install" not in stages[name]


def test_all_that_the_dockerfile_copies_exists_and_gets_into_the_build():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", _DOCKERFILE, flags=re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in let_in, f"{source} is kept out by .dockerignore"


def test_the_pages_are_built_in_the_image():
    """A page of the machine that builds would be stale, or missing: it is no file of the repository."""
    stages = _stages()
    assert "npm ci" in stages["page"]
    assert "npm --prefix viewer run build" in stages["page"]
    pages = ["server/liveavatar_emulator/viewer_page", "demo/liveavatar_demo/voice_page"]
    assert re.findall(r'folder: here\("\.\./(.+?)"\)', (ROOT / "viewer/build.mjs").read_text()) == pages
    build = stages["build"].splitlines()
    for page in pages:
        brought = build.index(f"COPY --from=page /src/{page} {page}")
        assert build.index("COPY server server") < brought
        assert build.index("COPY demo demo") < brought
        assert brought < next(number for number, line in enumerate(build) if "--no-deps" in line)
        assert page in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_image_installs_the_four_distributions_from_what_it_copies():
    build = _stages()["build"].replace("\\\n", "")
    (install,) = re.findall(r"^RUN /app/bin/pip install .*--no-deps +(.+)$", build, re.MULTILINE)
    assert install.split() == [
        "./clients/python",
        "./server/liveavatar_gateway",
        "./server/liveavatar_emulator",
        "./demo",
    ]
    for folder in install.split():
        assert (ROOT / folder / "pyproject.toml").exists()
        # The licence lies once in the tree, and links in the distributions lead to it.
        assert (ROOT / folder / "LICENSE").resolve() == ROOT / "LICENSE"


@pytest.mark.parametrize("name", sorted(_SERVICES))
def test_mounted_files_exist_and_named_volumes_are_declared(name):
    declared = yaml.safe_load(FILE.read_text())["volumes"]
    for volume in _SERVICES[name].get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert rest.endswith(":ro")
        else:
            assert source in declared


def test_master_and_workers_take_the_same_order():
    assert _SERVICES["load-master"]["environment"] == _SERVICES["load-worker"]["environment"]
    workers = _SERVICES["load-master"]["command"]
    assert workers[workers.index("--workers") + 1] == str(_SERVICES["load-worker"]["deploy"]["replicas"])


def test_the_room_is_the_one_that_runs_here_and_one_empty_variable_leaves_it_out():
    configuration = yaml.safe_load((ROOT / "deploy/livekit/livekit.yaml").read_text())
    names = ("EMULATOR_LIVEKIT_URL", "EMULATOR_LIVEKIT_KEY", "EMULATOR_LIVEKIT_SECRET")
    ((key, secret),) = configuration["keys"].items()
    environment = _SERVICES["emulator"]["environment"]
    assert [environment[name] for name in names] == [f"ws://127.0.0.1:{configuration['port']}", key, secret]
    without = load({"ROOMS": ""})["services"]["emulator"]["environment"]
    assert [without[name] for name in names] == ["", "", ""]


def test_prometheus_scrapes_the_port_that_the_gateway_opens():
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    port = _SERVICES["gateway"]["environment"]["GATEWAY_METRICS_PORT"]
    assert [one["static_configs"][0]["targets"] for one in scraped] == [[f"gateway:{port}"]]


def _has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30)
    return asked.returncode == 0


@pytest.mark.skipif(
    not _has_compose(),
    reason="`docker compose` is missing; `apt install docker-compose-plugin` or Docker Desktop brings it",
)
@pytest.mark.parametrize("profile", ["", "load"])
def test_compose_itself_takes_the_file(profile):
    command = (
        ["docker", "compose", "--profile", profile, "config", "--quiet"]
        if profile
        else ["docker", "compose", "config", "--quiet"]
    )
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert asked.returncode == 0, asked.stderr


def test_the_file_with_authentication_changes_the_gateway_alone_and_keeps_its_secrets_in_files():
    overlay = yaml.safe_load((ROOT / "deploy/compose.auth.yml").read_text())
    assert set(overlay["services"]) == {"gateway"}
    gateway = overlay["services"]["gateway"]
    assert set(gateway) <= _KNOWN_KEYS | {"secrets"}
    assert gateway["secrets"] == list(overlay["secrets"])
    settings = gateway["environment"]
    assert set(settings) - {"GATEWAY_API_KEY_FILE", "GATEWAY_AUTH_FILE"} <= set(
        _SERVICES["gateway"]["environment"]
    )
    assert settings["LIVEAVATAR_API_KEY"] == ""
    assert settings["GATEWAY_ANONYMOUS"] == "0"
    assert settings["GATEWAY_API_KEY_FILE"] == f"/run/secrets/{gateway['secrets'][0]}"
    folder, target, _ = gateway["volumes"][0].split(":")
    assert settings["GATEWAY_AUTH_FILE"].startswith(f"{target}/")
    assert f"{folder.removeprefix('./')}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_key_of_the_registry_is_on_another_volume_than_the_registry():
    runtime = _stages()["runtime"]
    folders = {
        name: re.findall(rf"GATEWAY_REGISTRY_{name}=(/\S+)/[^/\s]+", runtime)[0] for name in ("FILE", "KEY_FILE")
    }
    volumes = dict(reversed(volume.split(":")) for volume in _SERVICES["gateway"]["volumes"])
    assert volumes[folders["FILE"]] != volumes[folders["KEY_FILE"]]
    for folder in folders.values():
        assert f'"{folder}"' in runtime.partition("VOLUME ")[2]
        assert folder in re.findall(r"install -d -o 10001 -m 0700 (.+)", runtime)[0].split()
