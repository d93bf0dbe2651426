"""Recorder of docs/voice-demo.png and docs/voice-demo.webm: a scripted conversation on the page of the voice demo.

PYTHONPATH=tests:. .venv/bin/python -m browser.record_voice
"""

import asyncio
import base64
import contextlib
import io
import tempfile
import time
from collections.abc import Awaitable
from fractions import Fraction
from pathlib import Path

import av
from browser.conftest import FLAGS, chromium
from browser.test_voice import face, said, voice_demo, write_microphone
from PIL import Image
from playwright.async_api import Error, Page, async_playwright

from liveavatar_demo.livekit_server import livekit_server

DOCS = Path(__file__).parents[2] / "docs"
SIZE = {"width": 960, "height": 1140}
FILM_S = 20.0
FRAMES_PER_S = 12
OPTIONS = {"crf": "36", "b": "0", "deadline": "realtime", "cpu-used": "8"}


class Film:
    """Screencast of a page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[float, bytes]] = []
        self._acks: list[asyncio.Future] = []

    async def begin(self) -> None:
        session = await self._page.context.new_cdp_session(self._page)

        def take(frame: dict) -> None:
            self._frames.append((time.monotonic(), base64.b64decode(frame["data"])))
            ack = session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})
            self._acks.append(asyncio.ensure_future(_sent(ack)))

        session.on("Page.screencastFrame", take)
        await session.send("Page.startScreencast", {"format": "jpeg", "quality": 90, "everyNthFrame": 2})

    def write(self, path: Path) -> None:
        """Write frames at a constant rate; each is the newest at its time."""
        began = self._frames[0][0]
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libvpx-vp9", rate=FRAMES_PER_S, options=OPTIONS)
            stream.width, stream.height, stream.pix_fmt = SIZE["width"], SIZE["height"], "yuv420p"
            place = 0
            for number in range(int(FILM_S * FRAMES_PER_S)):
                while (
                    place + 1 < len(self._frames) and self._frames[place + 1][0] - began <= number / FRAMES_PER_S
                ):
                    place += 1
                image = Image.open(io.BytesIO(self._frames[place][1])).convert("RGB")
                frame = av.VideoFrame.from_image(image.resize((SIZE["width"], SIZE["height"])))
                frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())


async def _sent(ack: Awaitable[object]) -> None:
    with contextlib.suppress(Error):  # the browser is being closed
        await ack


async def record(url: str, microphone: Path) -> None:
    flags = [
        *FLAGS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    ]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=flags)
        context = await browser.new_context(viewport=SIZE, color_scheme="light")
        page = await context.new_page()
        await page.goto(url)
        await face(page)
        film = Film(page)
        await film.begin()
        began_s = time.monotonic()
        await asyncio.sleep(1)
        await page.get_by_role("button", name="Start talking").click()
        await said(page, "The avatar answers")
        await asyncio.sleep(1)
        await page.keyboard.press("p")
        await said(page, "The avatar pauses")
        await asyncio.sleep(1.5)
        await page.keyboard.press("c")
        await said(page, "The avatar continues")
        await asyncio.sleep(1)
        png = await page.screenshot()
        await asyncio.sleep(max(0.0, FILM_S - (time.monotonic() - began_s)))
        await browser.close()
    Image.open(io.BytesIO(png)).convert("RGB").save(DOCS / "voice-demo.png", optimize=True)
    film.write(DOCS / "voice-demo.webm")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, livekit_server() as livekit, voice_demo(livekit) as demo:
        microphone = Path(folder) / "microphone.wav"
        write_microphone(microphone, silence_s=3.0, spoken_s=6.0)
        asyncio.run(record(demo.url, microphone))


if __name__ == "__main__":
    main()
