"""Report of usage for operators, in pages."""

from collections.abc import Sequence
from datetime import date

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.registry.base import Registry
from liveavatar_gateway.registry.usage import UsageKey, UsageRow, day_of

_START: UsageKey = (-1, "", "")


class UsageReport:
    """Usage of all processes that share a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def page(
        self, *, tenant: str | None, first_day: date, last_day: date, token: str, size: int
    ) -> tuple[Sequence[UsageRow], str]:
        """Return a page of usage by day, tenant and label, and the token of the next page.

        Args:
            tenant: The only tenant; None for all.
            first_day: First day.
            last_day: Last day, included.
            token: Token of the page; empty for the first.
            size: Number of rows.

        Raises:
            InvalidField: the token is unknown.
            RegistryUnavailable: the registry cannot be read.
        """
        rows = await self._registry.usage(
            tenant=tenant,
            first_day=day_of(first_day),
            last_day=day_of(last_day),
            after=_key(token) if token else _START,
            size=size + 1,
        )
        return rows[:size], token_of(rows[size - 1]) if len(rows) > size else ""


def token_of(row: UsageRow) -> str:
    """Return the token of the page behind a row."""
    # Names of tenants have no slash; labels may.
    return f"{row.day}/{row.tenant}/{row.label}"


def _key(token: str) -> UsageKey:
    parts = token.split("/", 2)
    if len(parts) != 3 or not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) <= 6):
        raise InvalidField("page_token is unknown; list from the start", field="page_token")
    return int(parts[0]), parts[1], parts[2]
