"""API keys: made, recognised and compared; bad texts are refused, and never repeated."""

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_gateway.auth import keys
from liveavatar_gateway.core.errors import CredentialInvalid

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@dataclass
class Stored:
    digest: str = "sha256:" + "1" * 64
    expires: datetime | None = None
    revoked: datetime | None = None


def test_a_new_key_is_parsed_as_itself():
    made = keys.generate()
    assert keys.parse(made.text) == made
    assert made.text.startswith(f"lag_{made.key_id}_")


def test_a_key_has_256_bits_of_secret_and_no_two_are_the_same():
    made = [keys.generate() for _ in range(200)]
    assert len({key.text.split("_", 2)[2] for key in made}) == len({key.key_id for key in made}) == 200
    # 43 characters of base64 carry 258 bits.
    assert {len(key.text.split("_", 2)[2]) for key in made} == {43}


def test_a_key_matches_its_digest_alone():
    made, other = keys.generate(), keys.generate()
    assert keys.matches(made, Stored(made.digest))
    assert not keys.matches(made, Stored(other.digest))
    assert not keys.matches(made, None)


def test_the_secret_of_one_id_is_of_no_use_with_another():
    made, other = keys.generate(), keys.generate()
    swapped = keys.parse(made.text.replace(made.key_id, other.key_id))
    assert not keys.matches(swapped, Stored(made.digest))


def test_digests_are_compared_in_constant_time_even_for_an_unknown_id(monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    made = keys.generate()
    for stored in (None, Stored(), Stored(made.digest)):
        keys.matches(made, stored)
    assert [a for a, _ in compared] == [made.digest] * 3
    assert {len(b) for _, b in compared} == {len(made.digest)}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "\n",
        lambda text: text.upper(),
        lambda text: text.replace("lag_", "lag-"),
        lambda text: f" {text}",
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "+",
        lambda _: "",
        lambda _: "lag_",
        lambda _: "lag_" + "a" * 1_000_000,
    ],
)
def test_a_bad_text_is_refused_and_not_repeated(change):
    made = keys.generate()
    with pytest.raises(CredentialInvalid) as refused:
        keys.parse(change(made.text))
    assert refused.value.metadata == {"cause": "malformed API key"}
    assert len(refused.value.message) < 100


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text):
    with pytest.raises(CredentialInvalid):
        keys.parse(f"lag_{text}"[:59])


def test_a_key_is_not_shown():
    made = keys.generate()
    assert made.text not in repr(made)
    assert made.key_id in repr(made)


@pytest.mark.parametrize(
    ("stored", "active"),
    [
        (Stored(), True),
        (Stored(expires=NOW + timedelta(seconds=1)), True),
        (Stored(expires=NOW), False),
        (Stored(revoked=NOW + timedelta(days=1)), False),
    ],
)
def test_a_key_is_active_until_it_expires_or_is_revoked(stored, active):
    assert keys.is_active(stored, NOW) is active
    assert keys.count_active([stored, Stored()], NOW) == 1 + active
