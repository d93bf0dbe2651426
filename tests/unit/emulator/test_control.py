"""Control API in memory: clock, faults, scenario, recordings."""

from liveavatar_emulator.outbox import Outbox
from liveavatar_emulator.protocol import Speak


async def test_the_clock_is_advanced(http):
    moved = (await http.post("/_emulator/clock/advance", json={"seconds": 2.5})).json()
    assert (moved["mode"], moved["at_s"]) == ("manual", 2.5)


async def test_a_fault_is_armed_and_disarmed_by_its_location(http):
    armed = await http.post("/_emulator/faults", json={"endpoint": "start", "status": 503})
    assert armed.status_code == 201
    assert (await http.delete(armed.headers["Location"])).status_code == 204
    assert (await http.delete(armed.headers["Location"])).status_code == 404
    assert (await http.post("/_emulator/faults", json={"kind": "drop", "session": 0})).status_code == 422
    assert (await http.post("/_emulator/faults", json={"kind": "drop", "session": "random"})).status_code == 409


async def test_an_unknown_knob_is_named(http):
    refused = await http.patch("/_emulator/settings", json={"idle": 1})
    assert refused.json()["detail"]["setting"] == "idle"


async def test_a_scenario_is_played_and_stopped(http):
    toml = {"Content-Type": "application/toml"}
    refused = await http.post("/_emulator/scenario", content="[settings]\nidle = 1", headers=toml)
    assert refused.status_code == 422
    played = await http.post("/_emulator/scenario", content="[[at]]\nseconds = 5\nrestart = {}", headers=toml)
    assert played.json()["at"][0]["fired"] == 0
    assert (await http.delete("/_emulator/scenario")).status_code == 204
    assert (await http.get("/_emulator/scenario")).status_code == 404


async def test_audio_is_downloaded_whole_and_as_played(service, http):
    driver = service.start().driver
    driver.attach(Outbox(service.emulator.clock, reset=lambda: None))
    driver.command(Speak("u", bytes(48_000)), 0.0)
    await service.emulator.clock.advance(0.7)
    (row,) = (await http.get("/_emulator/sessions")).json()
    path = f"/_emulator/sessions/{row['id']}"
    assert len((await http.get(f"{path}/audio")).content) == 48_000
    played = (await http.get(f"{path}/utterances/0/audio", params={"played": True})).content
    assert len(played) == 24_000
    assert (await http.get(f"{path}/utterances/0/audio.wav")).content.startswith(b"RIFF")
    assert (await http.get(f"{path}/utterances/1/audio")).status_code == 404


async def test_a_session_without_a_socket_can_be_neither_dropped_nor_injected(service, http):
    path = f"/_emulator/sessions/{service.start().record.id}"
    assert (await http.post(f"{path}/drop", json={"code": 1011})).status_code == 409
    assert (await http.post(f"{path}/inject", json={})).status_code == 409
    json = {"Content-Type": "application/json"}
    assert (await http.post(f"{path}/inject", content=b"\xff", headers=json)).status_code == 422
    assert (await http.get("/_emulator/sessions/none")).status_code == 404
