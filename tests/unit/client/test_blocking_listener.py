import pytest

from liveavatar.gateway import AudioFormat, Listener
from liveavatar.gateway.portal import Portal


class AsyncListener:
    """Listener with prepared audio."""

    def __init__(self, *chunks):
        self.chunks = list(chunks)
        self.connected = True
        self.format = AudioFormat()
        self.closed = False

    async def next(self):
        return self.chunks.pop(0) if self.chunks else None

    def close(self):
        self.closed = True


@pytest.fixture
def portal():
    with_loop = Portal()
    yield with_loop
    with_loop.close()


def test_a_block_iterates_and_closes(portal):
    inner = AsyncListener("first", "second")
    with Listener(inner, portal) as listener:
        assert list(listener) == ["first", "second"]
        assert listener.next(timeout=5) is None
        assert (listener.connected, listener.format) == (True, AudioFormat())
        assert repr(listener).startswith("<Listener ")
    assert inner.closed


def test_a_fork_closes_nothing(portal, monkeypatch):
    inner = AsyncListener()
    monkeypatch.setattr(portal, "_pid", portal._pid + 1)
    Listener(inner, portal).close()
    assert not inner.closed
