"""LiveAvatar's own web SDK, unmodified, in a page of another origin than the emulator's."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.async_api import Page

from testkit import processes

pytestmark = pytest.mark.timeout(180)

PATIENCE_S = 30.0
AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"


def minted(emulator: processes.Emulator) -> str:
    """Return the session token that a page gets from its own backend."""
    answer = httpx.post(
        f"{emulator.url}/v1/sessions/token",
        json={"avatar_id": AVATAR, "mode": "LITE"},
        headers={"X-API-KEY": processes.API_KEY},
        trust_env=False,
    )
    return str(answer.raise_for_status().json()["data"]["session_token"])


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.05)


async def seen(page: Page, name: str, times: int = 1) -> None:
    """Wait until the SDK has told the page of something so often."""
    async with asyncio.timeout(PATIENCE_S):
        while await page.evaluate("name => call.seen.filter(one => one.name === name).length", name) < times:
            await asyncio.sleep(0.05)


async def test_the_vendors_web_sdk_starts_speaks_is_interrupted_and_stops(roomy, page, web_sdk_page, speech):
    await page.goto(web_sdk_page)
    session_id = await page.evaluate("([token, url]) => call.start(token, url)", [minted(roomy), roomy.url])
    await seen(page, "session.stream_ready")
    # The SDK has no gate of its own: what it sends before the session is ready vanishes, as on the service.
    await until(lambda: roomy.session(session_id)["phase"] == "ready")

    audio = base64.b64encode(speech[:96_000]).decode()
    await page.evaluate("audio => call.speak(audio)", audio)
    await seen(page, "avatar.speak_started")
    await page.evaluate("() => call.interrupt()")
    await until(lambda: roomy.session(session_id)["utterances"][0]["outcome"] == "interrupted")

    await page.evaluate("audio => call.speak(audio)", audio)
    await seen(page, "avatar.speak_ended")
    await page.evaluate("() => call.keepAlive()")
    heard = roomy.session(session_id)["utterances"]
    assert [one["outcome"] for one in heard] == ["interrupted", "ended"]
    assert roomy.utterance_audio(session_id, 1) == speech[:96_000]

    await page.evaluate("() => call.stop()")
    await until(lambda: roomy.session(session_id)["end_reason"] == "USER_CLOSED")
    await seen(page, "session.disconnected")
