"""nginx, HAProxy and Envoy with the settings that `docs/proxies.md` recommends."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from liveavatar_demo.process import Process
from testkit.checkout import ROOT

_FILES = {
    "nginx": ROOT / "deploy/proxies/nginx.conf",
    "haproxy": ROOT / "deploy/proxies/haproxy.cfg",
    "envoy": ROOT / "deploy/envoy/envoy.yaml",
}
_START_TIMEOUT_S = 20.0
_PATH = os.pathsep.join(
    (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")
)
_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{server}
}}
"""


@contextlib.contextmanager
def proxy(kind: str, upstream: str, changes: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `nginx`, `haproxy` or `envoy` in front of `upstream` and yield its address.

    Args:
        kind: Name of the program.
        upstream: Address of the gateway.
        changes: Lines or values of the recommended settings, and their replacements.
    """
    program = shutil.which(kind, path=_PATH)
    if program is None:
        raise RuntimeError(f"no {kind} on this machine; on Debian and Ubuntu: apt install nginx-light haproxy")
    address = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        command = _command(kind, program, _settings(kind, address, upstream, changes or {}), folder)
        with Process(kind, command, folder=Path(folder), environment=os.environ, ready_file=False) as process:
            _wait_for(address, process, Path(folder))
            yield address


def _settings(kind: str, address: str, upstream: str, changes: Mapping[str, str]) -> str:
    text = _FILES[kind].read_text(encoding="utf-8")
    port, upstream_port = address.rpartition(":")[2], upstream.rpartition(":")[2]
    places = {
        "nginx": {"listen 50050": f"listen {address}", "grpc://127.0.0.1:50051": f"grpc://{upstream}"},
        "haproxy": {"bind 127.0.0.1:50050": f"bind {address}", "one 127.0.0.1:50051": f"one {upstream}"},
        "envoy": {
            "port_value: 9901": "port_value: 0",
            "port_value: 50050": f"port_value: {port}",
            "port_value: 50051": f"port_value: {upstream_port}",
        },
    }[kind]
    for old, new in {**places, **changes}.items():
        assert old in text, f"{_FILES[kind].name} does not say {old!r}"
        text = text.replace(old, new)
    return text


def _command(kind: str, program: str, settings: str, folder: str) -> list[str]:
    path = Path(folder, "settings")
    match kind:
        case "nginx":
            path.write_text(_NGINX.format(folder=folder, server=settings), encoding="utf-8")
            return [program, "-c", str(path), "-p", folder]
        case "haproxy":
            path.write_text(settings, encoding="utf-8")
            return [program, "-db", "-f", str(path)]
        case _:
            Path(f"{path}.yaml").write_text(settings, encoding="utf-8")
            return [program, "-c", f"{path}.yaml", "--concurrency", "1", "--use-dynamic-base-id"]


def _wait_for(address: str, process: Process, folder: Path) -> None:
    host, _, port = address.rpartition(":")
    give_up_s = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if process.exit_code is not None or time.monotonic() > give_up_s:
            logs = [path.read_text(errors="replace") for path in folder.glob("*.log")]
            raise RuntimeError("the proxy did not start:\n" + "\n".join(logs))
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
