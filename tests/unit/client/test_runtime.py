"""Connections to addresses that a target named."""

import pytest

from liveavatar.gateway import ClientClosed
from liveavatar.gateway.runtime import MAX_NAMED, ClientRuntime


class Line:
    """Stands for a connection: what counts here is when it is made and closed."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def test_connections_to_named_addresses_are_bounded_and_the_clients_own_are_kept():
    made: list[Line] = []

    def connect(target: str) -> Line:
        made.append(Line(target))
        return made[-1]

    scope = ClientRuntime(["own:1"], connect)
    own = scope.connection("own:1")
    named = [scope.connection(f"named-{number}:1") for number in range(MAX_NAMED)]
    assert scope.connection("named-0:1") is named[0]
    scope.connection("one-more:1")
    assert scope.connection("own:1") is own
    # Asked for longest ago: not the first any more.
    assert scope.connection("named-0:1") is named[0]
    again = scope.connection("named-1:1")
    assert again is not named[1]
    await scope.close()
    assert all(line.closed for line in made)
    assert len(made) == MAX_NAMED + 3
    with pytest.raises(ClientClosed):
        scope.connection("own:1")
