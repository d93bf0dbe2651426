"""Somebody talks with the avatar in a real browser: a fake microphone, real processes, real media."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from browser.conftest import HEARS, PATIENCE_MS, browser, page_of
from playwright.async_api import Locator, Page, expect

from liveavatar_demo import page_server, recordings, room, run
from liveavatar_demo.livekit_server import LiveKitServer
from testkit.users import singing, user_token

pytestmark = pytest.mark.timeout(240)

DEMO = [sys.executable, "-m", "liveavatar_gateway", "demo", "--voice", "--port", "0"]
PICTURES = Path(__file__).parents[2] / "out" / "browser"
QUIET = 3
"""Reading of a meter, of 100, below which nothing is heard."""


class Running:
    """The demo as a process."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._headers = {"Authorization": f"Bearer {parts.fragment.removeprefix('token=')}"}

    def room_name(self) -> str:
        """Return the name of the room, from a token for it."""
        answer = httpx.get(f"{self._origin}/api/access", headers=self._headers, trust_env=False)
        token = answer.raise_for_status().json()["token"]
        return str(jwt.decode(token, options={"verify_signature": False})["video"]["room"])


@contextlib.contextmanager
def voice_demo(livekit: LiveKitServer) -> Iterator[Running]:
    """Run the demo on the LiveKit server of the tests."""
    if not page_server.is_built():
        pytest.fail("the page is not built; this builds it: make viewer")
    named = dict(zip(room.VARIABLES, (livekit.url, livekit.api_key, livekit.api_secret), strict=True))
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, env={**os.environ, **named}) as process:
        try:
            shown = ""
            while not (found := re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", shown)):
                line = process.stdout.readline()
                assert line, shown
                shown += line
            yield Running(process, found[0])
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()


@pytest.fixture
def demo(livekit: LiveKitServer) -> Iterator[Running]:
    with voice_demo(livekit) as found:
        yield found


def write_microphone(path: Path, *, silence_s: float, spoken_s: float) -> None:
    """Write what the user says: nothing at first, then a sentence, then nothing."""
    audio_format, story = recordings.read(run.STORY)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(audio_format.rate_hz)
        file.writeframes(bytes(int(silence_s * audio_format.rate_hz) * 2))
        file.writeframes(story[: int(spoken_s * audio_format.rate_hz) * 2])
        file.writeframes(bytes(audio_format.rate_hz))


@pytest.fixture
def microphone(tmp_path: Path) -> Path:
    path = tmp_path / "microphone.wav"
    write_microphone(path, silence_s=3.0, spoken_s=5.0)
    return path


@pytest.fixture
async def talking_page(microphone: Path) -> AsyncIterator[Page]:
    """A page of a browser with a microphone that the user has allowed."""
    flags = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    )
    async with browser(*flags) as launched, page_of(launched) as found:
        yield found


def log(page: Page) -> Locator:
    return page.get_by_role("log")


