"""The page to watch on, in a real browser, with real media from a real room."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from livekit import api
from playwright.async_api import Page, expect

from testkit import processes

pytestmark = pytest.mark.timeout(180)

PATIENCE_MS = 30_000
PICTURES = Path(__file__).parents[2] / "out" / "browser"
QUIET = 3
"""The meter's reading, of 100, below which nothing is heard: -58 dB of full scale."""
LOUD = 45
"""And the one that speech exceeds: -33 dB."""
WINDOW_S = 3.0


async def level(page: Page) -> int:
    return int(await page.get_by_role("meter", name="Voice").get_attribute("aria-valuenow"))


async def levels(page: Page, seconds: float) -> list[int]:
    """The meter, as often as the page writes it for screen readers."""
    seen, until_s = [], time.monotonic() + seconds
    while time.monotonic() < until_s:
        seen.append(await level(page))
        await asyncio.sleep(0.1)
    return seen


async def until_level(page: Page, holds) -> int:
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while not holds(found := await level(page)):
            await asyncio.sleep(0.05)
    return found


async def frames_per_second(page: Page) -> float:
    """Decoded and not dropped, over some seconds of the page's own clock."""
    reading = """() => {
        const quality = document.querySelector("video").getVideoPlaybackQuality();
        return [quality.totalVideoFrames - quality.droppedVideoFrames, performance.now() / 1000];
    }"""
    frames, at_s = await page.evaluate(reading)
    await asyncio.sleep(WINDOW_S)
    later_frames, later_s = await page.evaluate(reading)
    return (later_frames - frames) / (later_s - at_s)


def state(page: Page):
    return page.locator("#state")


async def joined(page: Page) -> None:
    """Wait until the picture is there."""
    await expect(page.locator("#connection")).to_have_text("Connected", timeout=PATIENCE_MS)
    await expect(page.locator("#notice")).to_be_hidden(timeout=PATIENCE_MS)


@pytest.mark.long
async def test_the_face_is_seen_and_the_voice_is_heard(roomy, speaking, page, speech):
    await page.goto(f"{roomy.url}/viewer")
    await expect(page.get_by_text("No session is running")).to_be_visible()
    async with speaking(roomy) as avatar:
        await joined(page)
        await expect(page.locator("#session")).to_have_text(avatar.id[:8])
        await expect(state(page)).to_have_text("Idle")
        # A voice that was connected this moment may click.
        await until_level(page, lambda heard: heard <= QUIET)
        assert max(await levels(page, 1.5)) <= QUIET
        await avatar.send("agent.start_listening")
        await expect(state(page)).to_have_text("Listening")
        await avatar.send("agent.stop_listening")
        await expect(state(page)).to_have_text("Idle")

        await avatar.say(speech)
        await expect(state(page)).to_have_text("Talking", timeout=PATIENCE_MS)
        assert max(await levels(page, 4)) >= LOUD
        PICTURES.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=PICTURES / "viewer-talking.png")
        await expect(state(page)).to_have_text("Idle", timeout=PATIENCE_MS)
        await until_level(page, lambda heard: heard <= QUIET)

        async with asyncio.timeout(PATIENCE_MS / 1000):  # a busy machine may need more than one window
            while (rate := await frames_per_second(page)) <= 15:
                pass
        assert rate <= 31
        assert await page.evaluate("() => [video.videoWidth, video.videoHeight]") == [1280, 720]
        shown = re.fullmatch(r"1280 \S 720, (\d+) fps", await page.locator("#picture").inner_text())
        assert shown
        assert abs(int(shown[1]) - rate) < 10


