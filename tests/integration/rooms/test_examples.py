"""The examples run as they stand: a user joins the room that they print, speaks, and is answered."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from testkit import processes, spoken
from testkit.checkout import PYTHONPATH
from testkit.pitch import FRAME_S, pitches
from testkit.speech_services import speech_services
from testkit.talker import RATE_HZ, Talker, talking

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def gateway(rooms):
    with processes.gateway(rooms.url, detach_grace_s=60) as found:
        yield found


class Example:
    """Running example, and the user in its room."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.user: Talker
        self._process = process

    async def line(self, pattern: str, *, seconds: float = 90.0) -> re.Match[str]:
        """Read its output up to a line of this kind."""
        async with asyncio.timeout(seconds):
            read = ""
            while line := (await self._process.stdout.readline()).decode():
                read += line
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"no {pattern!r} in {read!r}: {(await self._process.stderr.read()).decode()}")

    async def ask(self, text: str, pattern: str) -> None:
        """Say a sentence until it has an effect: the first ones come before the example has joined the room."""
        for _ in range(12):
            await self.user.say(said(text))
            with contextlib.suppress(TimeoutError):
                await self.line(pattern, seconds=10)
                return
        raise AssertionError(f"no {pattern!r} after {text!r}")


@contextlib.asynccontextmanager
async def running(name: str, gateway: processes.Gateway, **variables: str) -> AsyncIterator[Example]:
    """Run an example until the end of the block, with a user in its room."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment |= {"GATEWAY_ADDRESS": gateway.address, "PYTHONPATH": PYTHONPATH, **variables}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), stdout=pipe, stderr=pipe, env=environment
    )
    try:
        example = Example(process)
        url, token = (await example.line(r"join (\S+) with the token (\S+)")).groups()
        async with talking(url, token) as example.user:
            yield example
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def said(text: str) -> np.ndarray:
    return spoken.sentence(text, rate_hz=RATE_HZ)


@pytest.mark.parametrize("name", ["parrot.py", "agent.py"])
def test_an_example_is_short(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 150


def test_the_readme_names_each_example_and_its_packages():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(path.name in readme for path in EXAMPLES.glob("*.py"))
    for variable in re.findall(r'environ\.get\("(\w+)"', (EXAMPLES / "agent.py").read_text(encoding="utf-8")):
        assert variable in readme, variable


async def test_the_parrot_repeats_and_falls_silent(gateway):
    async with running("parrot.py", gateway) as parrot:
        await parrot.ask("Pieces of eight, and a bottle of rum for the parrot.", "viewer spoke for")
        await parrot.user.until_loud()
        long = "Pieces of eight, and a bottle of rum, and whatever else there is for the parrot."
        await parrot.ask(f"{long} {long}", "viewer spoke for")
        await parrot.user.until_loud()
        await parrot.ask("Stop it at once, please, I have heard enough of this.", "viewer interrupted after")


async def test_the_agent_answers_offline_and_may_be_interrupted(gateway):
    async with running("agent.py", gateway) as agent:
        await agent.ask("tell me a story", "user: tell me a story")
        await agent.user.until_loud()
        await agent.ask("what is your name", "user: what is your name")
        await agent.user.until_loud()


@pytest.mark.parametrize(
    ("keys", "recognizer", "speaker"),
    [
        (["openai"], "openai", "openai"),
        (["openai", "deepgram", "elevenlabs"], "deepgram", "elevenlabs"),
    ],
    ids=["OpenAI alone", "Deepgram, OpenAI and ElevenLabs"],
)
async def test_the_agent_speaks_with_services(gateway, keys, recognizer, speaker):
    times = np.arange(24_000) / 24_000
    voice = (np.sin(2 * np.pi * 500 * times) * 9_000).astype("<i2").tobytes()
    async with speech_services(voice=voice) as services:
        async with running("agent.py", gateway, **services.environment(*keys)) as agent:
            await agent.ask("what time is it now in London", "user: what time is it$")
            await agent.user.until_loud()
            async with asyncio.timeout(60):
                while np.sum(pitches(agent.user.pcm, 24_000) == 500) * FRAME_S < 1.5:
                    await asyncio.sleep(0.05)
        assert {service for service, _ in services.recognized} == {recognizer}
        assert max(len(audio) for _, audio in services.recognized) > 32_000
        assert services.sentences[:2] == [(speaker, "It is noon."), (speaker, "Anything else?")]
        system, user = services.chats[0][:2]
        assert (system["role"], user) == ("system", {"role": "user", "content": "what time is it"})


async def test_a_wrong_key_of_a_service_ends_the_agent_with_an_error(gateway):
    async with speech_services() as services:
        variables = {**services.environment("openai"), "OPENAI_API_KEY": "wrong"}
        async with running("agent.py", gateway, **variables) as agent:
            with pytest.raises(AssertionError, match="401"):
                await agent.ask("what time is it now in London", "user:")
