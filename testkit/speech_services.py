"""Stand-ins of speech and language services, by their published wire formats: OpenAI, ElevenLabs and Deepgram.

They answer with what a test says, check what they are sent, and keep it.
"""

import asyncio
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

Secret: TypeAlias = Annotated[str | None, Header()]
KEYS = {"openai": "sk-test", "elevenlabs": "xi-test", "deepgram": "dg-test"}


@dataclass
class SpeechServices:
    """Answers of the stand-ins, and the requests that they got."""

    heard: str = "what time is it"
    """Transcript of all audio."""
    reply: str = "It is noon. Anything else?"
    """Completion of all chats."""
    voice: bytes = bytes(48_000)
    """Audio of all sentences: 24 kHz mono 16-bit PCM."""
    port: int = 0
    chats: list[list[dict[str, str]]] = field(default_factory=list)
    """Messages of each chat completion."""
    sentences: list[tuple[str, str]] = field(default_factory=list)
    """Service and text of each request for speech."""
    recognized: list[tuple[str, bytes]] = field(default_factory=list)
    """Service and audio, 16 kHz mono 16-bit PCM, of each transcription."""

    def environment(self, *services: str) -> dict[str, str]:
        """Return the variables with which `examples/agent.py` uses some of the stand-ins."""
        found = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1",
            "ELEVENLABS_BASE_URL": f"http://127.0.0.1:{self.port}",
            "DEEPGRAM_URL": f"ws://127.0.0.1:{self.port}/v1/listen",
        }
        return found | {f"{service.upper()}_API_KEY": KEYS[service] for service in services}


def application(services: SpeechServices) -> FastAPI:  # noqa: C901  five small services
    app = FastAPI()

    def require(given: str | None, expected: str) -> None:
        if given != expected:
            raise HTTPException(401, {"message": "Incorrect API key provided"})

    @app.post("/v1/chat/completions")
    async def complete(request: Request, authorization: Secret = None) -> StreamingResponse:
        require(authorization, f"Bearer {KEYS['openai']}")
        body = await request.json()
        if not body.get("model") or not body.get("stream"):
            raise HTTPException(400, {"message": "this stand-in streams, and needs a model"})
        services.chats.append(body["messages"])
        return StreamingResponse(_chunks(services.reply, body["model"]), media_type="text/event-stream")

    @app.post("/v1/audio/transcriptions")
    async def transcribe(request: Request, authorization: Secret = None) -> dict[str, Any]:
        require(authorization, f"Bearer {KEYS['openai']}")
        # The form is read by hand: a parser would be another dependency.
        body = await request.body()
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
        found = {head.split(b'name="')[1].split(b'"')[0].decode(): data[:-2] for head, _, data in parts}
        if not found.get("model"):
            raise HTTPException(400, {"message": "you must provide a model parameter"})
        with wave.open(io.BytesIO(found["file"])) as file:
            if file.getparams()[:3] != (1, 2, 16_000):
                raise HTTPException(400, {"message": f"unexpected audio {file.getparams()}"})
            services.recognized.append(("openai", file.readframes(file.getnframes())))
        return {"text": services.heard, "usage": {"type": "tokens", "total_tokens": 12}}

    @app.post("/v1/audio/speech")
    async def speak(request: Request, authorization: Secret = None) -> StreamingResponse:
        require(authorization, f"Bearer {KEYS['openai']}")
        body = await request.json()
        if not body.get("voice") or not body.get("model") or body.get("response_format") != "pcm":
            raise HTTPException(400, {"message": "this stand-in has pcm alone, and needs a model and a voice"})
        services.sentences.append(("openai", body["input"]))
        return StreamingResponse(_pieces(services.voice), media_type="audio/pcm")

    @app.post("/v1/text-to-speech/{voice_id}/stream")
    async def stream_speech(
        request: Request, voice_id: str, output_format: str, xi_api_key: Secret = None
    ) -> StreamingResponse:
        require(xi_api_key, KEYS["elevenlabs"])
        body = await request.json()
        if output_format != "pcm_24000" or not voice_id or not body.get("model_id"):
            raise HTTPException(422, {"message": "this stand-in has pcm_24000 alone, and needs a model"})
        services.sentences.append(("elevenlabs", body["text"]))
        return StreamingResponse(_pieces(services.voice), media_type="audio/pcm")

    @app.websocket("/v1/listen")
    async def listen(socket: WebSocket, encoding: str, sample_rate: int, channels: int = 1) -> None:
        if socket.headers.get("authorization") != f"Token {KEYS['deepgram']}":
            await socket.close(1008)
            return
        await socket.accept()
        audio = bytearray()
        while (message := await socket.receive())["type"] == "websocket.receive":
            if message.get("bytes") is not None:
                audio += message["bytes"]
            elif json.loads(message["text"])["type"] == "CloseStream":
                break
        assert (encoding, sample_rate, channels) == ("linear16", 16_000, 1)
        services.recognized.append(("deepgram", bytes(audio)))
        first, _, rest = services.heard.partition(" ")
        await socket.send_json(_result(first, len(audio) / 64_000, is_final=False))
        for text in (first, rest, ""):
            await socket.send_json(_result(text, len(audio) / 64_000, is_final=True))
        await socket.send_json({"type": "Metadata", "channels": 1, "duration": len(audio) / 32_000})
        await socket.close()

    return app


def _result(transcript: str, duration_s: float, *, is_final: bool) -> dict[str, Any]:
    words = [{"word": word, "start": 0.0, "end": duration_s, "confidence": 0.9} for word in transcript.split()]
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "start": 0.0,
        "duration": duration_s,
        "is_final": is_final,
        "speech_final": is_final,
        "channel": {"alternatives": [{"transcript": transcript, "confidence": 0.9, "words": words}]},
    }


async def _chunks(text: str, model: str) -> AsyncIterator[str]:
    """Yield a completion in pieces that end anywhere, also between two events."""
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model}
    pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices += [[{"index": 0, "delta": {}, "finish_reason": "stop"}], []]
    events = [json.dumps({**frame, "choices": choice}) for choice in choices]
    stream = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
    for at in range(0, len(stream), 100):
        yield stream[at : at + 100]
        await asyncio.sleep(0)


async def _pieces(audio: bytes) -> AsyncIterator[bytes]:
    """Yield audio in pieces that are cut inside samples."""
    for at in range(0, len(audio), 4_097):
        yield audio[at : at + 4_097]
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def speech_services(**answers: Any) -> AsyncIterator[SpeechServices]:
    """Serve the stand-ins on a free port of 127.0.0.1 until the end of the block."""
    services = SpeechServices(**answers)
    config = uvicorn.Config(application(services), host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    # The tests' own process handles its signals.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve(), name="speech-services")
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        services.port = server.servers[0].sockets[0].getsockname()[1]
        yield services
    finally:
        server.should_exit = True
        await serving
