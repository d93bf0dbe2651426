"""Limits that callers are sent."""

from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.rpc.config import RpcConfig, audio_limits


def test_the_limits_of_audio_are_those_of_the_core():
    speech = SpeechConfig()
    limits = audio_limits(RpcConfig(speech=speech, max_chunk_bytes=1000))
    assert limits.max_chunk_bytes == 1000
    assert limits.max_buffered.ToTimedelta().total_seconds() == speech.max_buffered_s
    assert limits.max_lead.ToTimedelta().total_seconds() == speech.scheduler.max_lead_s
