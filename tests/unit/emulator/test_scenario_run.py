"""A scenario's run: timeline, triggers, misses."""

import orjson

from liveavatar_emulator.scenario import parse


def missed(service) -> list[str]:
    lines = map(orjson.loads, service.emulator.log.lines().splitlines())
    return [line["why"] for line in lines if line["what"] == "scenario.missed"]


async def test_an_entry_of_the_timeline_repeats_as_often_as_it_says(service):
    service.emulator.play(parse("[[at]]\nseconds = 1\nevery_seconds = 2\ntimes = 2\nsettings = { idle_s = 9 }"))
    await service.emulator.clock.advance(1)
    assert service.emulator.settings.idle_s == 9
    assert (
        service.emulator.run.row()["at"][0] | {"fired": 1, "next_at_s": 3.0} == service.emulator.run.row()["at"][0]
    )
    await service.emulator.clock.advance(10)
    assert service.emulator.run.row()["at"][0]["fired"] == 2


async def test_an_action_on_a_session_follows_its_own_start(service):
    service.emulator.play(parse("[[when]]\nsession = 2\nafter_s = 5\nend = { reason = 'NO_CREDITS' }"))
    first, second = service.start(), service.start()
    await service.emulator.clock.advance(5)
    assert first.record.active
    assert second.record.end_reason == "NO_CREDITS"


async def test_an_entry_without_a_session_is_logged_as_missed_and_the_timeline_continues(service):
    service.emulator.play(parse("[[at]]\nseconds = 1\nevery_seconds = 1\ntimes = 2\nend = { session = 'all' }"))
    await service.emulator.clock.advance(1)
    assert missed(service) == ["no running session matches 'all'"]
    started = service.start()
    await service.emulator.clock.advance(1)
    assert not started.record.active


async def test_a_stopped_run_has_no_further_effect(service):
    service.emulator.play(parse("[[when]]\nafter_s = 5\nend = {}"))
    started = service.start()
    service.emulator.run.stop()
    await service.emulator.clock.advance(10)
    assert started.record.active
