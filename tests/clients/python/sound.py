"""WAV files and voices for tests."""

import struct
from pathlib import Path

from liveavatar.gateway import AudioEncoding, AudioFormat

_TAGS = {
    AudioEncoding.PCM_S16LE: (1, 16),
    AudioEncoding.PCM_F32LE: (3, 32),
    AudioEncoding.ALAW: (6, 8),
    AudioEncoding.MULAW: (7, 8),
}


def wav(path: Path, samples: bytes, audio_format: AudioFormat, *, extra: bytes = b"") -> Path:
    """Write a WAV file, with chunks that a reader has to skip."""
    tag, bits = _TAGS[audio_format.encoding]
    header = struct.pack(
        "<HHIIHH",
        tag,
        audio_format.channel_count,
        audio_format.sample_rate_hz,
        audio_format.bytes_per_second,
        audio_format.frame_bytes,
        bits,
    )
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(header)) + header + extra
    body += b"data" + struct.pack("<I", len(samples)) + samples
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path
