"""Session requests from the body of a token call."""

import pytest
from fastapi.exceptions import RequestValidationError

from liveavatar_emulator.config import Settings
from liveavatar_emulator.errors import FieldError
from liveavatar_emulator.rest.token import TokenRequest

AVATAR = "0b1e6a52-6f0c-4f5e-9a51-3f3f2b6f1c11"
SECRET = "3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69"
ROOM = {"livekit_url": "wss://x", "livekit_room": "r", "livekit_client_token": "t"}
CHANNEL = {"agora_app_id": "a", "agora_token": "t", "agora_channel": "c", "agora_uid": "u"}


def body(**fields: object) -> TokenRequest:
    return TokenRequest.model_validate({"avatar_id": AVATAR, **fields})


@pytest.mark.parametrize(("sandbox", "asked", "limit"), [(False, None, 3600), (True, None, 60), (False, 5, 5)])
def test_the_plans_limit_is_the_default_duration(sandbox, asked, limit):
    request = body(is_sandbox=sandbox, max_session_duration=asked).session_request(Settings())
    assert request.max_session_duration == limit


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"mode": "FULL"}, RequestValidationError, None),
        ({"mode": "FULL", "avatar_persona": {}}, FieldError, "mode"),
        ({"livekit_config": ROOM, "agora_config": CHANNEL}, FieldError, "agora_config"),
        (
            {
                "elevenlabs_agent_config": {"secret_id": SECRET, "agent_id": "a"},
                "openai_realtime_config": {"secret_id": SECRET},
            },
            FieldError,
            "openai_realtime_config",
        ),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(fields, error, field):
    with pytest.raises(error) as refused:
        body(**fields).session_request(Settings())
    assert getattr(refused.value, "field", None) == field
