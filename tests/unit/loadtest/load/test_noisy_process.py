"""The process of the flooding tenant ends when its windows are over or when it is told, and failures are named."""

import time
from pathlib import Path

import pytest

from load.noisy import Flooding
from load.noisy_process import NoisyProcess
from stage.errors import StageError


def _process(folder: Path, *windows: tuple[float, float], key: str = "lag_key") -> NoisyProcess:
    key_file = folder / "key"
    key_file.write_text(key)
    flooding = Flooding(target="127.0.0.1:1", key_file=str(key_file), windows=windows)
    return NoisyProcess(flooding, cores=(), folder=folder)


def test_a_process_without_a_window_ends_by_itself_and_counts_nothing(tmp_path: Path):
    (tmp_path / "noisy.jsonl").write_text("of an earlier run\n")
    with _process(tmp_path) as noisy:
        noisy.begin(time.monotonic())
        measured = noisy.finish(within_s=20.0)
    assert (measured.counters, measured.errors) == ({}, {})


@pytest.mark.parametrize("begun", [True, False])
def test_a_process_is_cut_short(tmp_path: Path, *, begun: bool):
    with _process(tmp_path, (1000.0, 2000.0)) as noisy:
        if begun:
            noisy.begin(time.monotonic())
        assert noisy.finish(within_s=0.0).counters == {}


def test_the_end_of_its_log_says_why_it_failed(tmp_path: Path):
    with _process(tmp_path, (0.0, 1.0), key="") as noisy:
        noisy.begin(time.monotonic())
        with pytest.raises(StageError, match="holds no API key"):
            noisy.finish(within_s=20.0)
