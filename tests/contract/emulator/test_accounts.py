"""Accounts with limits of their own, and keys that are revoked."""

from contextlib import contextmanager

import httpx
import pytest

from liveavatar_demo.process import StartFailed
from testkit.processes import server

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
FIRST, SECOND = {"X-API-KEY": "key-1"}, {"X-API-KEY": "key-2"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with server(
        "liveavatar_emulator",
        {},
        tmp_path_factory.mktemp("accounts"),
        *("--rate", "0", "--concurrency", "5", "--ready-delay-ms", "0"),
        *("--api-key", "one=key-1", "--api-key", "one=key-1b", "--api-key", "two=key-2"),
        *("--account-limits", "one:concurrency=1,credits=7"),
    ) as process:
        yield process.info["url"]


@pytest.fixture
def http(url):
    with httpx.Client(base_url=url) as client:
        client.post("/_emulator/reset")
        yield client


@contextmanager
def changed(http, account, **changes):
    http.patch(f"/_emulator/accounts/{account}", json=changes).raise_for_status()
    yield
    http.patch(f"/_emulator/accounts/{account}", json=dict.fromkeys(changes)).raise_for_status()


def start(http, key):
    minted = http.post("/v1/sessions/token", json={"avatar_id": AVATAR}, headers=key).json()["data"]
    return http.post("/v1/sessions/start", headers={"Authorization": f"Bearer {minted['session_token']}"})


def test_each_account_has_its_concurrency_and_credits(http):
    assert http.get("/v1/users/credits", headers=FIRST).json()["data"]["credits_left"] == "7.00"
    assert [start(http, FIRST).status_code for _ in range(2)] == [201, 403]
    assert [start(http, SECOND).status_code for _ in range(2)] == [201, 201]
    peaks = {row["name"]: row["peak_slots"] for row in http.get("/_emulator/state").json()["accounts"]}
    assert peaks == {"one": 1, "two": 2}


def test_a_revoked_key_is_refused_and_the_accounts_other_key_is_not(http):
    refused = http.patch("/_emulator/accounts/one", json={"revoked_keys": ["key-1"]})
    assert refused.json()["revoked_keys"] == ["key-1"]
    answers = [http.get("/v1/users/credits", headers={"X-API-KEY": key}) for key in ("key-1", "key-1b", "key-2")]
    assert [answer.status_code for answer in answers] == [401, 200, 200]
    http.patch("/_emulator/accounts/one", json={"revoked_keys": []}).raise_for_status()


def test_one_account_is_out_of_credits_or_rate_limited(http):
    with changed(http, "two", credits=0):
        assert start(http, SECOND).json()["code"] == 4033
        assert start(http, FIRST).status_code == 201
    with changed(http, "two", rate=1):
        statuses = [http.get("/v1/users/credits", headers=SECOND).status_code for _ in range(3)]
        assert 429 in statuses
        assert {http.get("/v1/users/credits", headers=FIRST).status_code for _ in range(3)} == {200}


def test_a_fault_hits_the_calls_of_one_account(http):
    http.post("/_emulator/faults", json={"endpoint": "start", "status": 500, "account": "two"}).raise_for_status()
    assert start(http, FIRST).status_code == 201
    assert start(http, SECOND).status_code == 500


def test_unknown_accounts_and_limits_are_refused(http):
    assert http.patch("/_emulator/accounts/three", json={"rate": 1}).status_code == 404
    refused = http.patch("/_emulator/accounts/one", json={"rates": 1})
    assert (refused.status_code, "did you mean 'rate'" in refused.text) == (422, True)


def test_limits_of_an_account_without_a_key_are_a_configuration_error(tmp_path):
    refused = server("liveavatar_emulator", {}, tmp_path, "--account-limits", "none:rate=1")
    with pytest.raises(StartFailed, match="no API key belongs to the account 'none'"), refused:
        pass
