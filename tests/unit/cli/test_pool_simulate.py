"""`pool simulate` and `pool trace`: tables, plots, and errors that name the option and the line."""

import json
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from liveavatar_gateway.cli import pool_simulate
from liveavatar_gateway.cli.pool import pool
from testkit.caller import AVATAR

TRACE = "time,tenant,duration,max_wait\n0,acme,60,\n1,acme,60,\n2,zoo,60,10\n"


@pytest.fixture
def day(tmp_path):
    path = tmp_path / "day.csv"
    path.write_text(TRACE)
    return path


def run(*arguments, stdin=None):
    return CliRunner().invoke(pool, [str(argument) for argument in arguments], input=stdin)


def fields(*arguments):
    result = run("simulate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_shows_each_tenant_and_all(day):
    result = run("simulate", day, "--account", 1, "--opening", 2, "--wait", 100)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:5] == ["acme", "2", "2", "0", "0"]
    assert lines[2][:5] == ["zoo", "1", "0", "0", "1"]
    assert lines[3][0] == "all"
    assert "of 1 slots used" in result.stdout
    assert "warm" not in result.stdout.split("\n", 1)[1]


def test_json_has_everything(day):
    found = fields(day, "--account", "main=1", "--account", "spare=1", "--opening", "2..4", "--release", "0.5")
    assert found["slots"] == 2
    assert set(found["tenants"]) == {"acme", "zoo"}
    assert found["without_warm"] is None
    assert found["timeline"]
    assert found["tenants"]["zoo"]["refused"] == {"deadline": 1, "queue_full": 0}


def test_reads_standard_input_and_measured_durations(tmp_path):
    measured = tmp_path / "opening.txt"
    measured.write_text("3.5\n3.5\n")
    result = run("simulate", "-", "--account", 5, "--opening", f"@{measured}", "--json", stdin=TRACE)
    assert json.loads(result.stdout)["total"]["open_s"]["p50"] == 3.5


def test_compares_with_no_warm_sessions_and_draws_both(day, tmp_path):
    plot = tmp_path / "day.svg"
    day.write_text("time,tenant,duration\n07:30,acme,60\n07:31,acme,60\n")
    desk = "desk,min=1,max=2,hours=07:00-19:00,mode=learnt,max_credits_per_hour=70,tenants=acme+zoo,accounts=main"
    result = run("simulate", day, "--account", 5, "--profile", desk, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "without" in result.stdout
    assert "more credits" in result.stdout
    svg = ET.parse(plot).getroot()
    assert "script" not in "".join(svg.itertext())
    assert "7:31" in "".join(svg.itertext())


def test_hours_of_a_profile_hold_from_the_beginning_that_is_named(day):
    night = "desk,min=1,hours=22:00-24:00"
    assert fields(day, "--account", 5, "--profile", night)["warm"]["desk"]["started"] == 0
    assert fields(day, "--account", 5, "--profile", night, "--begins-at", "22:30")["warm"]["desk"]["started"] >= 1


def test_weights_ceilings_and_floors_count(day):
    found = fields(day, "--account", 5, "--tenant", "acme,weight=3,ceiling=1,reserved=1,max_waiting=0")
    assert found["tenants"]["acme"]["refused"]["queue_full"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--account", "x"], "'x' is not a whole number between 1 and 10000"),
        (["--account", "0"], "'0' is not a whole number"),
        (["--account", "a/b=1"], "is no name"),
        (["--account", "1", "--account", "2"], "--account names 'main' twice"),
        (["--tenant", "acme,weight=nan"], "weight: 'nan' is not a number between 0.001 and 1000"),
        (["--tenant", "acme,weight=1,weight=2"], "'weight' is given twice"),
        (["--tenant", "acme", "--tenant", "acme"], "--tenant names 'acme' twice"),
        (["--profile", "desk,speed=1"], "'speed=1' is none of min=..., max=..."),
        (["--profile", "desk,min=3,max=1"], "min=3 is above max=1"),
        (["--profile", "desk,mode=clever"], "mode: 'clever' is neither"),
        (["--profile", "desk,hours=7-8"], "hours: '7' is no time of day"),
        (["--profile", "desk,hours=07:00"], "hours: '07:00' is no part of a day"),
        (["--profile", "desk,hours=07:00-24:01"], "'24:01' is no time of day"),
        (["--profile", "desk,accounts=spare"], "names no account of --account: 'spare'"),
        (["--opening", "soon"], "'soon' is neither seconds"),
        (["--opening", "@/nowhere"], "cannot read /nowhere"),
        (["--wait", "nan"], "'nan' is not a number between 0 and 86400"),
        (["--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_refuses_options_with_the_allowed_values(day, arguments, words):
    accounts = [] if "--account" in arguments else ["--account", "5"]
    result = run("simulate", day, *accounts, *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_refuses_a_trace_with_its_line(day):
    day.write_text("time,tenant,duration\n1,acme,never\n")
    result = run("simulate", day, "--account", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "line 2, duration: 'never' is neither seconds" in result.stderr


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "not text in UTF-8"), (b"x" * 2000, "larger than")])
def test_refuses_other_files(day, monkeypatch, content, words):
    monkeypatch.setattr(pool_simulate, "MAX_BYTES", 1000)
    day.write_bytes(content)
    result = run("simulate", day, "--account", 1)
    assert result.exit_code == 2
    assert words in result.stderr


def test_needs_accounts_in_one_way(day, tmp_path):
    assert "name the accounts: either --account" in run("simulate", day).stderr
    both = run("simulate", day, "--account", 1, "--pool-file", tmp_path / "pool.toml")
    assert "name the accounts: either --account" in both.stderr


def test_takes_accounts_and_profiles_from_the_file_of_the_gateway(day, tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text(
        f"""
[accounts.dear]
api_key_file = "/nowhere/dear.key"
max_sessions = 3
cost = 2.0

[accounts.cheap]
api_key_file = "/nowhere/cheap.key"
max_sessions = 1
tenants = ["acme"]

[profiles.desk]
avatar_id = "{AVATAR}"
min = 1
tenants = ["acme"]
"""
    )
    found = fields(day, "--pool-file", path)
    assert found["slots"] == 4
    assert found["warm"]["desk"]["started"] >= 1
    assert found["total"]["served"] == 3
    path.write_text("[accounts]")
    assert run("simulate", day, "--pool-file", path).exit_code == 2
    assert "cannot read" in run("simulate", day, "--pool-file", tmp_path / "missing.toml").stderr


def test_reports_a_plot_that_cannot_be_written(day, tmp_path):
    result = run("simulate", day, "--account", 1, "--plot", tmp_path / "missing" / "day.svg")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_an_example_trace_can_be_simulated(tmp_path):
    trace = run("trace", "lessons", "--seed", 3)
    assert trace.exit_code == 0
    result = run("simulate", "-", "--account", 25, stdin=trace.stdout)
    assert result.exit_code == 0, result.output
    assert run("trace", "lessons", "--seed", 3).stdout == trace.stdout
