"""Tokens that callers bring: each wrong one is refused with its field, and no error has a part of it."""

import base64
from functools import partial

import pytest

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc.room_tokens import APPEARS, HEARS, JOINS, Wanted, identity_in
from testkit.room_tokens import AVATAR_GRANTS as GRANTS
from testkit.room_tokens import part, unsigned

NOW_S = 1_800_000_000.0
token = partial(unsigned, NOW_S)
WANTED = Wanted(room="desk-7", grants=APPEARS, identity="ada")


def refusal(text: str, wanted: Wanted = WANTED) -> str:
    with pytest.raises(InvalidField) as error:
        identity_in(text, wanted, field="spec.livekit_room.avatar_token", now_s=NOW_S)
    assert error.value.field == "spec.livekit_room.avatar_token"
    message = str(error.value)
    assert not [piece for piece in text.split(".") if len(piece) > 8 and piece in message]
    return message


def test_the_identity_of_a_right_token_is_returned():
    assert identity_in(token(), WANTED, field="f", now_s=NOW_S) == "ada"
    anybody = Wanted(room="desk-7", grants=JOINS)
    assert identity_in(token(sub="bob"), anybody, field="f", now_s=NOW_S) == "bob"
    assert identity_in(token(nbf=...), WANTED, field="f", now_s=NOW_S) == "ada"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "a.b",
        "a.b.c.d",
        f"{part({})}.{part({})}.sig nature",
        f"{part([])}.{part({})}.sig",
        f"{part({})}.{part([])}.sig",
        f"{part({})}.bm8ganNvbg.sig",
        f"{part({})}.A.sig",
        f"{part({})}.{base64.urlsafe_b64encode(b'[' * 2500).decode()}.sig".replace("=", ""),
    ],
)
def test_what_is_no_token_is_refused(text):
    assert "is no JWT" in refusal(text)


def test_a_long_token_is_refused():
    assert "at most 4096" in refusal(token(name="x" * 4096))


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"exp": ...}, "no time of expiry"),
        ({"exp": "tomorrow"}, "no time of expiry"),
        ({"exp": True}, "no time of expiry"),
        ({"exp": float("nan")}, "no time of expiry"),
        ({"exp": float("inf")}, "no time of expiry"),
        ({"nbf": "now"}, "no time of expiry"),
        ({"exp": NOW_S + 59}, "has expired"),
        ({"nbf": NOW_S + 61}, "not valid yet"),
        ({"sub": ...}, "names no participant"),
        ({"sub": 7}, "names no participant"),
        ({"sub": "bob"}, "another participant than 'ada'"),
        ({"video": {}}, "another room than 'desk-7'"),
        ({"video": "all"}, "another room than 'desk-7'"),
        ({"video": {**GRANTS, "room": "desk-8"}}, "another room than 'desk-7'"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(claims, problem):
    assert problem in refusal(token(**claims))


@pytest.mark.parametrize("grant", GRANTS)
@pytest.mark.parametrize("value", [False, None, "true"])
def test_each_grant_has_to_be_explicit(grant, value):
    assert f"lacks the grants {grant}" in refusal(token(video={**GRANTS, "room": "desk-7", grant: value}))


def test_a_listener_needs_less_than_an_avatar():
    wanted = Wanted(room="desk-7", grants=HEARS)
    hears = token(video={"room": "desk-7", "roomJoin": True, "canSubscribe": True})
    assert identity_in(hears, wanted, field="f", now_s=NOW_S) == "ada"


def test_two_tokens_must_not_have_one_identity():
    wanted = Wanted(room="desk-7", grants=JOINS, other_than={"ada": "the avatar"})
    assert "identity of the avatar" in refusal(token(), wanted)
