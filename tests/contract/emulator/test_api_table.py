"""Every REST row and every socket rule of the API, one comparison each, against a running emulator.

Its clock stands still and is moved by the rows, so the delays and limits they compare are the defaults and exact.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest
from contract.emulator.api_table import (
    account_rows,
    auth_rows,
    client_rows,
    error_rows,
    event_rows,
    history_rows,
    life_rows,
    socket_rows,
    speech_rows,
    token_rows,
)
from contract.emulator.api_table.table import Row, World

REST_PARTS = (auth_rows, error_rows, token_rows, life_rows, history_rows, account_rows)
SOCKET_PARTS = (socket_rows, event_rows, speech_rows, client_rows)
REST = [row for part in REST_PARTS for row in part.table.rows]
SOCKET = [row for part in SOCKET_PARTS for row in part.table.rows]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in (*REST, *SOCKET)])
async def test_the_emulator_keeps_to(row: Row, still_emulator):
    assert await row.see(World(still_emulator)) == row.wanted


def test_no_rule_is_walked_twice():
    twice = [name for name, times in Counter(row.id for row in (*REST, *SOCKET)).items() if times > 1]
    assert twice == []


def test_the_guide_states_how_many_rules_are_walked():
    """A section that loses its rows, or a rule that is added in silence, fails here."""
    sections = Counter(row.section for row in (*REST, *SOCKET))
    per_section = ", ".join(f"{section}: {count}" for section, count in sorted(sections.items(), key=_in_order))
    stated = f"{len(REST)} REST rows and {len(SOCKET)} socket rules ({per_section})"
    sys.stdout.write(stated)
    guide = (Path(__file__).parents[3] / "docs" / "emulator.md").read_text()
    assert stated in " ".join(guide.split())


def _in_order(item: tuple[str, int]) -> list[int]:
    return [int(number) for number in item[0].split(".")]
