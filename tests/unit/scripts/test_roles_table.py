"""Table of roles in the guide of authentication: that of the code, and rewritten when it differs."""

import subprocess
import sys
from pathlib import Path

from liveavatar_gateway.auth.principal import RULES

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs/authentication.md"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/roles_table.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_the_guide_has_a_line_for_each_rpc_of_the_rules():
    checked = run("--check", GUIDE)
    assert checked.returncode == 0, checked.stderr
    for method in RULES:
        service, _, name = method.rpartition("/")
        assert f"| `{service.rpartition('.')[2]}.{name}` |" in GUIDE.read_text()


def test_a_stale_table_fails_the_check_and_is_rewritten(tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text("head\n<!-- roles: mark -->\nold\n<!-- end of roles -->\ntail\n")
    assert run("--check", guide).returncode == 1
    assert run(guide).returncode == 0
    assert guide.read_text().startswith("head\n<!-- roles: mark -->\n| RPC |")
    assert guide.read_text().endswith("<!-- end of roles -->\ntail\n")
    assert run("--check", guide).returncode == 0
