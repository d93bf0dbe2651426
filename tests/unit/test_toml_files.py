"""Files in TOML: content that is none, and problems with their places."""

import pytest
from pydantic import ValidationError

from liveavatar_gateway.toml_files import BadToml, Table, explain, parse_toml


class Inner(Table):
    size: int


class Outer(Table):
    inner: dict[str, Inner]


def problem(values: object) -> str:
    with pytest.raises(ValidationError) as invalid:
        Outer.model_validate(values)
    return explain(invalid.value, lambda place: list((Outer if len(place) == 1 else Inner).model_fields))


def test_a_byte_order_mark_is_no_content():
    assert parse_toml(b"\xef\xbb\xbfa = 1") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff", "is not text in UTF-8"), (b"a =", "is not TOML: "), (b"a = " + b"9" * 5000, "is not TOML: ")],
)
def test_what_is_no_toml_is_refused_with_its_cause(content, said):
    with pytest.raises(BadToml, match=said):
        parse_toml(content)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inner": {"a": {}}}, "inner.a.size: is missing"),
        ({"inner": {"a b": {"size": 1, "sizes": 2}}}, "inner.'a b'.sizes: unknown key; did you mean size?"),
        ({"inner": {}, "iner": 1}, "iner: unknown key; did you mean inner?"),
        ({"inner": {"a": {"size": "secret"}}}, "inner.a.size: Input should be a valid integer"),
    ],
)
def test_a_problem_names_its_place_and_no_value(values, said):
    found = problem(values)
    assert found.startswith(said)
    assert "secret" not in found


def test_many_problems_are_cut():
    assert problem({"inner": {str(number): {} for number in range(8)}}).endswith("; and 3 more")
