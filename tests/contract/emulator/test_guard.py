"""Access of web pages and other machines: control API and viewer page are for the emulator's owner alone."""

import asyncio

import pytest
from contract.emulator.conftest import KEY

EVIL = "evil.example"
CONTROL = (
    "/_emulator/state",
    "/_emulator/sessions",
    "/_emulator/log",
    "/_emulator/viewer",
    "/_emulator/docs",
    "/viewer",
)
FORMS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
CHANGES = {
    "settings": ("PATCH", "/_emulator/settings", '{"idle_s": 7}'),
    "faults": ("POST", "/_emulator/faults", '{"endpoint": "token", "status": 503}'),
    "restart": ("POST", "/_emulator/restart", "{}"),
    "scenario": ("POST", "/_emulator/scenario", "[settings]\nidle_s = 7"),
}
TOKEN = "control-token-0123456789"


async def unchanged(emulator) -> bool:
    settings = (await emulator.http.get("/_emulator/settings")).json()
    faults = (await emulator.http.get("/_emulator/faults")).json()
    return settings["idle_s"] != 7 and not faults


@pytest.mark.parametrize("path", CONTROL)
async def test_a_name_that_was_made_to_resolve_here_reads_nothing(emulator, path):
    """DNS rebinding: to the browser, the emulator is the page's own origin."""
    port = emulator.url.rpartition(":")[2]
    rebound = {"Host": f"{EVIL}:{port}", "Sec-Fetch-Site": "same-origin"}
    for headers in (rebound, {**rebound, "Origin": f"http://{EVIL}:{port}"}):
        answer = await emulator.http.get(path, headers=headers)
        assert answer.status_code == 403
        assert "Host" in answer.json()["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "[::1]"])
async def test_names_of_this_machine_are_known(emulator, host):
    port = emulator.url.rpartition(":")[2]
    assert (await emulator.http.get("/_emulator/state", headers={"Host": f"{host}:{port}"})).status_code == 200


async def test_a_further_name_must_be_allowed(own_emulator):
    async with own_emulator("--allowed-host", "emulator.test", "--public-url", "ws://public.test:1") as emulator:
        for name, status in (("emulator.test", 200), ("public.test", 200), ("other.test", 403)):
            answer = await emulator.http.get("/_emulator/state", headers={"Host": f"{name}:8787"})
            assert answer.status_code == status


@pytest.mark.parametrize(("method", "path", "body"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("content_type", [*FORMS, "application/json", "application/toml"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": f"http://{EVIL}"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
async def test_no_page_of_another_origin_changes_anything(emulator, method, path, body, content_type, headers):
    headers = {**headers, "Content-Type": content_type}
    answer = await emulator.http.request(method, path, content=body, headers=headers)
    assert answer.status_code == 403
    assert await unchanged(emulator)


@pytest.mark.parametrize(("method", "path", "body"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("content_type", [*FORMS, ""])
async def test_a_body_that_a_form_could_send_is_refused(emulator, method, path, body, content_type):
    """Browsers that send neither `Origin` nor fetch metadata still cannot send another type without asking."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await emulator.http.request(method, path, content=body, headers=headers)
    assert answer.status_code == 415
    assert await unchanged(emulator)


@pytest.mark.parametrize("content_type", FORMS)
async def test_a_form_without_fields_resets_nothing(emulator, content_type):
    await emulator.fault("token", status=503)
    answer = await emulator.http.post("/_emulator/reset", headers={"Content-Type": content_type})
    assert answer.status_code == 415
    assert (await emulator.http.get("/_emulator/faults")).json()


async def test_a_link_opens_the_page_and_changes_nothing(emulator):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert (await emulator.http.get("/viewer", headers=link)).status_code in (200, 503)
    assert (await emulator.http.post("/_emulator/reset", headers=link)).status_code == 403


async def test_the_service_itself_is_open_to_every_page_and_name(emulator):
    headers = {"Host": f"{EVIL}:80", "Origin": f"http://{EVIL}", "Sec-Fetch-Site": "cross-site", **KEY}
    assert (await emulator.http.get("/v1/avatars/public", headers=headers)).status_code == 200
    assert (await emulator.http.get("/v1/sessions?type=active", headers=headers)).status_code == 200


async def test_with_a_token_nobody_else_controls_the_emulator(own_emulator, tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with own_emulator("--control-token-file", str(file)) as emulator:
        for headers in (
            {},
            {"Authorization": "Bearer wrong-token-0123456789"},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            for path in CONTROL[:5]:
                answer = await emulator.http.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in answer.text
            assert (await emulator.http.post("/_emulator/reset", headers=headers)).status_code == 401
        own = {"Authorization": f"Bearer {TOKEN}"}
        assert (await emulator.http.get("/_emulator/state", headers=own)).status_code == 200
        # Whoever has the token is no page that was made to resolve here, but still may be a page.
        named = {**own, "Host": "emulator:8787"}
        assert (await emulator.http.get("/_emulator/state", headers=named)).status_code == 200
        foreign = {**own, "Origin": f"http://{EVIL}"}
        assert (await emulator.http.get("/_emulator/state", headers=foreign)).status_code == 403
        assert (await emulator.http.get("/v1/avatars/public")).status_code == 200
        log = (await emulator.http.get("/_emulator/log", headers=own)).text
        assert TOKEN not in log


async def test_a_missing_file_gets_a_token(own_emulator, tmp_path):
    file = tmp_path / "made" / "token"
    file.parent.mkdir()
    async with own_emulator("--control-token-file", str(file)) as emulator:
        async with asyncio.timeout(10):
            while not file.exists():
                await asyncio.sleep(0.05)
        own = {"Authorization": f"Bearer {file.read_text().strip()}"}
        assert (await emulator.http.get("/_emulator/state", headers=own)).status_code == 200
