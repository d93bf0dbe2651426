"""Input side of an audio format."""

import pytest

from liveavatar_gateway.audio.formats import NATIVE_FORMAT, AudioFormat, Encoding
from liveavatar_gateway.sessions.audio_input import audio_input_of


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
