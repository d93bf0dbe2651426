"""Authentication of a caller: an API key, a session's bearer token, or no credential.

Source: LiveAvatar API reference, auth per endpoint. A credential of the wrong kind is a 401 like an invalid
credential; where an endpoint accepts both and both are sent, the bearer token wins.
"""

from typing import Annotated

from fastapi import Depends, Request

from liveavatar_emulator import errors
from liveavatar_emulator.account import Account
from liveavatar_emulator.service import Emulator
from liveavatar_emulator.session_store import MintedSession


def emulator_of(request: Request) -> Emulator:
    """Return the emulated service of this request."""
    emulator: Emulator = request.app.state.emulator
    return emulator


def caller_name(request: Request) -> str:
    """Return the caller's name for rate limits: bearer token, API key, or the address of an anonymous caller."""
    if token := _bearer(request):
        return f"bearer {token}"
    if key := request.headers.get("x-api-key"):
        return f"key {key}"
    return f"address {request.client.host if request.client else ''}"


def calling_account(request: Request) -> Account | None:
    """Return the account for whose calls limits and faults are counted; None without a valid credential."""
    emulator = emulator_of(request)
    if token := _bearer(request):
        minted = emulator.session_of_token(token)
        return None if minted is None else minted.account
    return emulator.account_of(request.headers.get("x-api-key", ""))


async def key_account(request: Request) -> Account:
    """Return the account of the caller's API key.

    Raises:
        ApiError: 401 without a valid key; a bearer token does not help.
    """
    key = request.headers.get("x-api-key")
    if key is None:
        raise errors.unauthorized("X-API-KEY header is missing")
    account = emulator_of(request).account_of(key)
    if account is None:
        raise errors.unauthorized("Invalid API key")
    return account


async def bearer_session(request: Request) -> MintedSession:
    """Return the session of the caller's bearer token.

    Raises:
        ApiError: 401 without a valid token; an API key does not help.
    """
    token = _bearer(request)
    if token is None:
        raise errors.unauthorized("Session token is missing")
    minted = emulator_of(request).session_of_token(token)
    if minted is None:
        raise errors.unauthorized("Invalid session token")
    return minted


async def key_or_bearer(request: Request) -> Account | MintedSession:
    """Return the session of a bearer token if the caller sent one, otherwise the account of an API key.

    Raises:
        ApiError: 401 for an invalid or a missing credential.
    """
    return await (bearer_session(request) if _bearer(request) is not None else key_account(request))


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def _emulator(request: Request) -> Emulator:
    # Dependencies are coroutines because the framework would run functions in threads, slowly and in any order.
    return emulator_of(request)


TheEmulator = Annotated[Emulator, Depends(_emulator)]
KeyAccount = Annotated[Account, Depends(key_account)]
BearerSession = Annotated[MintedSession, Depends(bearer_session)]
KeyOrBearer = Annotated[Account | MintedSession, Depends(key_or_bearer)]
