"""JSON of a session."""

from liveavatar_emulator import session_views


async def test_both_views_agree_on_common_fields(service):
    started = service.start(is_sandbox=False)
    await service.emulator.clock.advance(2)
    now_s = service.emulator.now_s()
    short, full = session_views.summary(started, now_s), session_views.full(started, now_s)
    common = (short.keys() & full.keys()) - {"utterances", "underruns"}
    assert {"id", "account", "phase", "received_bytes"} <= common
    assert {name: short[name] for name in common} == {name: full[name] for name in common}
    assert (short["duration_s"], full["duration"]) == (2.0, 2)
    assert (full["media"], full["close_code"], full["connector"]) == (None, None, None)
