"""Secrets of the gateway in texts of others."""

import base64

import pytest

from liveavatar_gateway.upstream.redaction import Redactor, proxy_secrets

KEY = "sk-liveavatar-0123456789"


def test_no_known_secret_is_left_in_a_text():
    redactor = Redactor([KEY])
    redactor.add("another-secret")
    assert redactor.hide(f"{KEY}, another-secret, {KEY}") == "(hidden), (hidden), (hidden)"


def test_the_credentials_of_a_request_are_known_for_this_request_alone():
    redactor = Redactor([KEY])
    arguments = {
        "headers": {"Authorization": "Bearer session-token"},
        "json": {"livekit_config": {"livekit_client_token": "room-token"}},
    }
    text = f"{KEY} session-token room-token"
    assert redactor.with_request(arguments).hide(text) == "(hidden) (hidden) (hidden)"
    assert redactor.hide(text) == "(hidden) session-token room-token"
    assert redactor.with_request({"headers": None, "json": None}).hide(KEY) == "(hidden)"
    agora = {"json": {"agora_config": {"agora_token": "agora-token"}}}
    assert redactor.with_request(agora).hide("no agora-token") == "no (hidden)"


def test_words_that_are_too_short_for_a_secret_stay():
    assert Redactor(["key", ""]).hide("the key") == "the key"


@pytest.mark.parametrize("password", ["a-password", "p@ss/w:rd+0"])
def test_the_password_of_a_proxy_is_known_in_every_form(password):
    from urllib.parse import quote

    secrets = proxy_secrets(f"http://user:{quote(password, safe='')}@proxy.example:3128")
    assert {password, quote(password, safe=""), base64.b64encode(f"user:{password}".encode()).decode()} == set(
        secrets
    )
    assert proxy_secrets("http://proxy.example:3128") == []
