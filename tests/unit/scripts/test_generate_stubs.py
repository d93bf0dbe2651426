"""Comparison of generated and committed stubs."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/generate_stubs.py"


def differences(fresh: Path, committed: Path) -> list[str]:
    found = importlib.util.spec_from_file_location("generate_stubs", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.differences(fresh, committed)


def test_missing_obsolete_and_changed_stubs_are_named(tmp_path):
    fresh, committed = tmp_path / "fresh", tmp_path / "committed"
    for folder, texts in (
        (fresh, {"a": "1", "b": "1", "same": "1"}),
        (committed, {"b": "2", "c": "1", "same": "1"}),
    ):
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text)
    assert differences(fresh, committed) == ["a", "b", "c"]
    assert differences(fresh, fresh) == []
