"""Input side of an audio format."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.sessions.audio_input import audio_input_of, load_conversion


@pytest.mark.parametrize("audio_format", [NATIVE_FORMAT, AudioFormat(Encoding.MULAW, 8_000, 1)])
def test_an_input_has_the_rate_and_the_name_of_its_format(audio_format):
    found = audio_input_of(audio_format, max_chunk_bytes=100)
    assert (found.byte_rate, found.frame_bytes) == (audio_format.byte_rate, audio_format.frame_bytes)
    assert (found.max_chunk_bytes, found.format) == (100, audio_format.name)


def test_each_utterance_gets_a_converter_of_its_own():
    found = audio_input_of(AudioFormat(Encoding.MULAW, 8_000, 1), max_chunk_bytes=100)
    assert found.new_converter() is not found.new_converter()


def test_a_file_is_detected_by_its_head():
    found = audio_input_of(NATIVE_FORMAT, max_chunk_bytes=100)
    head = b"RIFF\x24\x00\x00\x00WAVEfmt "
    assert found.may_be_container(head[:4])
    assert found.detect_container(head) is not None


def test_what_converts_audio_is_imported_beside_the_event_loop_and_never_for_native_audio():
    probe = (
        "import asyncio, sys, threading\n"
        "from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding\n"
        "from liveavatar_gateway.sessions.audio_input import audio_input_of, load_conversion\n"
        "audio_input_of(NATIVE_FORMAT, max_chunk_bytes=100).new_converter()\n"
        "assert 'numpy' not in sys.modules\n"
        "importers = set()\n"
        "sys.addaudithook(lambda event, args: event == 'import' and args[0] == 'numpy' "
        "and importers.add(threading.current_thread()))\n"
        "asyncio.run(load_conversion())\n"
        "assert importers and threading.main_thread() not in importers\n"
        "audio_input_of(AudioFormat(Encoding.ALAW, 8_000, 1), max_chunk_bytes=100).new_converter()\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)


async def test_once_imported_it_waits_for_no_thread():
    await load_conversion()
    released = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(executor)
        resolution = loop.run_in_executor(None, released.wait)
        try:
            async with asyncio.timeout(10):
                await load_conversion()
        finally:
            released.set()
            await resolution