async def said(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait for a line of the log."""
    await expect(log(page).get_by_role("listitem").filter(has_text=text).first).to_be_visible(timeout=PATIENCE_MS)


async def face(page: Page) -> None:
    """Wait until the avatar is seen."""
    await expect(page.locator("#notice")).to_be_hidden(timeout=PATIENCE_MS)
    await expect(page.locator("#state")).not_to_have_text("Not connected", timeout=PATIENCE_MS)


@pytest.mark.long
async def test_a_user_talks_with_the_avatar_by_voice_and_keyboard(demo, talking_page):
    page = talking_page
    await page.goto(demo.url)
    await face(page)
    start = page.get_by_role("button", name="Start talking")
    await start.focus()
    await page.keyboard.press("Enter")
    # The greeting has words, and words are captions.
    await expect(page.locator("#caption")).to_contain_text("Hello", timeout=PATIENCE_MS)
    await expect(page.get_by_role("button", name="Mute")).to_be_focused()

    await said(page, "You interrupt by speaking")
    await said(page, re.compile(r"The avatar was interrupted, [\d.]+ s were heard"))
    await said(page, re.compile(r"You spoke for [\d.]+ s"))
    await said(page, re.compile(r"The avatar answers, [\d.]+ s after you"))
    await page.keyboard.press("p")
    await said(page, "The avatar pauses")
    await expect(page.locator("#state")).to_have_text("Paused")
    await expect(page.locator(".timeline rect.pause")).not_to_have_count(0)
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / "voice-paused.png", full_page=True)
    await page.keyboard.press("c")
    await said(page, "The avatar continues")
    await said(page, "The avatar has spoken")

    drawn = page.locator(".timeline")
    for shape in ("rect.you", "rect.avatar.interrupted", "rect.avatar.played", "line.latency", "line.interrupt"):
        await expect(drawn.locator(shape)).not_to_have_count(0)
    lines = await log(page).get_by_role("listitem").all_inner_texts()
    order = [
        "You interrupt by speaking",
        "You spoke",
        "The avatar answers",
        "The avatar pauses",
        "The avatar continues",
    ]
    places = [next(place for place, line in enumerate(lines) if words in line) for words in order]
    assert places == sorted(places)
    assert any("Hello, and welcome" in line for line in lines)
    await expect(log(page)).to_have_attribute("aria-live", "polite")


@pytest.mark.long
async def test_only_the_avatar_is_heard_whoever_else_makes_sounds(demo, livekit):
    async with browser(HEARS) as launched, page_of(launched) as page:
        await page.goto(demo.url)
        await face(page)
        name = demo.room_name()
        agent = user_token(livekit, name, "another-agent", kind="agent")
        async with (
            singing(livekit.url, agent, 440),
            singing(livekit.url, user_token(livekit, name, "bob"), 660),
        ):
            meter = page.get_by_role("meter", name="Avatar")
            for _ in range(30):
                await asyncio.sleep(0.1)
                assert int(await meter.get_attribute("aria-valuenow")) <= QUIET


async def test_without_a_microphone_the_page_says_what_to_do_and_the_avatar_still_greets(demo):
    async with browser("--deny-permission-prompts") as launched, page_of(launched) as page:
        await page.goto(demo.url)
        await face(page)
        await page.get_by_role("button", name="Start talking").click()
        await expect(page.get_by_role("alert")).to_contain_text("microphone")
        again = page.get_by_role("button", name="Try the microphone again")
        await expect(again).to_be_visible()
        await expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-disabled", "true")
        await said(page, "The avatar speaks")
        await page.get_by_role("button", name="Interrupt").click()
        await said(page, "The avatar was interrupted")
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / "voice-no-microphone.png", full_page=True)


async def test_the_keyboard_reaches_everything_in_order_and_single_keys_can_be_turned_off(demo, talking_page):
    page = talking_page
    await page.goto(demo.url)
    await face(page)
    names = []
    for _ in range(7):
        await page.keyboard.press("Tab")
        names.append(await page.evaluate("() => document.activeElement.id"))
    assert names == ["start", "mute", "pause", "continue", "interrupt", "keys", "log"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.get_by_label("Single-key shortcuts").uncheck()
    await page.keyboard.press("p")
    await expect(page.locator("#state")).to_have_text("Ready")
    await page.get_by_label("Single-key shortcuts").check()
    await page.keyboard.press("p")
    await said(page, "The avatar pauses")
    assert [url.rpartition("/")[2] for url in asked if "/api/commands/" in url] == ["pause"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_nothing_is_cut_off(demo, scheme):
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with browser() as launched, page_of(launched, **options) as page:
        await page.goto(demo.url)
        await face(page)
        assert await page.evaluate("() => document.documentElement.scrollWidth") <= 360
        for part in ("start", "mute", "pause", "continue", "interrupt", "timeline", "log"):
            box = await page.locator(f"#{part}").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
        assert (
            await page.evaluate("() => getComputedStyle(document.querySelector('.dot')).animationName") == "none"
        )
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / f"voice-phone-{scheme}.png", full_page=True)


async def test_a_second_tab_takes_over_and_the_first_one_says_so(demo, talking_page):
    await talking_page.goto(demo.url)
    await face(talking_page)
    async with page_of(talking_page.context.browser) as second:
        await second.goto(demo.url)
        await face(second)
        await expect(talking_page.locator("#notice")).to_contain_text("opened in another tab", timeout=PATIENCE_MS)


async def test_a_wrong_token_is_said(demo):
    async with browser() as launched:
        context = await launched.new_context()
        page = await context.new_page()  # which complains of the refusals
        await page.goto(demo.url[:-1])
        await expect(page.locator("#notice")).to_contain_text("no valid token", timeout=PATIENCE_MS)
        await context.close()


async def test_the_page_says_that_the_demo_is_gone_and_how_to_start_it(livekit):
    async with browser() as launched:
        context = await launched.new_context()
        page = await context.new_page()  # whose complaints about a lost server are right
        with voice_demo(livekit) as running:
            await page.goto(running.url)
            await face(page)
        await expect(page.locator("#notice")).to_contain_text("make demo-voice", timeout=PATIENCE_MS)
        await context.close()
