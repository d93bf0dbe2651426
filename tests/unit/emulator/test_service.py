"""The service as one object: start, settings, reset and restart."""

import pytest

from liveavatar_emulator.errors import ApiError
from liveavatar_emulator.scenario import Restart, parse
from liveavatar_emulator.scenario_run import AlreadyRestarting


async def test_a_session_is_started_once(service):
    minted, _ = service.mint()
    data = service.emulator.start(minted, "ws://emulator")
    assert data["ws_url"].startswith("ws://emulator/ws/")
    with pytest.raises(ApiError, match="already started"):
        service.emulator.start(minted, "ws://emulator")


async def test_an_expired_token_starts_no_session(service):
    minted, token = service.mint()
    assert service.emulator.session_of_token(token) is minted
    assert service.emulator.session_of_token(token + "x") is None
    await service.emulator.clock.advance(301)
    with pytest.raises(ApiError, match="expired"):
        service.emulator.start(minted, "ws://emulator")


@pytest.mark.parametrize(("knob", "fields"), [("filled", 3), ("null", 3), ("omitted", 0)])
async def test_the_room_fields_of_a_callers_own_channel_follow_the_knob(make_service, knob, fields):
    service = make_service(byo_livekit_fields=knob)
    channel = {"agora_app_id": "a", "agora_token": "t", "agora_channel": "c", "agora_uid": "u"}
    minted, _ = service.mint(agora_config=channel)
    data = service.emulator.start(minted, "ws://emulator")
    room = {name: value for name, value in data.items() if name.startswith("livekit_")}
    assert len(room) == fields
    assert not any(room.values())


async def test_a_change_of_credits_resets_every_balance_and_other_changes_none(service):
    service.start()
    service.emulator.change_settings({"idle_s": 9})
    assert service.account.balance == 999
    service.emulator.change_settings({"credits": 5})
    assert service.account.balance == 5
    assert service.emulator.sessions.active()[0].driver.session.settings.credits == 5


async def test_a_reset_forgets_sessions_and_may_restore_settings(service):
    service.start()
    service.emulator.change_settings({"idle_s": 9})
    service.emulator.reset(restore_settings=False)
    assert (len(service.emulator.sessions), service.emulator.settings.idle_s) == (0, 9)
    service.emulator.reset(restore_settings=True)
    assert service.emulator.settings.idle_s == 300


async def test_one_restart_at_a_time_is_handed_to_the_server(service):
    kept = service.start()
    service.emulator.restart(Restart(down_s=3))
    assert service.emulator.restarts.get_nowait() == 3
    with pytest.raises(AlreadyRestarting):
        service.emulator.restart(Restart())
    service.emulator.finish_restart()
    service.mint()
    service.emulator.restart(Restart(keep_sessions=False))
    assert kept.record.end_reason == "SERVER_ERROR"
    assert service.emulator.sessions.minted_waiting == 0


async def test_a_deleted_avatar_ends_its_sessions(make_service):
    service = make_service(own_avatars=1)
    avatar_id = service.account.avatars.rows(1)[0]["id"]
    started = service.start(avatar_id=avatar_id)
    service.emulator.delete_avatar(service.account, avatar_id)
    assert started.record.end_reason == "AVATAR_DELETED"


async def test_a_new_scenario_replaces_the_running_one(service):
    service.emulator.play(parse("[[at]]\nseconds = 5\nend = { session = 'all' }"))
    first = service.emulator.run
    service.emulator.play(None)
    started = service.start()
    await service.emulator.clock.advance(6)
    assert first is not None
    assert started.record.active
