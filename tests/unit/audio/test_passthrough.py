"""Audio in LiveAvatar's own format."""

from liveavatar_gateway.audio.passthrough import Passthrough


def test_native_audio_is_passed_on_untouched_and_uncopied():
    one = b"\x01\x02" * 480
    assert Passthrough().convert([one], last=False) is one
    assert Passthrough().convert([one, b"\x03\x04"], last=True) == one + b"\x03\x04"
    assert Passthrough().convert([], last=True) == b""
