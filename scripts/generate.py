"""Generate stubs in build/generated with `buf generate`, after installing the pinned plugins.

Python's plugins are in .venv/stubs. Go's come from the Go module proxy, TypeScript's from npm, Java's from Maven
Central.

Usage: generate.py [--only LANGUAGE,...] [--install-only]
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).resolve().parent.parent
_PLUGINS: Final = _ROOT / "build/generators"
_NPM: Final = _ROOT / "scripts/generators"
_TEMPLATE: Final = _ROOT / "buf.gen.yaml"

_GO: Final = (
    "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
)
_MAVEN_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA: Final = {
    "protoc": ("com.google.protobuf", "protoc", "4.36.1"),
    # Newest release with a Linux program on Maven Central.
    "protoc-gen-grpc-java": ("io.grpc", "protoc-gen-grpc-java", "1.83.0"),
}


def _run(*command: str | Path, environment: Mapping[str, str] = os.environ) -> None:
    program = str(command[0])
    if shutil.which(program, path=environment.get("PATH")) is None:
        sys.exit(f"generate: `{program}` is needed, but not on PATH")
    done = subprocess.run([str(part) for part in command], cwd=_ROOT, env=dict(environment), check=False)
    if done.returncode != 0:
        sys.exit(f"generate: `{' '.join(map(str, command))}` failed, see above")


def _once(name: str, pins: object, install: Callable[[], None]) -> None:
    """Install unless exactly these pins are installed; the record of the pins is written last."""
    record = _PLUGINS / f"{name}.installed"
    wanted = json.dumps(pins, sort_keys=True)
    if record.exists() and record.read_text() == wanted:
        return
    _PLUGINS.mkdir(parents=True, exist_ok=True)
    print(f"installing the plugins for {name}", file=sys.stderr)
    install()
    record.write_text(wanted)


def install_go() -> None:
    """Build Go's two plugins from their modules."""
    for module in _GO:
        _run("go", "install", module, environment={**os.environ, "GOBIN": str(_PLUGINS)})


def install_typescript() -> None:
    """Install ts-proto at its locked version."""
    _run("npm", "ci", "--prefix", _NPM, "--loglevel", "error")


def install_java() -> None:
    """Copy protoc and gRPC's plugin from Maven Central."""
    system = {"Linux": "linux", "Darwin": "osx"}.get(platform.system(), platform.system().lower())
    machine = {"x86_64": "x86_64", "arm64": "aarch_64", "aarch64": "aarch_64"}.get(platform.machine(), "unknown")
    for name, (group, artifact, version) in _JAVA.items():
        coordinates = f"{group}:{artifact}:{version}:exe:{system}-{machine}"
        _run("mvn", "-q", "-B", _MAVEN_PLUGIN, f"-Dartifact={coordinates}", f"-DoutputDirectory={_PLUGINS}")
        copied = _PLUGINS / f"{artifact}-{version}-{system}-{machine}.exe"
        copied.chmod(0o755)
        copied.replace(_PLUGINS / name)


def install(language: str) -> None:
    """Install the plugins of one language."""
    if language == "go":
        _once(language, _GO, install_go)
    elif language == "typescript":
        _once(language, (_NPM / "package-lock.json").read_text(), install_typescript)
    elif language == "java":
        _once(language, _JAVA, install_java)


def language_of(plugin: Mapping[str, Any]) -> str:
    """Return the language that a plugin of the template writes; its output folder has the same name."""
    return Path(plugin["out"]).name


def main() -> None:
    """Parse the command line, install missing plugins, generate stubs."""
    template = yaml.safe_load(_TEMPLATE.read_text(encoding="utf-8"))
    languages = list(dict.fromkeys(map(language_of, template["plugins"])))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(languages), help="default: %(default)s")
    parser.add_argument("--install-only", action="store_true", help="install the plugins and stop")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(languages):
        parser.error(f"unknown language: {', '.join(sorted(unknown))}; known: {', '.join(languages)}")
    for language in chosen:
        install(language)
    if not options.install_only:
        template["plugins"] = [plugin for plugin in template["plugins"] if language_of(plugin) in chosen]
        _run(Path(sys.executable).with_name("buf"), "generate", "--template", json.dumps(template))
        print(_ROOT / "build/generated")


if __name__ == "__main__":
    main()
