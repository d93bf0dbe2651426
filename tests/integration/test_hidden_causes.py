"""Causes of errors: for the log alone. Callers get reason, status and an incident."""

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from liveavatar.gateway.v1 import session_service_pb2 as sessions
from testkit import processes
from testkit.caller import Refusal, refused
from testkit.caller import caller as connect

PAGE = "<html><title>ERR</title>squid/5.7 at proxy.corp.example \x1b[2J /var/lib/squid</html>"
_INCIDENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def emulator():
    with processes.emulator() as found:
        yield found


def sent(refusal: Refusal) -> str:
    """All that a caller reads of a refusal."""
    return f"{refusal.message} {refusal.details}"


def require_incident(refusal: Refusal, log: str) -> str:
    """Return the line of the log to which a refusal leads."""
    incident = refusal.metadata["incident"]
    assert _INCIDENT.fullmatch(incident)
    assert incident in refusal.message
    (line,) = [line for line in log.splitlines() if incident in line]
    return line


@pytest.mark.parametrize("status", [200, 302, 401, 404, 407, 429, 502, 503])
async def test_a_page_of_a_proxy_is_for_the_log_alone(emulator, status):
    with processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            emulator.fault("token", status=status, body=PAGE, times=20)
            refusal = await refused(caller.create())
            emulator.clear_faults()
        assert refusal.reason.startswith("UPSTREAM_")
        assert refusal.metadata["http_status"] == str(status)
        for part in ("squid", "proxy.corp", "<html>", "/var/lib"):
            assert part not in sent(refusal)
        assert gateway.process.logged(refusal.metadata["incident"])
        line = require_incident(refusal, gateway.process.log)
    assert "squid/5.7 at proxy.corp.example" in line
    assert "\x1b" not in line


async def test_an_upstream_that_is_not_there_names_no_proxy(emulator):
    proxy = "http://127.0.0.1:9"
    variables = {"HTTP_PROXY": proxy, "http_proxy": proxy, "NO_PROXY": "", "no_proxy": ""}
    with processes.gateway("http://liveavatar.example", variables=variables) as gateway:
        async with connect(gateway.address) as caller:
            refusal = await refused(caller.create())
        assert refusal.reason == "UPSTREAM_UNREACHABLE"
        assert "127.0.0.1:9" not in sent(refusal)
        assert gateway.process.logged(refusal.metadata["incident"])
        assert "127.0.0.1:9" in require_incident(refusal, gateway.process.log)


def remove(path: Path) -> None:
    path.rename(path.with_name("moved-away"))


def drop_tables(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as other, other:
        for (table,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if not table.startswith("sqlite_"):
                other.execute(f"DROP TABLE {table}")


@pytest.mark.parametrize("spoil", [remove, drop_tables])
async def test_a_broken_registry_names_no_file(emulator, tmp_path, spoil):
    path = tmp_path / "secret-folder" / "registry.db"
    path.parent.mkdir()
    with processes.gateway(emulator.url, registry_file=path) as gateway:
        async with connect(gateway.address) as caller:
            spoil(path)
            request = sessions.GetSessionRequest(session_id="00000000-0000-4000-8000-000000000000")
            refusals = [
                await refused(caller.create()),
                await refused(caller.sessions.GetSession(request, timeout=10)),
                await refused(caller.resume("hdl_not_the_handle")),
            ]
        assert refusals[0].reason == "REGISTRY_UNAVAILABLE"
        for refusal in refusals:
            for part in ("secret-folder", "registry.db", "SQL", "database", "table", "disk"):
                assert part not in sent(refusal)
        assert gateway.process.logged(refusals[0].metadata["incident"])
        assert "secret-folder" in require_incident(refusals[0], gateway.process.log)
