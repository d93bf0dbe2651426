"""The load suite tells a good gateway from a broken one, and a starved generator from both.

What it says of times is tested with the machine for itself; what it counts is the same beside other tests.
"""

import json
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import runs

from stage.services import API_KEY
from testkit import processes

pytestmark = pytest.mark.timeout(900)


@pytest.mark.alone
def test_a_healthy_gateway_is_green(tmp_path: Path):
    found = runs.judged(tmp_path)
    assert found.status == runs.PASS, found.output
    assert found.objectives("held")
    assert set(found.objectives("held")) == {one["objective"] for one in found.verdict["objectives"]}
    assert found.verdict["notes"] == []
    assert {path.name for path in found.folder.iterdir()} >= {
        *("result.json", "verdict.json", "junit.xml", "summary.md", "report.html"),
        *("gateway.log", "emulator.log", "locust.log", "locust_stats.csv", "locust.html"),
    }
    assert found.result["left_upstream"] == 0
    # The folder is uploaded as an artifact: no registry with its tokens and key, and no credential in any file.
    files = [path for path in found.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if "registry" in path.name]
    assert not [path for path in files if API_KEY.encode() in path.read_bytes()]
    assert len(found.result["samples"]) > 5


@pytest.mark.alone
def test_a_sleep_of_100_ms_in_the_packet_path_is_red(tmp_path: Path):
    found = runs.judged(tmp_path, *runs.mutant("slow"))
    assert found.status == runs.FAIL, found.output
    assert "speech reaches LiveAvatar at once" in found.objectives("broken")
    assert "FAIL  speech reaches LiveAvatar at once: first packet upstream p50 is 1" in found.output
    assert "every byte arrives once and in order" in found.objectives("held")


@pytest.mark.long
def test_one_dropped_packet_is_red_and_names_the_session_and_the_byte(tmp_path: Path):
    found = runs.run(tmp_path, *runs.mutant("lossy"))
    assert found.status == runs.FAIL, found.output
    assert "every byte arrives once and in order" in found.objectives("broken")
    assert "FAIL  every byte arrives once and in order" in found.output
    (failure,) = found.result["measured"]["integrity_failures"]
    assert "session" in failure
    assert "byte" in failure


@pytest.mark.long
def test_one_session_that_is_never_stopped_is_red(tmp_path: Path):
    found = runs.run(tmp_path, *runs.mutant("leaky"))
    assert found.status == runs.FAIL, found.output
    assert "no session is left running" in found.objectives("broken")
    assert "no session is left running: 1 session" in found.output
    assert found.result["left_upstream"] == 1


@pytest.mark.alone
def test_a_starved_generator_is_void_and_blames_nobody_else(tmp_path: Path):
    """The generator gets a quarter of its time, as under a CPU quota: it runs 30 ms and stands still for 90."""
    process = runs.start(tmp_path)
    over = threading.Event()
    throttle = threading.Thread(target=_throttle, args=(process.pid, over))
    throttle.start()
    try:
        output, _ = process.communicate(timeout=300)
    finally:
        over.set()
        throttle.join()
        process.terminate()
    found = runs.Run(process.returncode, output, tmp_path)
    assert found.status == runs.VOID, output
    assert "VOID  generator saturated, nothing is said of the gateway" in output
    assert found.objectives("broken") == []
    assert "speech reaches LiveAvatar at once" in found.objectives("void")
    assert "every byte arrives once and in order" in found.objectives("held")


def _throttle(command_pid: int, over: threading.Event) -> None:
    generator: psutil.Process | None = None
    while not over.is_set():
        try:
            if generator is None:
                generator = _child(command_pid, "locust")
                time.sleep(0.1)
                continue
            generator.send_signal(signal.SIGSTOP)
            time.sleep(0.09)
            generator.send_signal(signal.SIGCONT)
            time.sleep(0.03)
        except psutil.NoSuchProcess:
            return


def _child(pid: int, word: str) -> psutil.Process | None:
    children = psutil.Process(pid).children(recursive=True)
    return next((child for child in children if any(word in part for part in child.cmdline()[:3])), None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_children_and_keeps_what_it_measured(tmp_path: Path, number: signal.Signals):
    process = runs.start(tmp_path, "--seconds", "120")
    try:
        give_up_s = time.monotonic() + 120
        while not (tmp_path / "measured.began.json").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        time.sleep(4)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 3
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    finally:
        process.terminate()
    found = runs.Run(process.returncode, output, tmp_path)
    assert found.status == runs.INTERRUPTED, output
    assert found.result["environment"]["interrupted"] == "yes"
    assert found.result["duration_s"] < 60
    assert ["gateway", "sessions"] in [row[:2] for row in found.result["measured"]["counters"]]
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


@pytest.mark.alone
def test_a_gateway_that_runs_already_is_loaded_and_faults_are_played_and_undone(tmp_path: Path):
    timeline = tmp_path / "faults.toml"
    timeline.write_text(
        """
        [[at]]
        at_s = 3
        for_s = 2
        what = "interrupts are answered late"
        settings = { interrupt_ack_ms = 900 }

        [[at]]
        at_s = 4
        for_s = 4
        what = "starts are refused three times"
        expect = ["UPSTREAM_REJECTED", "UPSTREAM_UNREACHABLE", "UPSTREAM_PROTOCOL", "UPSTREAM_TIMEOUT"]
        fault = { endpoint = "start", times = 3, status = 503 }
        """
    )
    # The breaker would refuse further starts after the end of the fault.
    with (
        processes.emulator() as emulator,
        processes.gateway(emulator.url, breaker_failures=100) as gateway,
    ):
        found = runs.run(
            tmp_path / "run",
            *("--target", gateway.address, "--emulator", emulator.url, "--faults", str(timeline)),
        )
        settings = emulator.settings()
        fired = emulator.state()["faults"]["fired"]
    assert found.status in (runs.PASS, runs.VOID), found.output
    assert [one["what"] for one in found.result["faults"]] == [
        "interrupts are answered late",
        "starts are refused three times",
    ]
    assert settings["interrupt_ack_ms"] == 190
    assert fired == 3
    assert sum(row[2] for row in found.result["measured"]["expected_errors"]) == 3, found.result["measured"]
    assert found.result["measured"]["errors"] == []
    assert found.result["samples"] == []
    assert "CPU and memory not measured" in json.dumps(found.verdict["notes"])


def test_a_service_that_does_not_start_is_said_with_the_end_of_its_log(tmp_path: Path):
    found = runs.run(tmp_path, "--gateway-command", "false")
    assert found.status == 2
    assert "load: gateway did not start, it ended with status 1" in found.output
