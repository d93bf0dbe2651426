"""Command line and pins of the stub generation."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/generate.py"


@pytest.fixture
def generate(tmp_path, monkeypatch):
    found = importlib.util.spec_from_file_location("generate", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "_PLUGINS", tmp_path)
    return module


def test_plugins_are_installed_once_per_pin(generate):
    installed = []
    for pins in ("v1", "v1", "v2"):
        generate._once("go", pins, lambda: installed.append(1))
    assert len(installed) == 2


def test_a_language_is_named_after_its_output_folder(generate):
    assert generate.language_of({"out": "build/generated/go"}) == "go"


def test_an_unknown_language_is_refused(generate, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["generate.py", "--only", "cobol"])
    with pytest.raises(SystemExit):
        generate.main()
    assert "unknown language: cobol; known: " in capsys.readouterr().err
