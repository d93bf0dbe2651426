"""Bodies of refusals."""

from liveavatar_emulator import errors


def test_an_error_has_the_envelope_of_the_service():
    assert errors.not_found("Session").body() == {"code": 404, "data": None, "message": "Session not found"}
    assert errors.unauthorized("no").status == errors.unauthorized("no").code == 401
    assert str(errors.server_error()) == "500/500 Internal server error"


def test_a_field_error_names_field_and_value():
    body = errors.FieldError("avatar_id", "not yours", "v").body()
    assert body == {
        "code": 4000,
        "data": [{"loc": ["avatar_id"], "message": "not yours", "params": {"avatar_id": "v"}}],
        "message": "Bad request error",
    }
