"""Report of a run that could not be finished."""

import tempfile

from chaos.run import main


def test_a_seed_that_breaks_off_says_how_to_play_it_again_and_the_next_is_played(monkeypatch, tmp_path, capsys):
    # No seed gets a folder for its registry.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert main(["--seeds", "2", "--first", "3", "--seconds", "9", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    for seed in (3, 4):
        assert f"make chaos SEED={seed} ARGS='--seconds 9 --callers 10'" in said


def test_each_run_takes_seeds_of_its_own_and_prints_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    runs = set()
    for _ in range(2):
        main(["--seeds", "1", "--seconds", "9", "--out", str(tmp_path)])
        runs.add(capsys.readouterr().out.splitlines()[0])
    assert len(runs) == 2
