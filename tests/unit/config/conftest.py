"""Fixture of the tests of settings."""

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path):
    """Writes a configuration file."""

    def write(text: str, name: str = "gateway.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
