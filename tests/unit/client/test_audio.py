from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar.gateway import AudioEncoding, AudioFormat, AudioMisaligned
from liveavatar.gateway.audio import ChunkBuffer, encodings_from_proto
from liveavatar.gateway.v1 import audio_pb2

formats = st.builds(
    AudioFormat,
    encoding=st.sampled_from(AudioEncoding),
    sample_rate_hz=st.integers(1, 48_000),
    channel_count=st.integers(1, 2),
)


def test_the_default_is_what_liveavatar_takes():
    assert AudioFormat().bytes_per_second == 48_000
    assert AudioFormat().frame_bytes == 2
    assert AudioFormat().duration(24_000) == timedelta(seconds=0.5)
    assert AudioFormat().size_bytes(0.2) == 9600


def test_an_encoding_may_be_given_as_its_word():
    assert AudioFormat(encoding="mulaw").encoding is AudioEncoding.MULAW
    with pytest.raises(ValueError, match="mp3"):
        AudioFormat(encoding="mp3")


@pytest.mark.parametrize("wrong", [{"sample_rate_hz": 0}, {"channel_count": 0}])
def test_a_format_without_samples_is_refused(wrong):
    with pytest.raises(ValueError, match="invalid"):
        AudioFormat(**wrong)


@pytest.mark.parametrize("encoding", AudioEncoding)
def test_every_encoding_goes_over_the_wire_and_back(encoding):
    message = AudioFormat(encoding=encoding, sample_rate_hz=8000, channel_count=2).to_proto()
    assert (message.sample_rate_hz, message.channel_count) == (8000, 2)
    assert encodings_from_proto([message.encoding]) == (encoding,)


def test_every_encoding_of_the_contract_is_known():
    numbers = audio_pb2.AudioEncoding.values()
    assert set(encodings_from_proto(numbers)) == set(AudioEncoding)
    assert len(numbers) == len(AudioEncoding) + 1
    assert encodings_from_proto([99]) == ()


@given(formats, st.integers(0, 10_000))
def test_whole_is_the_most_frames_that_fit(audio_format, size):
    whole = audio_format.whole(size)
    assert 0 <= size - whole < audio_format.frame_bytes
    assert whole % audio_format.frame_bytes == 0
    audio_format.check_whole(whole)


def test_half_a_sample_is_refused_with_its_size():
    with pytest.raises(AudioMisaligned) as raised:
        AudioFormat().check_whole(961)
    assert raised.value.metadata == {"size_bytes": "961", "frame_bytes": "2"}


@given(formats, st.lists(st.binary(max_size=50)), st.lists(st.integers(-5, 60)), st.data())
def test_any_cut_yields_the_bytes_once_and_in_order(audio_format, pieces, limits, data):
    """Put in and taken out in any order and size: whole frames, within the limit, nothing lost or doubled."""
    buffer = ChunkBuffer(audio_format)
    given_bytes, taken = b"".join(pieces), b""
    waiting = list(pieces)
    while waiting or limits:
        if waiting and (not limits or data.draw(st.booleans())):
            buffer.put(waiting.pop(0))
        else:
            limit = limits.pop(0)
            chunk = buffer.take(limit)
            assert len(chunk) <= max(limit, 0)
            assert len(chunk) % audio_format.frame_bytes == 0
            taken += chunk
    rest = buffer.finish()
    while chunk := buffer.take(1000):
        taken += chunk
    assert buffer.exhausted
    assert buffer.size_bytes == rest == len(given_bytes) % audio_format.frame_bytes
    assert taken == given_bytes[: len(given_bytes) - rest]


def test_a_buffer_takes_anything_with_bytes():
    buffer = ChunkBuffer(AudioFormat())
    for piece in (b"ab", bytearray(b"cd"), memoryview(b"ef"), memoryview(b"gh").cast("h")):
        buffer.put(piece)
    assert buffer.take(100) == b"abcdefgh"
    assert not buffer.exhausted
    assert buffer.finish() == 0
    assert buffer.exhausted
