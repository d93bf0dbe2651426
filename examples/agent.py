"""Voice agent in three functions: `transcribe`, `answer` and `speak`. README.md says how to run it.

Each function works offline, and with a service where its key is set: DEEPGRAM_API_KEY or OPENAI_API_KEY for speech
to text, OPENAI_API_KEY for the language model, ELEVENLABS_API_KEY or OPENAI_API_KEY for text to speech.
"""

import asyncio
import io
import json
import os
import re
import time
import wave
from collections.abc import AsyncIterator, Callable

import httpx
from websockets.asyncio.client import connect

from liveavatar.gateway import AsyncClient, AsyncSession, AsyncUserTurn, AudioFormat, OutcomeKind

GATEWAY = os.environ.get("GATEWAY_ADDRESS", "localhost:50051")
AVATAR = os.environ.get("LIVEAVATAR_AVATAR_ID", "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11")
OPENAI = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
ELEVENLABS = os.environ.get("ELEVENLABS_BASE_URL", "https://api.elevenlabs.io")
DEEPGRAM = os.environ.get("DEEPGRAM_URL", "wss://api.deepgram.com/v1/listen")
OPENAI_KEY, ELEVENLABS_KEY = os.environ.get("OPENAI_API_KEY"), os.environ.get("ELEVENLABS_API_KEY")
DEEPGRAM_KEY = os.environ.get("DEEPGRAM_API_KEY")
BEARER = {"Authorization": f"Bearer {OPENAI_KEY}"}
VOICE = AudioFormat(sample_rate_hz=24_000 if ELEVENLABS_KEY or OPENAI_KEY else 22_050)

PROMPT = "You are a friendly avatar in a spoken conversation. Answer in one to three short sentences."
STORY = "Once upon a time a parrot lived on a ship. Every night it told the stars about the sea. " * 3
ANSWERS: dict[str, Callable[[], str]] = {
    "hello": lambda: "Hello. How are you?",
    "what is your name": lambda: "My name is Ada.",
    "what time is it": lambda: f"It is {time.strftime('%H:%M')}.",
    "tell me a story": lambda: STORY,
    "goodbye": lambda: "Goodbye.",
}


async def transcribe(turn: AsyncUserTurn, web: httpx.AsyncClient) -> str:
    """Return the words of a turn."""
    if DEEPGRAM_KEY:  # streams while the user speaks
        url = f"{DEEPGRAM}?model=nova-3&encoding=linear16&sample_rate={turn.format.sample_rate_hz}&channels=1"
        headers = {"Authorization": f"Token {DEEPGRAM_KEY}"}
        async with connect(url, additional_headers=headers) as socket, asyncio.TaskGroup() as tasks:

            async def send() -> None:
                async for chunk in turn:
                    await socket.send(chunk)
                await socket.send(json.dumps({"type": "CloseStream"}))

            tasks.create_task(send())
            results = [json.loads(message) async for message in socket]
        final = [result["channel"] for result in results if result["type"] == "Results" and result["is_final"]]
        return " ".join(filter(None, (channel["alternatives"][0]["transcript"] for channel in final)))
    audio = await turn.complete()
    if not OPENAI_KEY:
        return await asyncio.to_thread(recognize, audio)
    with wave.open(file := io.BytesIO(), "wb") as wav:
        wav.setparams((1, 2, turn.format.sample_rate_hz, 0, "NONE", ""))
        wav.writeframes(audio)
    form, files = {"model": "gpt-4o-mini-transcribe"}, {"file": ("turn.wav", file.getvalue())}
    response = await web.post(f"{OPENAI}/audio/transcriptions", headers=BEARER, data=form, files=files)
    return str(response.raise_for_status().json()["text"])


async def answer(history: list[dict[str, str]], web: httpx.AsyncClient) -> AsyncIterator[str]:
    """Yield the sentences of the reply to the last message."""
    if not OPENAI_KEY:
        yield ANSWERS.get(history[-1]["content"], lambda: "Sorry, I did not understand you.")()
        return
    text, body = "", {"model": "gpt-4o-mini", "messages": history, "stream": True}
    async with web.stream("POST", f"{OPENAI}/chat/completions", headers=BEARER, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text += "".join(choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"])
                *sentences, text = re.split(r"(?<=[.!?])\s", text)
                for sentence in sentences:
                    yield sentence
    yield text


async def speak(sentence: str, web: httpx.AsyncClient) -> AsyncIterator[bytes]:
    """Yield the audio of a sentence in the format VOICE, as it is made."""
    if ELEVENLABS_KEY:
        url = f"{ELEVENLABS}/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream?output_format=pcm_24000"
        headers, body = {"xi-api-key": ELEVENLABS_KEY}, {"text": sentence, "model_id": "eleven_flash_v2_5"}
    elif OPENAI_KEY:
        url, headers = f"{OPENAI}/audio/speech", BEARER
        body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": sentence, "response_format": "pcm"}
    else:
        pipe = asyncio.subprocess.PIPE
        espeak = await asyncio.create_subprocess_exec("espeak-ng", "--stdout", "--stdin", stdin=pipe, stdout=pipe)
        yield (await espeak.communicate(sentence.encode()))[0][44:]  # behind the WAV header
        return
    async with web.stream("POST", url, headers=headers, json=body) as response:
        response.raise_for_status()
        async for audio in response.aiter_bytes():
            yield audio


def recognize(audio: bytes) -> str:
    """Return the question of `ANSWERS` that was asked."""
    from pocketsphinx import Decoder  # noqa: PLC0415  the services do without

    decoder = Decoder(lm=None, samprate=16_000, loglevel="FATAL")
    decoder.add_jsgf_string("questions", f"#JSGF V1.0; grammar q; public <q> = {' | '.join(ANSWERS)};")
    decoder.activate_search("questions")
    decoder.start_utt()
    decoder.process_raw(audio, full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr if decoder.hyp() else ""


async def reply(history: list[dict[str, str]], web: httpx.AsyncClient) -> AsyncIterator[bytes]:
    """Yield the audio of the reply, and note its text in the history."""
    history.append(said := {"role": "assistant", "content": ""})
    async for sentence in answer(history[:-1], web):
        said["content"] += f"{sentence} "
        async for audio in speak(sentence, web):
            yield audio


async def converse(session: AsyncSession, web: httpx.AsyncClient) -> None:
    """Answer the turns of the session's users, until the session ends."""
    history, speech = [{"role": "system", "content": PROMPT}], None
    async for turn in session.user_turns():
        if speech and speech.outcome and speech.outcome.kind is OutcomeKind.INTERRUPTED:
            history.append({"role": "system", "content": f"You were interrupted after {speech.outcome.played}."})
        if text := await transcribe(turn, web):
            print(f"user: {text}", flush=True)
            history.append({"role": "user", "content": text})
            speech = session.say(reply(history, web), format=VOICE)


async def main() -> None:
    """Open a session, and converse."""
    client = AsyncClient(GATEWAY, credentials=os.environ.get("GATEWAY_API_KEY"))
    async with httpx.AsyncClient(timeout=30) as web, client, client.open_session(AVATAR) as session:
        await session.ready()
        print(f"join {session.room.url} with the token {session.room.viewer_token}", flush=True)
        await converse(session, web)


if __name__ == "__main__":
    asyncio.run(main())
