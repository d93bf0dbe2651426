"""Every REST row and every socket rule of the API, one comparison each, against a running emulator.

Its clock stands still and is moved by the rows, so the delays and limits they compare are the defaults and exact.
"""

import pytest
from contract.emulator.api_table import (
    account_rows,
    auth_rows,
    behaviour_rows,
    error_rows,
    life_rows,
    socket_rows,
    token_rows,
)
from contract.emulator.api_table.table import Row, World

REST = [row for part in (auth_rows, error_rows, token_rows, life_rows, account_rows) for row in part.table.rows]
SOCKET = [*socket_rows.table.rows, *behaviour_rows.table.rows]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in (*REST, *SOCKET)])
async def test_the_emulator_keeps_to(row: Row, still_emulator):
    assert await row.see(World(still_emulator)) == row.wanted
