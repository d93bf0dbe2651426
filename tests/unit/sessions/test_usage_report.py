"""Usage is reported in pages, whatever callers wrote into labels."""

from datetime import date

import pytest

from liveavatar_gateway.core.errors import InvalidField
from liveavatar_gateway.registry.base import LeaseConfig
from liveavatar_gateway.registry.memory import MemoryRegistry
from liveavatar_gateway.registry.usage import Charge, day_of
from liveavatar_gateway.sessions.usage_report import UsageReport

TODAY = date(2026, 11, 30)
LABELS = ["", "/", "a", "a/b", "b//", "ünï/côde"]


@pytest.fixture
async def report():
    async with MemoryRegistry(LeaseConfig()) as registry:
        for number, label in enumerate(LABELS):
            hour = day_of(TODAY) * 24
            await registry.charge(Charge(id=f"up-{number}", tenant="acme", label=label, hour=hour, minutes=1))
        yield UsageReport(registry)


async def _page(report, token="", size=2):
    return await report.page(tenant=None, first_day=date.min, last_day=TODAY, token=token, size=size)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
async def test_pages_together_are_the_whole(report, size):
    found, token = [], ""
    while True:
        rows, token = await _page(report, token, size)
        assert 0 < len(rows) <= size
        found += [row.label for row in rows]
        if not token:
            break
    assert found == LABELS


@pytest.mark.parametrize("token", ["x", "1/acme", "-1/acme/", "1e9/acme/a", "9999999/acme/a", "٣/acme/a"])
async def test_an_unknown_token_is_refused(report, token):
    with pytest.raises(InvalidField) as refused:
        await _page(report, token)
    assert refused.value.field == "page_token"
