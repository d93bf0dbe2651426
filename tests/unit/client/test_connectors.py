"""Connectors of the client as messages of the contract."""

from liveavatar.gateway import (
    CartesiaAgent,
    ElevenLabsAgent,
    GeminiRealtime,
    OpenAIRealtime,
    SessionOptions,
)
from liveavatar.gateway.v1 import connector_pb2

SECRET = "7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22"


def test_each_kind_becomes_its_message():
    elevenlabs = ElevenLabsAgent(
        secret_id=SECRET,
        agent_id="a",
        voice_id="v",
        dynamic_variables={"name": "Ann", "visits": 3, "score": 0.5, "known": True},
    )
    assert "Ann" not in repr(SessionOptions("avatar", connector=elevenlabs))
    assert SessionOptions("avatar", connector=elevenlabs).to_proto().elevenlabs_agent == (
        connector_pb2.ElevenLabsAgent(
            secret_id=SECRET,
            agent_id="a",
            voice_id="v",
            dynamic_variables={
                "name": connector_pb2.DynamicVariable(text="Ann"),
                "visits": connector_pb2.DynamicVariable(number=3),
                "score": connector_pb2.DynamicVariable(number=0.5),
                "known": connector_pb2.DynamicVariable(flag=True),
            },
        )
    )
    cartesia = SessionOptions("avatar", connector=CartesiaAgent(secret_id=SECRET, agent_id="a")).to_proto()
    assert cartesia.cartesia_agent == connector_pb2.CartesiaAgent(secret_id=SECRET, agent_id="a")
    assert cartesia.WhichOneof("connector") == "cartesia_agent"


def test_a_temperature_is_sent_only_if_it_is_set():
    zero = SessionOptions("avatar", connector=GeminiRealtime(secret_id=SECRET, temperature=0)).to_proto()
    assert zero.gemini_realtime.HasField("temperature")
    plain = SessionOptions("avatar", connector=OpenAIRealtime(secret_id=SECRET)).to_proto()
    assert not plain.openai_realtime.HasField("temperature")
    assert SessionOptions("avatar").to_proto().WhichOneof("connector") is None
