"""Logs say what went wrong, and none of the values that it went wrong with."""

import subprocess
import sys

import pytest

FAILS = """
import structlog
from liveavatar_gateway import logs

def call(headers):
    raise AttributeError("of a library")

logs.configure("info", {form!r})
try:
    call({{"X-API-KEY": "a-real-secret"}})
except AttributeError:
    structlog.get_logger().exception("session.crashed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_where_and_no_values(form):
    done = subprocess.run(
        [sys.executable, "-c", FAILS.format(form=form)], capture_output=True, text=True, check=True, timeout=30
    )
    assert "session.crashed" in done.stderr
    assert "in call" in done.stderr
    assert "AttributeError: of a library" in done.stderr
    assert "a-real-secret" not in done.stderr
