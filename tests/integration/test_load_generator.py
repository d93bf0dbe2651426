"""The load generator against a real gateway and emulator: it measures, checks every byte, and always ends."""

import csv
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import httpx
import pytest

from load.direct import DirectSession
from load.figures import Recorder
from load.recorder import LoadRecorder
from load.run import Plan, perform
from load.run_config import Began, Report, RunConfig
from load.session import Utterance
from load.speech import Voice, real_time
from load.upstream_check import UpstreamCheck
from stage.tenants import NOISY, QUIET
from testkit import processes
from testkit.locust import Locust, free_port, locust
from testkit.locust import processes as several

pytestmark = pytest.mark.timeout(240)


LOCUSTS_OWN = "in stats_writer\n"
"""Frame of a race in Locust: its writer of CSV files goes on for a moment after the files were closed."""


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[processes.Emulator, processes.Gateway]]:
    with (
        processes.emulator(concurrency=1000, credits=1_000_000) as emulator,
        processes.gateway(emulator.url, max_sessions=1000, ack_interval_s=1.0) as gateway,
    ):
        yield emulator, gateway


@pytest.fixture
def config(stage: tuple[processes.Emulator, processes.Gateway], tmp_path: Path) -> RunConfig:
    emulator, gateway = stage
    return RunConfig(
        target=gateway.address,
        emulator=emulator.url,
        api_key=processes.API_KEY,
        one_clock=True,
        seconds=6.0,
        rate=2.5,
        report=str(tmp_path / "measured.json"),
    )


def _count(report: Report, counter: str) -> int:
    return sum(number for (_, name), number in report.measured.counters.items() if name == counter)


def _assert_whole(report: Report) -> None:
    assert report.measured.integrity_failures == []
    assert report.measured.errors == {}
    assert _count(report, "arrivals missed") == 0
    assert _count(report, "utterances checked") == _count(report, "utterances") > 0


@pytest.mark.long
def test_two_processes_measure_as_one_and_every_byte_is_checked(stage, config: RunConfig, tmp_path: Path):
    with locust(config, tmp_path, *several(2), "--csv", str(tmp_path / "stats"), "--html",
                str(tmp_path / "page.html")) as run:  # fmt: skip
        assert run.wait() == 0, run.log
        report = run.report()
    assert not [fault for fault in run.log.split("Traceback")[1:] if LOCUSTS_OWN not in fault]
    assert report.workers == 2
    _assert_whole(report)
    from load.behaviours import expected_s
    from load.scenarios import scenario_of

    assert _count(report, "arrivals") == len(scenario_of(config, expected_s).arrivals(config.seed))
    for system in ("gateway", "direct"):
        for figure in ("session open", "started", "first packet upstream", "session lifetime", "chunk lateness"):
            assert report.measured.series[system, figure].count > 0, (system, figure)
    assert report.measured.series["gateway", "interrupt to silence"].count > 0
    with (tmp_path / "stats_stats.csv").open() as file:
        rows = {(row["Type"], row["Name"]) for row in csv.DictReader(file)}
    assert {("gateway", "session open"), ("direct", "started"), ("gateway", "stream lifetime")} <= rows
    assert "first packet upstream" in (tmp_path / "page.html").read_text()
    stage[0].wait_active(0)


@pytest.mark.long
def test_a_master_and_workers_of_their_own_measure_as_one(stage, config: RunConfig, tmp_path: Path):
    port = str(free_port())
    folders = [tmp_path / name for name in ("master", "one", "two")]
    for folder in folders:
        folder.mkdir()
    where = ("--master-host", "127.0.0.1", "--master-port", port)
    with (
        locust(config, folders[0], "--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1",
               "--master-bind-port", port) as master,
        locust(config, folders[1], "--worker", *where) as one,
        locust(config, folders[2], "--worker", *where) as two,
    ):  # fmt: skip
        assert master.wait() == 0, master.log
        assert one.wait(30) == 0, one.log
        assert two.wait(30) == 0, two.log
        report = master.report()
    assert report.workers == 2
    _assert_whole(report)


@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_stopped_early_it_ends_every_session_and_still_reports(stage, config: RunConfig, tmp_path: Path, how: str):
    config = replace(config, seconds=600.0)
    with locust(config, tmp_path, *several(2)) as run:
        _wait_until_busy(stage[0], run, sessions=8)
        began = Began.load(config)
        assert began is not None
        assert began.seconds == 600.0
        getattr(run, how)()
        assert run.wait(60) == 0, run.log
        report = run.report()
    assert "is lost" not in run.log
    assert report.workers == 2
    stage[0].wait_active(0, timeout_s=2.0)
    assert report.measured.errors == {}
    assert report.measured.integrity_failures == []
    assert report.duration_s < 100


