"""Audio track on a fake native queue: filled ahead, and taken back for a cut."""

import pytest

from liveavatar_emulator.avatar import tracks
from liveavatar_emulator.avatar.speech_renderer import RATE_HZ
from liveavatar_emulator.avatar_events import SpeechAudio, SpeechCut, SpeechStarted


class FakeSource:
    """A native queue that counts samples."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        self.samples = 0
        self.cleared = 0

    async def capture_frame(self, frame: object) -> None:
        self.samples += frame.samples_per_channel

    def clear_queue(self) -> None:
        self.cleared += 1


@pytest.fixture
def track(monkeypatch):
    monkeypatch.setattr(tracks.rtc, "AudioSource", FakeSource)
    return tracks.AudioTrack()


async def test_the_queue_is_filled_far_ahead_and_not_further(track):
    await track._fill()
    assert track._source.samples == round(tracks.LEAD_S * RATE_HZ)
    await track._fill()
    assert track._source.samples == round(tracks.LEAD_S * RATE_HZ)


async def test_speech_behind_a_cut_is_taken_back(track):
    epoch_s = track.renderer.epoch_s
    track.handle(SpeechAudio(0, b"\1\0" * RATE_HZ, None))
    track.handle(SpeechStarted(0, epoch_s))
    await track._fill()
    assert track.renderer.spoken == round(tracks.LEAD_S * RATE_HZ)
    track.handle(SpeechCut(0, epoch_s + 0.1))
    await track._fill()
    assert track._source.cleared == 1
    assert track.renderer.spoken == round(0.1 * RATE_HZ)


async def test_a_queue_that_runs_dry_within_speech_is_counted(track):
    track.handle(SpeechAudio(0, b"\1\0" * RATE_HZ, None))
    track.handle(SpeechStarted(0, track.renderer.epoch_s))
    await track._fill()
    track._account_played(tracks.LEAD_S + 0.25)
    assert track.missed_s == pytest.approx(0.25)


async def test_the_mouth_follows_the_audio_that_is_sent(track):
    assert track.mouth_now() == (0.0, 0.5)
    await track._fill()
    assert track.mouth_now() == (0.0, 0.5)
