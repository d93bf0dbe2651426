"""The controlling terminal: present, lost, or never there."""

import pytest

from liveavatar_gateway.cli import terminal


@pytest.mark.parametrize(
    ("at_start", "now", "gone"), [(True, True, False), (True, False, True), (False, False, False)]
)
def test_only_a_terminal_that_was_there_can_be_lost(monkeypatch, at_start, now, gone):
    monkeypatch.setattr(terminal, "_opens", lambda: at_start)
    found = terminal.ControllingTerminal()
    monkeypatch.setattr(terminal, "_opens", lambda: now)
    assert found.is_gone is gone
