"""Route class of all REST calls: rate limit, armed faults, error bodies and counters."""

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from liveavatar_emulator import errors
from liveavatar_emulator.auth import caller_name, calling_account, emulator_of
from liveavatar_emulator.faults import RestFault

_MEDIA_TYPES = {"<": "text/html", "{": "application/json", "[": "application/json"}
"""Media type of a false response, by the first character of its body."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an `application/json` response."""
    return Response(orjson.dumps(content), status_code=status, headers=headers, media_type="application/json")


class ServiceRoute(APIRoute):
    """Route whose name is the endpoint's name in faults, and whose path template is its rate limit counter."""

    def get_route_handler(self) -> Handler:
        """Wrap the framework's handler with rate limit, faults and log."""
        inner = super().get_route_handler()
        counter = f"{','.join(sorted(self.methods or ()))} {self.path_format}"
        endpoint = self.name

        async def handle(request: Request) -> Response:
            response = await _handle(request, inner, counter, endpoint)
            _log_call(request, endpoint, response)
            return response

        return handle


async def unmatched(request: Request, error: Exception) -> Response:
    """Respond to a path or method without an endpoint.

    Under /v1 the response has the service's envelope, and the call is counted as any other call.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    if not request.url.path.startswith("/v1/"):
        return await http_exception_handler(request, error)
    headers, rejection = _count(request, f"{request.method} elsewhere")
    refusal = errors.ApiError(
        error.status_code, error.status_code, str(error.detail), headers=dict(error.headers or {})
    )
    response = rejection or _refuse(request, refusal, headers)
    _log_call(request, "elsewhere", response)
    return response


def _count(request: Request, counter: str) -> tuple[dict[str, str], Response | None]:
    """Count the call against its caller's rate limit; returns headers, and the response of a rejected call."""
    emulator = emulator_of(request)
    account = calling_account(request)
    limit = emulator.settings.rate if account is None else account.rate(emulator.settings)
    if not limit:
        return {}, None
    verdict = emulator.rate_limiter.take(caller_name(request), counter, limit=limit, now_s=emulator.now_s())
    headers = verdict.headers()
    if verdict.allowed:
        return headers, None
    too_many = errors.ApiError(429, errors.RATE_LIMIT, "Rate limit exceeded")
    return headers, _refuse(request, too_many, headers)


async def _handle(request: Request, inner: Handler, counter: str, endpoint: str) -> Response:
    emulator = emulator_of(request)
    headers, rejection = _count(request, counter)
    if rejection is not None:
        return rejection
    account = calling_account(request)
    fault = emulator.faults.take_rest_fault(endpoint, None if account is None else account.name)
    if fault is None:
        return await _answer(request, inner, headers)
    executed = await _answer(request, inner, headers) if fault.after_effect else None
    response = await _fault_response(request, fault, headers) or executed or await _answer(request, inner, headers)
    return _truncated(response) if fault.truncate else response


def _truncated(response: Response) -> Response:
    """Return the response with its body cut in the middle, and with the length of the remaining half."""
    body = bytes(response.body)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(body[: len(body) // 2], response.status_code, headers)


def _log_call(request: Request, endpoint: str, response: Response) -> None:
    """Log a call with the code of its envelope, if any."""
    try:
        body = orjson.loads(bytes(response.body))
    except orjson.JSONDecodeError:
        body = None
    code = body.get("code") if isinstance(body, dict) else None
    emulator_of(request).log.append("rest", endpoint=endpoint, status=response.status_code, code=code)


async def _answer(request: Request, inner: Handler, headers: dict[str, str]) -> Response:
    try:
        response = await inner(request)
    except errors.ApiError as error:
        return _refuse(request, error, headers)
    except RequestValidationError as error:
        emulator_of(request).count_refusal(422, None)
        response = await request_validation_exception_handler(request, _redacted(request, error))
    response.headers.update(headers)
    return response


def _redacted(request: Request, error: RequestValidationError) -> RequestValidationError:
    """Return the error without the offending input where that input may contain a provider's key."""
    if request.scope["route"].name != "secrets":
        return error
    return RequestValidationError(
        [{key: value for key, value in item.items() if key not in ("input", "ctx")} for item in error.errors()]
    )


def _refuse(request: Request, error: errors.ApiError, headers: dict[str, str]) -> Response:
    emulator_of(request).count_refusal(error.status, error.code)
    return json_response(error.body(), error.status, {**headers, **error.headers})


async def _fault_response(request: Request, fault: RestFault, headers: dict[str, str]) -> Response | None:
    """Return the fault's response; None if the fault only delays the call."""
    emulator = emulator_of(request)
    if (delay_s := emulator.faults.delay_s(fault)) > 0:
        await emulator.clock.sleep(delay_s)
    if fault.hang:
        await _wait_for_disconnect(request)
    if fault.retry_after_s is not None:
        headers = {**headers, "Retry-After": f"{fault.retry_after_s:g}"}
    if fault.body is not None:
        media_type = _MEDIA_TYPES.get(fault.body.lstrip()[:1], "text/plain")
        return Response(fault.body, status_code=fault.status or 502, headers=headers, media_type=media_type)
    if fault.status is None:
        return Response(status_code=504, headers=headers) if fault.hang else None
    return json_response(
        {
            "code": fault.code if fault.code is not None else fault.status,
            "data": None,
            "message": fault.message,
        },
        fault.status,
        headers,
    )


async def _wait_for_disconnect(request: Request) -> None:
    """Wait until the caller disconnects or the emulator stops."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
