"""Counters of the whole service."""

from liveavatar_emulator.state import state_of


async def test_running_ended_and_minted_sessions_are_counted(service):
    service.start()
    service.start().driver.stop("USER_CLOSED")
    service.mint()
    sessions = state_of(service.emulator)["sessions"]
    assert sessions == {
        "active": 1,
        "started_total": 2,
        "ended_total": 1,
        "ended_by_reason": {"USER_CLOSED": 1},
        "minted_waiting": 1,
        "recordings_kept": 2,
    }
