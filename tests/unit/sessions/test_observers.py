"""Observers hear of every session, and a faulty one harms nobody but itself."""

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from liveavatar_gateway.core.errors import InternalError
from liveavatar_gateway.sessions.observers import Observers


class Watcher:
    """Observer that notes its calls, and fails in the named method."""

    def __init__(self, faulty="") -> None:
        self.calls = []
        self.faulty = faulty

    def _called(self, name, *args):
        self.calls.append((name, *args))
        if name == self.faulty:
            raise RuntimeError("a bug")

    def on_session(self, session):
        self._called("on_session", session.id)

    def on_news(self, session_id):
        self._called("on_news", session_id)

    def on_close(self):
        self._called("on_close")

    def fail(self, error):
        self.calls.append(("fail", type(error)))


def notify_all(observers):
    observers.on_session(SimpleNamespace(id="s-1"))
    observers.on_news("s-1")
    observers.close()


ALL = [("on_session", "s-1"), ("on_news", "s-1"), ("on_close",)]


def test_an_observer_hears_of_everything_until_it_is_discarded():
    observers, watcher = Observers(), Watcher()
    observers.add(watcher)
    notify_all(observers)
    observers.discard(watcher)
    observers.discard(watcher)
    notify_all(observers)
    assert watcher.calls == ALL


@pytest.mark.parametrize(("faulty", "heard"), [("on_session", ALL[:1]), ("on_news", ALL[:2]), ("on_close", ALL)])
def test_a_faulty_observer_fails_alone(faulty, heard):
    observers, watcher, other = Observers(), Watcher(faulty), Watcher()
    observers.add(watcher)
    observers.add(other)
    with capture_logs() as logs:
        notify_all(observers)
    assert watcher.calls == [*heard, ("fail", InternalError)]
    assert watcher not in observers
    assert other.calls == ALL
    assert [line["event"] for line in logs] == ["observer.failed"]
