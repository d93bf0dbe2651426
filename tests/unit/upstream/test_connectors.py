"""Connectors as LiveAvatar's API takes them."""

import pytest

from liveavatar_gateway.upstream.connectors import Connector, ConnectorKind

SECRET = "7f1d0f9e-8a3c-4b7e-9d55-0c2f6a1e4b22"


@pytest.mark.parametrize("kind", ConnectorKind)
def test_what_is_not_set_is_left_to_liveavatar(kind):
    assert Connector(kind=kind, secret_id=SECRET).body() == {"secret_id": SECRET}


def test_the_voice_has_the_name_of_its_provider():
    agent = Connector(
        kind=ConnectorKind.ELEVENLABS_AGENT,
        secret_id=SECRET,
        agent_id="a",
        voice="v",
        dynamic_variables={"name": "Ann", "known": False, "visits": 0},
    )
    assert agent.body() == {
        "secret_id": SECRET,
        "agent_id": "a",
        "voice_id": "v",
        "dynamic_variables": {"name": "Ann", "known": False, "visits": 0},
    }
    gemini = Connector(
        kind=ConnectorKind.GEMINI_REALTIME, secret_id=SECRET, context_id="c", voice="v", model="m", temperature=0.0
    )
    assert gemini.body() == {
        "secret_id": SECRET,
        "context_id": "c",
        "voice": "v",
        "model": "m",
        "temperature": 0.0,
    }


def test_variables_are_neither_shown_stored_nor_compared():
    agent = Connector(
        kind=ConnectorKind.ELEVENLABS_AGENT, secret_id=SECRET, agent_id="a", dynamic_variables={"name": "Ann"}
    )
    assert "Ann" not in repr(agent)
    stored = agent.without_secrets
    assert stored.dynamic_variables == {}
    assert stored == agent
