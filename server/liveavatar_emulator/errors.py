"""Refusals, and the three shapes in which the service words them.

    ApiError                 shape 1: {"code", "data": null, "message"}
    └── FieldError           shape 2: the same with data = [{"loc", "message", "params"}], HTTP 400
    (FastAPI's own 422)      shape 3: {"detail": [...]}, no envelope

Source: LiveAvatar API reference, error bodies. Where the service's `code` is not known (401, 404, 500), the
HTTP status stands in; 4290 for a rate limit is our own.
"""

from typing import Any

VALIDATION = 4000
NEEDS_PLAN = 4030
CONCURRENCY = 4032
NO_CREDITS = 4033
RATE_LIMIT = 4290


class ApiError(Exception):
    """Refusal of a REST call: HTTP status, business code, message for the caller, and headers of the response."""

    def __init__(self, status: int, code: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}/{code} {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return the response's JSON."""
        return {"code": self.code, "data": None, "message": self.message}


class FieldError(ApiError):
    """A 400 that names the offending field and value."""

    def __init__(self, field: str, message: str, value: Any) -> None:
        super().__init__(400, VALIDATION, message)
        self.field = field
        self.value = value

    def body(self) -> dict[str, Any]:
        """Return the response's JSON, with the field's path and value in `data`."""
        detail = {"loc": [self.field], "message": self.message, "params": {self.field: self.value}}
        return {"code": self.code, "data": [detail], "message": "Bad request error"}


def unauthorized(message: str) -> ApiError:
    """Return a 401: wrong, missing or wrong kind of credential."""
    return ApiError(401, 401, message)


def not_found(what: str) -> ApiError:
    """Return a 404 for a session or avatar that the caller cannot see."""
    return ApiError(404, 404, f"{what} not found")


def server_error() -> ApiError:
    """Return a 500 without a hint, the service's response to a start with an incomplete room token."""
    return ApiError(500, 500, "Internal server error")
