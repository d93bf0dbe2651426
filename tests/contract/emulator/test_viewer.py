"""The page to watch on, as files and as answers; what it does in a browser is in `tests/browser`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import liveavatar_emulator
from testkit.processes import server

PACKAGE = Path(liveavatar_emulator.__file__).parent
FILES = {
    "page.js": ("text/javascript", "export {};"),
    "style.css": ("text/css", "p {}"),
    "icon.svg": ("image/svg+xml", "<svg/>"),
    "licences.txt": ("text/plain", "free"),
}


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, httpx.Client]]:
    """An emulator of a checkout in which the page was never built, and the folder where the build would put it."""
    folder = tmp_path_factory.mktemp("checkout")
    package = folder / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("viewer_page", "__pycache__"))
    with (
        server("liveavatar_emulator", {"PYTHONPATH": str(folder)}, folder) as process,
        httpx.Client(base_url=process.info["url"], trust_env=False) as http,
    ):
        yield package / "viewer_page", http


@pytest.fixture
def built(unbuilt: tuple[Path, httpx.Client]) -> Iterator[httpx.Client]:
    """The same once the page is built: small files of the right names stand for it."""
    page, http = unbuilt
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>the page</title>")
    for name, (_, text) in FILES.items():
        (page / name).write_text(text)
    (page / "secret.txt").write_text("not of the page")
    yield http
    shutil.rmtree(page)


def test_a_page_that_is_not_built_names_the_one_command(unbuilt):
    _, http = unbuilt
    answer = http.get("/viewer")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert "<pre>make viewer</pre>" in answer.text
    assert http.get("/viewer/page.js").status_code == 404


def test_a_page_built_later_is_served_without_a_restart(built):
    answer = built.get("/viewer")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "the page" in answer.text


@pytest.mark.parametrize("name", FILES)
def test_each_file_has_its_media_type(built, name):
    answer = built.get(f"/viewer/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(FILES[name][0])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == FILES[name][1]


def test_the_page_may_run_its_own_script_and_reach_its_own_emulator_alone(built):
    policy = built.get("/viewer").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"


@pytest.mark.parametrize(
    "name", ["secret.txt", "index.html", "..%2fviewer.py", "%2e%2e/viewer.py", "..%2f..%2fetc"]
)
def test_nothing_else_is_served(built, name):
    assert built.get(f"/viewer/{name}").status_code == 404


async def test_the_page_is_told_of_running_sessions_and_of_the_one_it_watches(emulator):
    path = "/_emulator/viewer"
    assert (await emulator.http.get(path)).json() == {"livekit": False, "running": [], "session": None}
    first, second = await emulator.session(), await emulator.session()
    answer = (await emulator.http.get(path, params={"session": first.id})).json()
    assert [row["id"] for row in answer["running"]] == [first.id, second.id]
    watched = answer["session"]
    assert (watched["id"], watched["phase"], watched["pose"]) == (first.id, "waiting", "idle")
    assert watched["end_reason"] is watched["livekit_room"] is None

    stopped = await emulator.http.post("/v1/sessions/stop", headers=first.bearer)
    assert stopped.status_code == 200
    answer = (await emulator.http.get(path, params={"session": first.id})).json()
    assert [row["id"] for row in answer["running"]] == [second.id]
    assert (answer["session"]["phase"], answer["session"]["end_reason"]) == ("ended", "USER_CLOSED")
    assert (await emulator.http.get(path, params={"session": "nobody"})).json()["session"] is None


async def test_the_page_sees_the_avatar_talk(emulator):
    await emulator.knobs(speed=1)
    async with emulator.ready() as (session, socket):
        await socket.speak(bytes(48_000), "u1")
        await socket.until("agent.speak_started")
        answer = (await emulator.http.get("/_emulator/viewer", params={"session": session.id})).json()
        assert (answer["session"]["phase"], answer["session"]["pose"]) == ("ready", "talking")


async def test_a_seat_in_the_room_is_refused_with_the_reason(emulator):
    unknown = await emulator.http.get("/_emulator/sessions/nobody/viewer")
    assert unknown.status_code == 404
    assert "nobody" in unknown.json()["detail"]
    session = await emulator.session()
    path = f"/_emulator/sessions/{session.id}/viewer"
    without_room = await emulator.http.get(path)
    assert without_room.status_code == 409
    assert "--livekit-url" in without_room.json()["detail"]
    await emulator.http.post("/v1/sessions/stop", headers=session.bearer)
    over = await emulator.http.get(path)
    assert over.status_code == 409
    assert "is over" in over.json()["detail"]
