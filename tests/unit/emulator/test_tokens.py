"""JSON Web Tokens: signed, verified, refused."""

import pytest

from liveavatar_emulator.tokens import BadToken, claims_of, sign, verify


def test_a_signed_token_gives_its_claims_back():
    token = sign({"sub": "s1"}, b"secret")
    assert verify(token, b"secret") == claims_of(token) == {"sub": "s1"}


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (sign({}, b"other"), "signature"),
        (sign({}, b"secret") + "x", "signature"),
        ("", "signature"),
        ("ä.b.c", "not ASCII"),
    ],
)
def test_a_token_of_another_key_is_refused(token, problem):
    with pytest.raises(BadToken, match=problem):
        verify(token, b"secret")


@pytest.mark.parametrize(("token", "problem"), [("a.b", "three"), ("a.!!.c", "JSON"), ("a.W10.c", "object")])
def test_claims_are_read_from_an_object_only(token, problem):
    with pytest.raises(BadToken, match=problem):
        claims_of(token)