def test_the_web_page_starts_shows_and_stops_runs(stage, config: RunConfig, tmp_path: Path):
    """Two runs of one process: the second begins anew, and has a report of its own."""
    config = replace(config, seconds=600.0, scenario="churn")
    port = free_port()
    with locust(config, tmp_path, web_port=port) as run, httpx.Client(base_url=f"http://127.0.0.1:{port}") as page:
        _wait_until(lambda: _answers(page), run)
        for _ in range(2):
            page.post("/swarm", data={}).raise_for_status()
            _wait_until(Began.path(config).exists, run)
            _wait_until_busy(stage[0], run, sessions=10)
            _wait_until(lambda: {"session open", "session lifetime"} <= _shown(page), run)
            page.post("/stop").raise_for_status()
            _wait_until(Path(config.report).exists, run)
            report = run.report()
            assert report.measured.errors == {}
            assert 0 < report.measured.counters["gateway", "sessions"] < 100
            assert report.duration_s < 60
            Path(config.report).unlink()
            Began.path(config).unlink()
        run.terminate()
        assert run.wait(30) == 0, run.log
    stage[0].wait_active(0)


def test_a_gateway_that_is_not_there_is_counted_and_nobody_waits_for_it(config: RunConfig, tmp_path: Path):
    config = replace(config, target=f"127.0.0.1:{free_port()}", scenario="churn", seconds=4.0)
    with locust(config, tmp_path) as run:
        assert run.wait(60) == 0, run.log
        report = run.report()
    arrivals = report.measured.counters["gateway", "arrivals"]
    assert report.measured.errors == {("gateway", "UNAVAILABLE"): arrivals}
    assert ("gateway", "sessions") not in report.measured.counters
    assert report.measured.counters["direct", "completed"] > 0, "the baseline goes on"


def test_a_gateway_that_dies_in_the_middle_hangs_nobody(stage, config: RunConfig, tmp_path: Path):
    with (
        processes.gateway(stage[0].url, max_sessions=1000) as gateway,
        locust(replace(config, target=gateway.address, seconds=8.0), tmp_path) as run,
    ):
        _wait_until_busy(stage[0], run, sessions=6)
        gateway.process.send(signal.SIGKILL)
        assert run.wait() == 0, run.log
        report = run.report()
    assert set(report.measured.errors) == {("gateway", "UNAVAILABLE")}
    assert report.measured.integrity_failures == []
    for session in stage[0].sessions():
        stage[0].http.post("/v1/sessions/stop", headers={"X-API-KEY": processes.API_KEY},
                           json={"session_id": session["id"]})  # fmt: skip


def test_what_liveavatar_refuses_is_counted_by_the_gateways_reason(config: RunConfig, tmp_path: Path):
    with processes.emulator(credits=0) as emulator, processes.gateway(emulator.url) as gateway:
        poor = replace(config, target=gateway.address, emulator=emulator.url, scenario="churn", seconds=3.0)
        with locust(poor, tmp_path) as run:
            assert run.wait() == 0, run.log
            report = run.report()
    reasons = {reason for system, reason in report.measured.errors if system == "gateway"}
    assert reasons == {"UPSTREAM_CREDITS_EXHAUSTED"}
    assert {reason for system, reason in report.measured.errors if system == "direct"} <= {"HTTP_403_4033"}


@pytest.mark.long
def test_a_firehose_never_exceeds_the_credit(stage, config: RunConfig, tmp_path: Path):
    """With a second of credit, forty seconds of speech take their time, and nothing is refused or lost."""
    with processes.gateway(stage[0].url, max_sessions=100, max_buffered_s=1, ack_interval_s=0.1) as gateway:
        flood = replace(config, target=gateway.address, scenario="firehose", seconds=3.0, rate=1.0)
        with locust(flood, tmp_path) as run:
            assert run.wait() == 0, run.log
            report = run.report()
    assert report.measured.errors == {}
    assert report.measured.integrity_failures == []
    assert report.measured.counters["gateway", "audio bytes"] > 10 * 48_000


def test_a_tenant_above_its_quotas_is_counted_apart_from_the_measured_one(tmp_path: Path):
    config = RunConfig(scenario="two-tenants", seconds=10.0, rate=1.5, report=str(tmp_path / "measured.json"))
    # Files of an earlier run in the same folder are not taken for those of this one.
    Began(started_at="2026-01-01T00:00:00+00:00", started_mono_s=-1e6, seconds=10.0).save(config)
    (tmp_path / "noisy.jsonl").write_text("stale")
    result = perform(Plan(config=config, folder=tmp_path, processes=2), lambda _: None)
    measured = result.measured
    assert measured.integrity_failures == []
    assert measured.errors == {}
    assert result.left_upstream == 0
    assert set(measured.tenants) == {QUIET, NOISY}
    quiet, noisy = measured.tenants[QUIET], measured.tenants[NOISY]
    assert noisy.counters["gateway", "quota refusals"] > noisy.counters["gateway", "calls accepted"] > 0
    assert noisy.counters["gateway", "utterances checked"] == noisy.counters["gateway", "utterances"] > 0
    assert set(noisy.over_time["gateway", "quota refusals"]) <= {1, 2}
    assert noisy.series == {}
    assert ("gateway", "quota refusals") not in quiet.counters
    assert quiet.series["gateway", "unary call"].count == quiet.counters["gateway", "completed"] > 0
    for counter in ("sessions", "utterances"):
        assert measured.counters["gateway", counter] == sum(
            share.counters["gateway", counter] for share in measured.tenants.values()
        )


