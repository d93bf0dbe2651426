"""`pool`: its commands, and help that shows how to begin."""

from click.testing import CliRunner

from liveavatar_gateway.cli.pool import pool


def test_help_shows_how_to_begin():
    result = CliRunner().invoke(pool, ["--help"])
    assert "pool trace morning > morning.csv" in result.stdout
    assert {"simulate", "trace"} <= set(result.stdout.split())
