"""Store of sessions: lookups, and the forgetting of old ones."""

import pytest

from liveavatar_emulator.account import Account
from liveavatar_emulator.errors import ApiError
from liveavatar_emulator.protocol import Speak


async def test_a_session_is_found_by_id_token_and_secret_while_it_runs(service):
    started = service.start()
    sessions = service.emulator.sessions
    assert sessions.get(started.record.id) is sessions.for_socket(started.secret) is started
    assert sessions.minted(started.record.id) is started.minted
    service.emulator.stop(started.record.id, service.account, "USER_CLOSED")
    assert sessions.for_socket(started.secret) is None
    assert sessions.active() == []
    with pytest.raises(ApiError, match="404"):
        sessions.running(started.record.id, service.account)


async def test_another_account_cannot_see_a_session(service):
    started = service.start()
    with pytest.raises(ApiError, match="404"):
        service.emulator.sessions.running(started.record.id, Account("other", 10))


async def test_a_session_with_a_connector_has_no_socket(service):
    secret_id = "3c2f8a10-9b7d-4c6e-8f5a-1d2e3c4b5a69"
    started = service.start(elevenlabs_agent_config={"secret_id": secret_id, "agent_id": "a"})
    assert service.emulator.sessions.for_socket(started.secret) is None


async def test_the_oldest_ended_sessions_are_forgotten_and_their_counters_kept(make_service):
    service = make_service(keep_sessions=2)
    first = service.start()
    first.driver.session.attach(0.0)
    first.driver.command(Speak("u", bytes(960)), 0.0)
    first.driver.stop("USER_CLOSED")
    running = [service.start(), service.start()]
    sessions = service.emulator.sessions
    assert list(sessions) == running
    assert sessions.forgotten["packets"] == 1
    assert first.record.id not in service.account.records


async def test_minted_sessions_are_dropped_by_age(service):
    sessions = service.emulator.sessions
    service.mint()
    await service.emulator.clock.advance(10)
    young, _ = service.mint()
    sessions.drop_minted(minted_before_s=5)
    assert sessions.minted_waiting == 1
    assert sessions.minted(young.session_id) is young
    sessions.drop_minted()
    assert sessions.minted_waiting == 0