class _Careless(DirectSession):
    """Flips one bit on the way."""

    async def _write(self, utterance: Utterance, chunk: bytes) -> None:
        if utterance.sent_bytes == 960 * 30:
            chunk = chunk[:100] + bytes([chunk[100] ^ 1]) + chunk[101:]
        await super()._write(utterance, chunk)


@pytest.mark.parametrize("careless", [False, True])
async def test_one_wrong_byte_is_found_and_named(stage, careless):
    emulator = stage[0]
    recorder = LoadRecorder(Recorder(time.monotonic()), lambda *_: False)
    voice = Voice()
    async with aiohttp.ClientSession(emulator.url) as http:
        kind = _Careless if careless else DirectSession
        session = kind(http, processes.API_KEY, recorder, voice)
        await session.open()
        text = voice.pick(random.Random(5), 1.0)
        utterance = Utterance("t1", text, real_time(text.size_bytes, chunk_ms=20), time.monotonic())
        await session.speak(utterance)
        await session.finish(utterance)
        await session.end()
        await UpstreamCheck(http, one_clock=True, voice=voice).check(session, recorder)
    assert recorder.measured.counters["direct", "utterances checked"] == 1
    failures = recorder.measured.integrity_failures
    if careless:
        assert len(failures) == 1
        assert f"session {session.upstream_id}, utterance t1" in failures[0]
        assert failures[0].endswith(f"first wrong byte: {29 * 960 + 100}")
    else:
        assert failures == []
        assert recorder.measured.series["direct", "first packet upstream"].count == 1


def _answers(page: httpx.Client) -> bool:
    try:
        return page.get("/stats/requests").is_success
    except httpx.TransportError:
        return False


def _shown(page: httpx.Client) -> set[str]:
    return {row["name"] for row in page.get("/stats/requests").json()["stats"]}


def _wait_until(true: Callable[[], bool], run: Locust) -> None:
    give_up_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up_s, run.log
        time.sleep(0.1)


def _wait_until_busy(emulator: processes.Emulator, run: Locust, *, sessions: int) -> None:
    before = emulator.state()["sessions"]["started_total"]
    _wait_until(lambda: emulator.state()["sessions"]["started_total"] - before >= sessions, run)


def _stats(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "stats_stats.csv").open() as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def test_plain_locust_does_what_its_options_say(stage, tmp_path: Path):
    emulator, gateway = stage
    before = emulator.state()["sessions"]["started_total"]
    options = (
        "--host",
        gateway.address,
        "-u",
        "3",
        "-r",
        "3",
        "-t",
        "6s",
        "Churn",
        "--csv",
        str(tmp_path / "stats"),
    )
    with locust(None, tmp_path, *options) as run:
        assert run.wait() == 0, run.log
    assert '"Churn": 3' in run.log
    opened = int(_stats(tmp_path)["session open"]["Request Count"])
    # Three users, each with one session after the other.
    assert opened > 3
    assert int(_stats(tmp_path)["Aggregated"]["Failure Count"]) == 0
    assert emulator.state()["sessions"]["started_total"] - before >= opened
    emulator.wait_active(0)


def test_plain_locust_is_driven_from_its_web_page(stage, tmp_path: Path):
    emulator, gateway = stage
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with locust(None, tmp_path, web_port=port) as run, httpx.Client(base_url=address, timeout=10) as page:

        def stats() -> dict:
            return page.get("/stats/requests").raise_for_status().json()

        _until(lambda: _answers(page))
        form = {"user_count": 2, "spawn_rate": 2, "host": f"http://{gateway.address}", "user_classes": ["Churn"]}
        assert page.post("/swarm", data=form).raise_for_status().json()["success"] is True
        _until(lambda: any(row["name"] == "started" and row["num_requests"] > 0 for row in stats()["stats"]))
        assert stats()["user_count"] == 2
        page.post("/stop").raise_for_status()
        _until(lambda: stats()["state"] == "stopped")
        assert stats()["errors"] == []
        emulator.wait_active(0)
        run.terminate()
        run.wait()


def _answers(page: httpx.Client) -> bool:
    try:
        return page.get("/").is_success
    except httpx.TransportError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.1)
