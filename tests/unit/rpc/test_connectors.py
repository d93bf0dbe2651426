"""Connectors of the contract: each value is checked, and errors repeat no secret and no personal value."""

import pytest

from liveavatar.gateway.v1 import connector_pb2, session_pb2
from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.rpc import connectors
from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind

SECRET = "7F1D0F9E-8a3c-4b7e-9d55-0c2f6a1e4b22"


def spec(**fields) -> session_pb2.SessionSpec:
    return session_pb2.SessionSpec(**fields)


def refused(**fields) -> InvalidField:
    with pytest.raises(InvalidField) as error:
        connectors.connector(spec(**fields), "spec")
    return error.value


def test_a_session_without_a_connector_has_none():
    assert connectors.connector(spec(), "spec") is None


def test_defaults_are_left_to_liveavatar_and_ids_are_lower_case():
    found = connectors.connector(spec(openai_realtime=connector_pb2.OpenAIRealtime(secret_id=SECRET)), "spec")
    assert found == Connector(kind=ConnectorKind.OPENAI_REALTIME, secret_id=SECRET.lower())
    assert found.temperature is None


def test_a_temperature_of_zero_is_one():
    message = connector_pb2.GeminiRealtime(secret_id=SECRET, temperature=0.0)
    found = connectors.connector(spec(gemini_realtime=message), "spec")
    assert found is not None
    assert found.temperature == 0.0


def test_variables_keep_their_kind():
    agent = connector_pb2.ElevenLabsAgent(
        secret_id=SECRET,
        agent_id="a",
        dynamic_variables={
            "text": connector_pb2.DynamicVariable(text=""),
            "whole": connector_pb2.DynamicVariable(number=3.0),
            "part": connector_pb2.DynamicVariable(number=0.5),
            "huge": connector_pb2.DynamicVariable(number=1e300),
            "flag": connector_pb2.DynamicVariable(flag=False),
        },
    )
    found = connectors.connector(spec(elevenlabs_agent=agent), "spec")
    assert found is not None
    values = dict(found.dynamic_variables)
    assert values == {"text": "", "whole": 3, "part": 0.5, "huge": 1e300, "flag": False}
    assert [type(values[name]) for name in ("whole", "huge", "flag")] == [int, float, bool]


def test_a_key_in_place_of_a_secret_is_not_repeated():
    error = refused(cartesia_agent=connector_pb2.CartesiaAgent(secret_id="sk-canary", agent_id="a"))
    assert error.field == "spec.cartesia_agent.secret_id"
    assert "canary" not in f"{error.message}{error.metadata}"


@pytest.mark.parametrize(
    "variables",
    [
        {"": connector_pb2.DynamicVariable(text="canary")},
        {"n" * 65: connector_pb2.DynamicVariable(text="canary")},
        {"name": connector_pb2.DynamicVariable(text="canary" * 1000)},
        {"name": connector_pb2.DynamicVariable(number=float("nan"))},
        {"name": connector_pb2.DynamicVariable()},
        {f"v{n}": connector_pb2.DynamicVariable(text="canary") for n in range(33)},
    ],
    ids=["no name", "long name", "long text", "no number", "no value", "many"],
)
def test_a_wrong_variable_is_refused_without_its_value(variables):
    agent = connector_pb2.ElevenLabsAgent(secret_id=SECRET, agent_id="a", dynamic_variables=variables)
    error = refused(elevenlabs_agent=agent)
    assert error.field == "spec.elevenlabs_agent.dynamic_variables"
    assert "canary" not in f"{error.message}{error.metadata}"


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"livekit_room": session_pb2.LiveKitRoom(name="desk-7")}, "spec.gemini_realtime"),
        ({"agora_room": session_pb2.AgoraRoom(app_id="a")}, "spec.gemini_realtime"),
        ({"agent_seat": session_pb2.AGENT_SEAT_CALLER}, "spec.agent_seat"),
        ({"auto_rotate": True}, "spec.auto_rotate"),
    ],
)
def test_what_a_hosted_agent_excludes_is_named(other, field):
    assert refused(gemini_realtime=connector_pb2.GeminiRealtime(secret_id=SECRET), **other).field == field