async def test_the_end_is_told_and_the_next_session_is_followed(roomy, speaking, page):
    await page.goto(f"{roomy.url}/viewer")
    async with speaking(roomy, quality="low") as first:
        await joined(page)
        assert await page.evaluate("() => video.videoHeight") == 360
    over = page.get_by_role("status").filter(has_text=f"Session {first.id[:8]} is over")
    await expect(over).to_be_visible(timeout=PATIENCE_MS)
    await expect(over).to_contain_text("USER_CLOSED")
    await expect(state(page)).to_have_text("Ended")
    await expect(page.locator("#connection")).to_have_text("Not connected")
    async with speaking(roomy) as second:
        await joined(page)
        await expect(page.locator("#session")).to_have_text(second.id[:8])


async def test_a_session_that_was_asked_for_is_kept_although_a_newer_one_runs(roomy, speaking, page):
    async with speaking(roomy) as first, speaking(roomy) as second:
        await page.goto(f"{roomy.url}/viewer?session={first.id}")
        await joined(page)
        await expect(page.locator("#session")).to_have_text(first.id[:8])
        picker = page.get_by_label("Watch")
        await expect(picker).to_have_value(first.id)
        await picker.select_option("Newest session")
        await expect(page.locator("#session")).to_have_text(second.id[:8])
        await joined(page)
        await picker.select_option(first.id[:8])
        await expect(page.locator("#session")).to_have_text(first.id[:8])
        await joined(page)


async def test_sound_is_turned_on_by_a_click_where_the_browser_wants_one(roomy, speaking, shy_page, speech):
    page = shy_page
    await page.goto(f"{roomy.url}/viewer")
    async with speaking(roomy) as avatar:
        await joined(page)
        sound = page.get_by_role("button", name="Turn on sound")
        await expect(sound).to_be_visible()
        await avatar.say(speech)
        await expect(state(page)).to_have_text("Talking", timeout=PATIENCE_MS)
        assert max(await levels(page, 1)) == 0
        await sound.press("Enter")
        await expect(sound).to_be_hidden()
        await until_level(page, lambda heard: heard >= LOUD)
        mute = page.get_by_role("button", name="Mute", exact=True)
        await mute.click()
        assert await page.evaluate("() => audio.muted")
        await page.get_by_role("button", name="Unmute").click()
        assert not await page.evaluate("() => audio.muted")


async def test_a_watcher_may_only_watch(roomy, livekit, speaking, page):
    await page.goto(f"{roomy.url}/viewer")
    async with speaking(roomy) as avatar:
        await joined(page)
        seat = roomy.http.get(f"/_emulator/sessions/{avatar.id}/viewer").raise_for_status().json()
        assert seat["room"].endswith(avatar.id)
        grants = api.TokenVerifier(livekit.api_key, livekit.api_secret).verify(seat["token"]).video
        assert grants.can_subscribe
        assert grants.hidden
        assert not grants.can_publish
        assert not grants.can_publish_data
        rooms = api.LiveKitAPI(livekit.url.replace("ws", "http", 1), livekit.api_key, livekit.api_secret)
        async with rooms:
            inside = await rooms.room.list_participants(api.ListParticipantsRequest(room=seat["room"]))
        assert len(inside.participants) == 2
        assert seat["token"] not in roomy.process.log


@pytest.fixture(scope="module")
def roomless() -> Iterator[processes.Emulator]:
    with processes.emulator() as found:
        yield found


async def test_without_a_room_the_page_says_how_to_get_one(roomless, page):
    await page.goto(f"{roomless.url}/viewer")
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("No LiveKit server")
    await expect(notice).to_contain_text("--livekit-url ws://127.0.0.1:7880")
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / "viewer-no-room.png")


async def test_on_a_phone_nothing_is_cut_off(roomless, page):
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.goto(f"{roomless.url}/viewer")
    await expect(page.locator("#set-up")).to_be_visible()
    wide = await page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= 360
    for part in ("notice", "set-up"):
        assert await page.evaluate(
            f"() => ((e) => e.scrollHeight <= e.clientHeight)(document.getElementById('{part}'))"
        )
    for part in (page.locator("#set-up"), page.get_by_label("Watch"), page.locator("#running")):
        box = await part.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / "viewer-phone.png", full_page=True)
