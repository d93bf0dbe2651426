import pytest

from liveavatar.gateway import Watch
from liveavatar.gateway.portal import Portal


class AsyncWatch:
    """Watch with prepared changes."""

    def __init__(self, *changes):
        self.changes, self.calls = list(changes), []
        self.connected = True
        self.sequences = {"s": 1}

    async def open(self):
        self.calls.append("open")

    async def next(self):
        return self.changes.pop(0) if self.changes else None

    def add(self, session_id, after_sequence):
        self.calls.append(("add", session_id, after_sequence))

    def remove(self, session_id):
        self.calls.append(("remove", session_id))

    async def close(self):
        self.calls.append("close")


@pytest.fixture
def portal():
    with_loop = Portal()
    yield with_loop
    with_loop.close()


def test_a_block_opens_iterates_and_closes(portal):
    inner = AsyncWatch("first", "second")
    with Watch(inner, portal, open_timeout_s=5.0) as changes:
        assert list(changes) == ["first", "second"]
        assert changes.next(timeout=5) is None
        assert (changes.connected, changes.sequences) == (True, {"s": 1})
    assert inner.calls == ["open", "close"]


def test_sessions_are_added_and_removed_in_the_loop(portal):
    inner = AsyncWatch()
    watch = Watch(inner, portal, open_timeout_s=5.0)
    watch.add("s", 3)
    watch.remove("s")
    assert inner.calls == [("add", "s", 3), ("remove", "s")]


def test_a_fork_closes_nothing(portal, monkeypatch):
    inner = AsyncWatch()
    watch = Watch(inner, portal, open_timeout_s=5.0)
    monkeypatch.setattr(portal, "_pid", portal._pid + 1)
    watch.close()
    assert inner.calls == []
    monkeypatch.undo()
