"""Table of settings in a guide: rewritten, compared, refused without markers."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/settings_table.py"
MARKED = "head\n<!-- settings: written by `make settings-table` -->\nold\n<!-- end of settings -->\ntail\n"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def test_a_stale_table_fails_the_check_and_is_rewritten(tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text(MARKED)
    stale = run("--check", guide)
    assert stale.returncode == 1
    assert "is stale, run `make settings-table`" in stale.stderr
    assert guide.read_text() == MARKED
    assert run(guide).returncode == 0
    text = guide.read_text()
    assert text.startswith("head\n")
    assert text.endswith("<!-- end of settings -->\ntail\n")
    assert "| `GATEWAY_" in text
    assert run("--check", guide).returncode == 0


def test_a_file_without_markers_is_refused(tmp_path):
    guide = tmp_path / "guide.md"
    guide.write_text("no table\n")
    assert "has no `<!-- settings" in run(guide).stderr
