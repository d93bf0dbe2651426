"""Inputs that once found something, or that are worth to be kept, against a gateway of today."""

from collections import Counter
from pathlib import Path

from fuzz import cases, trial
from fuzz.cases import KINDS, Case

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*/*.json"))


def test_no_input_of_the_corpus_finds_anything():
    findings = trial.replay([Case.load(path) for path in FILES])
    assert [(one.problem, [case.name for case in one.cases], one.detail) for one in findings] == []


def test_each_kind_of_inputs_has_a_place_in_the_corpus():
    assert Counter(path.parent.name for path in FILES).keys() == KINDS.keys()
    assert all(Case.load(path).kind == path.parent.name for path in FILES)


def test_a_case_is_the_same_for_the_same_seed(tmp_path):
    for kind in KINDS:
        case = cases.make(7, kind, 3)
        assert case == cases.make(7, kind, 3)
        assert case.steps != cases.make(8, kind, 3).steps
        kept = tmp_path / f"{kind}.json"
        kept.write_text(case.dumps(), encoding="utf-8")
        assert Case.load(kept).steps == case.steps
