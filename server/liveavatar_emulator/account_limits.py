"""Limits of one account that differ from the knobs of all accounts, and its revoked keys. Pure."""

from typing import Annotated, Final

from pydantic import Field, ValidationError

from liveavatar_emulator.faults import Part

_NUMBERS: Final = ("concurrency", "rate", "credits")


class AccountLimits(Part):
    """Limits of an account; None, the default, leaves a limit to the knob of the same name."""

    concurrency: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Active sessions."""
    rate: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Requests per second, caller and endpoint. 0 switches the limit off."""
    credits: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = None
    """Balance from now on, and after each reset."""
    revoked_keys: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = Field(
        default=(), max_length=100
    )
    """Keys of the account that are refused with 401. Tokens that were minted with them stay valid."""


class BadAccountLimits(ValueError):
    """Malformed limits; the message names the account and the cause."""


def parse_limits(text: str) -> tuple[str, AccountLimits]:
    """Return account and limits of `NAME:concurrency=25,rate=5,credits=100`.

    Raises:
        BadAccountLimits: the text has another form, or a limit is unknown or out of range.
    """
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not name or not colon or not all(key and equals for key, equals, _ in pairs):
        raise BadAccountLimits(f"{text[:100]!r} is not NAME:LIMIT=NUMBER,...")
    if unknown := [key for key, _, _ in pairs if key not in _NUMBERS]:
        raise BadAccountLimits(f"account {name!r}: unknown limit {unknown[0]!r}; known: {', '.join(_NUMBERS)}")
    try:
        return name, AccountLimits.model_validate({key: value for key, _, value in pairs})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BadAccountLimits(f"account {name!r}: {first['loc'][0]}: {first['msg']}") from None
