"""Round trip with a browser as the user: Chromium speaks from a file in place of a microphone, and hears."""

import asyncio
import base64
import contextlib
import random
import tempfile
import wave
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import numpy as np
import soxr
from playwright.async_api import Browser, async_playwright

from acceptance.line import Line, Outcome, Setting
from acceptance.voice.parrot import ANSWERED_S, parrot_of
from acceptance.voice.round_trip import MIN_CORRELATION, MIN_ENVELOPE
from acceptance.voice.stage import stage
from liveavatar.gateway import AsyncClient
from testkit.browsers import FLAGS, HEARS, chromium
from testkit.caller import AVATAR
from testkit.checkout import ROOT
from testkit.likeness import likeness
from testkit.rooms import recorded_speech
from testkit.watcher import RATE_HZ

PICTURE: Final = ROOT / "out" / "acceptance" / "voice.png"
_SDK: Final = ROOT / "viewer/node_modules/livekit-client/dist/livekit-client.umd.js"
_PAGE: Final = Path(__file__).with_name("user_page.html")
_MOUTH_HZ: Final = 48_000
_BEFORE_S: Final = 4.0
"""Silence at the begin of the file, in which the browser joins the room."""
_AFTER_S: Final = 90.0
"""Silence at its end, behind which Chromium repeats the last samples for good."""
_SENTENCE_S: Final = 3.0
_TAIL_S: Final = 1.0
_TIMEOUT_MS: Final = 30_000
_SIZE: Final = {"width": 1040, "height": 860}


class _QuietFiles(SimpleHTTPRequestHandler):
    """Serve files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _user_page(folder: Path) -> Iterator[str]:
    """Serve the page of the user with LiveKit's SDK; yields its address."""
    if not _SDK.is_file():
        raise FileNotFoundError(f"{_SDK} is missing; this installs it: make viewer")
    folder.mkdir()
    (folder / "index.html").write_bytes(_PAGE.read_bytes())
    (folder / _SDK.name).write_bytes(_SDK.read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietFiles, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, name="user-page")
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def _write_microphone(path: Path, said: np.ndarray) -> None:
    """Write what the microphone of the browser is to hear."""
    before, after = (np.zeros(round(seconds * _MOUTH_HZ)) for seconds in (_BEFORE_S, _AFTER_S))
    samples = np.concatenate([before, soxr.resample(said, RATE_HZ, _MOUTH_HZ), after])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_MOUTH_HZ)
        file.writeframes(np.clip(samples, -32_768, 32_767).astype("<i2").tobytes())


@contextlib.asynccontextmanager
async def _browser(microphone: Path) -> AsyncIterator[Browser]:
    flags = (
        *FLAGS,
        HEARS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
    )
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium(), args=list(flags))
        try:
            yield launched
        finally:
            await launched.close()


async def _run(setting: Setting) -> Outcome:
    rng = random.Random(setting.seed)
    pcm = recorded_speech(rng.choice(("greeting", "story")), _SENTENCE_S, rng.uniform(0.0, 5.0))
    said = np.frombuffer(pcm, "<i2").astype(float)
    with tempfile.TemporaryDirectory() as name, stage(video=True) as at:
        microphone = Path(name, "microphone.wav")
        _write_microphone(microphone, said)
        with _user_page(Path(name, "site")) as address:
            async with (
                AsyncClient(at.gateway.address) as client,
                client.open_session(AVATAR, quality="low", video_encoding="vp8") as session,
                parrot_of(session) as parrot,
                _browser(microphone) as launched,
            ):
                context = await launched.new_context(viewport=_SIZE)
                context.set_default_timeout(_TIMEOUT_MS)
                viewer, user = await context.new_page(), await context.new_page()
                await viewer.goto(f"{at.emulator.url}/viewer")
                await user.goto(address)
                await user.evaluate(
                    "([url, token]) => user.join(url, token)", [session.room.url, session.room.viewer_token]
                )
                async with asyncio.timeout(ANSWERED_S):
                    while not parrot.answers:
                        await asyncio.sleep(0.05)
                await parrot.answers[0].utterance.started()
                # Of the page in use: in the middle of the answer.
                await asyncio.sleep(_SENTENCE_S / 2)
                await viewer.bring_to_front()
                await viewer.screenshot(path=PICTURE)
                await parrot.answered(1)
                await asyncio.sleep(_TAIL_S)
                heard = np.frombuffer(base64.b64decode(await user.evaluate("() => user.heard()")), "<i2")
                await session.end()
    found = likeness(heard.astype(float), said, RATE_HZ)
    return Outcome(
        figure=f"correlation {found.median:.3f} over {len(found.windows)} windows, envelope {found.envelope:.3f}; "
        f"picture in {PICTURE.relative_to(ROOT)}",
        passed=found.median > MIN_CORRELATION or found.envelope > MIN_ENVELOPE,
    )


BROWSER: Final = Line(
    name="browser",
    goal=f"Chromium with a fake microphone hears itself: correlation > {MIN_CORRELATION:g}, or envelope > "
    f"{MIN_ENVELOPE:g}",
    run=_run,
    measures_time=True,
)
