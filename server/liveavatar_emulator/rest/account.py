"""Routes of the account: its balance and its secrets."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from liveavatar_emulator import errors
from liveavatar_emulator.auth import KeyAccount, TheEmulator
from liveavatar_emulator.rest.responses import success
from liveavatar_emulator.routing import ServiceRoute

router = APIRouter(prefix="/v1", route_class=ServiceRoute)


class NewSecret(BaseModel):
    """Body of POST /v1/secrets."""

    secret_type: Literal[
        "ELEVENLABS_API_KEY", "LLM_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "CARTESIA_API_KEY"
    ]
    secret_value: Annotated[str, Field(min_length=1, repr=False)]
    secret_name: Annotated[str, Field(min_length=1, max_length=255)]


@router.get("/users/credits", name="credits")
async def user_credits(emulator: TheEmulator, account: KeyAccount) -> Response:
    """Return the balance, as a string with two decimals."""
    return success(emulator, {"credits_left": f"{account.balance:.2f}"})


@router.post("/secrets", name="secrets")
async def store_secret(emulator: TheEmulator, account: KeyAccount, body: NewSecret) -> Response:
    """Store a provider's key by name and type, without its value: connectors have no agent here."""
    secret = account.store_secret(body.secret_type, body.secret_name, emulator.now_utc(), emulator.ids)
    return success(emulator, {"id": secret.id, "secret_name": secret.name})


@router.get("/secrets", name="secrets")
async def list_secrets(emulator: TheEmulator, account: KeyAccount) -> Response:
    """Return all secrets, newest first, without their values and without pages."""
    return success(emulator, [secret.row() for secret in reversed(account.secrets.values())])


@router.delete("/secrets/{secret_id}", name="secrets")
async def delete_secret(emulator: TheEmulator, account: KeyAccount, secret_id: str) -> Response:
    """Delete a secret; sessions minted with it are unaffected."""
    if account.secrets.pop(secret_id, None) is None:
        raise errors.not_found("Secret")
    return success(emulator, None)
