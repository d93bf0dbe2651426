"""Scenario files in a running emulator, and the event log that two like runs have in common."""

import asyncio
import base64
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE_S = 15
SAMPLES = Path(__file__).parents[3] / "docs" / "scenarios"
TOML = {"Content-Type": "application/toml"}
MANUAL = ("--clock", "manual", "--rate", "0", "--concurrency", "9")
PACKET = bytes(9_600)

ROUGH = """
[settings]
jitter_ms = 80
shuffle_events = true

[[at]]
seconds = 0
fault = { endpoint = "token", chance = 0.6, times = 4, status = 503, retry_after_s = 1 }

[[at]]
seconds = 0
fault = { endpoint = "start", delay_s = 0.5, jitter_s = 1 }

[[at]]
seconds = 4
every_seconds = 1.5
times = 4
jitter_s = 0.5
fault = { kind = "drop", session = "random", code = 1011 }

[[when]]
session = 1
after_packets = 4
fault = { kind = "swallow_acks", count = 2 }

[[when]]
session = 2
after_bytes = 48_000
times = 2
fault = { kind = "drop" }

[[when]]
after_s = 9
jitter_s = 2
end = { reason = "SERVER_ERROR" }
"""


def rows(log: bytes | str) -> list[dict]:
    return [json.loads(line) for line in log.splitlines()]


async def play(emulator, name: str) -> None:
    answer = await emulator.http.post("/_emulator/scenario", content=(SAMPLES / name).read_bytes(), headers=TOML)
    assert answer.status_code == 201, answer.text


# -- the samples


async def test_bad_network_delays_acks_and_resets_sockets_three_times(own_emulator):
    async with own_emulator(*MANUAL, "--scenario", str(SAMPLES / "bad-network.toml")) as emulator:
        session = await emulator.session()
        for attempt in range(4):
            async with emulator.socket(session) as socket:
                await until_open(emulator, session, attempt + 1)
                await emulator.advance(3)
                for _ in range(3 if attempt < 3 else 1):
                    await socket.speak(bytes(48_000))
                if attempt < 3:
                    assert await socket.closed() is None
                else:
                    await emulator.recorded(session, lambda row: row["packet_count"] == 10)
                    await emulator.advance(1.5)
                    await socket.until("agent.audio_buffer_appended")
            await emulator.advance(2)
        kinds_seen = rows((await emulator.http.get("/_emulator/log")).content)
        assert sum(row["what"] == "fault" and row["kind"] == "drop" for row in kinds_seen) == 3
        assert sum(row["what"] == "fault" and row["kind"] == "refuse_sockets" for row in kinds_seen) == 1


async def test_deploy_restarts_twice_and_the_second_time_forgets(own_emulator):
    async with own_emulator(*MANUAL, "--scenario", str(SAMPLES / "deploy.toml")) as emulator:
        token = (await emulator.mint()).json()["data"]["session_token"]
        while (started := await emulator.start_with(token)).status_code != 201:
            assert (started.status_code, started.headers["retry-after"]) == (503, "1")
        session_id = started.json()["data"]["session_id"]

        async def end_reason() -> str | None:
            return (await emulator.http.get(f"/_emulator/sessions/{session_id}")).json()["end_reason"]

        await emulator.advance(10)
        await serving(emulator)
        assert await end_reason() is None
        await emulator.advance(20)
        await serving(emulator)
        assert (await emulator.http.get(f"/_emulator/sessions/{session_id}")).json()[
            "end_reason"
        ] == "SERVER_ERROR"
        log = rows((await emulator.http.get("/_emulator/log")).content)
        assert [row["at_s"] for row in log if row["what"] == "restart"] == [10, 30]
        assert [row["at_s"] for row in log if row["what"] == "restart.done"] == [10, 30]


async def test_a_long_day_passes_in_a_moment(own_emulator):
    async with own_emulator("--clock", "manual", "--idle-s", "86400", "--reap-s", "86400") as emulator:
        await play(emulator, "long-day.toml")
        sessions = [await emulator.session() for _ in range(3)]
        async with emulator.socket(sessions[0]):
            await until_open(emulator, sessions[0], 1)
            await emulator.advance(1200)
            assert (await emulator.historic(sessions[2]))["end_reason"] == "SERVER_ERROR"
            garbled = await emulator.http.post("/v1/sessions/keep-alive", headers=sessions[0].bearer)
            with pytest.raises(json.JSONDecodeError):
                garbled.json()
        await emulator.advance(43_200 - 1200)
        assert (await emulator.http.get("/_emulator/settings")).json()["concurrency"] == 20
        await emulator.advance(43_200)
        assert (await emulator.http.get("/_emulator/settings")).json()["concurrency"] == 100
        run = (await emulator.http.get("/_emulator/scenario")).json()
        assert run["at"][0]["fired"] == 144 - (run["at"][0]["next_at_s"] < 86_400 + 600)
        log = rows((await emulator.http.get("/_emulator/log")).content)
        assert [row["fault"] for row in log if row["what"] == "fault" and row["kind"] == "drop"]


async def until_open(emulator, session, number: int) -> None:
    """Wait until the session's socket of this number is attached."""
    await emulator.recorded(session, lambda row: len(row["sockets"]) == number and row["socket_open"])


async def serving(emulator) -> None:
    """Wait until connections are accepted again, without moving the clock."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await emulator.http.get("/_emulator/clock")
            except httpx.TransportError:
                await asyncio.sleep(0.02)
            else:
                return


# -- mistakes


def test_a_bad_file_ends_the_start_with_status_78_and_its_line(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[[at]]\nseconds = 1\nfualt = {}\n")
    command = [sys.executable, "-m", "liveavatar_emulator", "serve", "--scenario", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert "bad.toml: [[at]] entry 1 (line 1): unknown key 'fualt'; did you mean 'fault'?" in done.stderr


def test_a_missing_file_ends_the_start_with_status_78(tmp_path):
    command = [sys.executable, "-m", "liveavatar_emulator", "serve", "--scenario", str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 78
    assert "none.toml: cannot be read" in done.stderr


async def test_over_http_a_mistake_is_a_422_and_changes_nothing(emulator):
    text = "[settings]\nidle_s = 9\n[[at]]\nseconds = 1\nsettings = {sped = 2}"
    answer = await emulator.http.post("/_emulator/scenario", content=text, headers=TOML)
    assert answer.status_code == 422
    assert "did you mean 'speed'" in answer.json()["detail"]
    assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 300
    assert (await emulator.http.get("/_emulator/scenario")).status_code == 404


async def test_options_win_over_the_knobs_of_the_file(own_emulator, tmp_path):
    path = tmp_path / "some.toml"
    path.write_text("[settings]\nidle_s = 9\nreap_s = 9\n")
    async with own_emulator("--scenario", str(path), "--idle-s", "11") as emulator:
        knobs = (await emulator.http.get("/_emulator/settings")).json()
        assert (knobs["idle_s"], knobs["reap_s"]) == (11, 9)


async def test_a_scenario_can_be_stopped_and_begun_again_with_a_reset(own_emulator, tmp_path):
    path = tmp_path / "some.toml"
    path.write_text("[[at]]\nseconds = 5\nsettings = {idle_s = 9}\n")
    async with own_emulator(*MANUAL, "--scenario", str(path)) as emulator:
        assert (await emulator.http.delete("/_emulator/scenario")).status_code == 204
        await emulator.advance(6)
        assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 300
        await emulator.http.post("/_emulator/reset", params={"settings": True})
        await emulator.advance(4.9)
        assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 300
        await emulator.advance(0.1)
        assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 9


async def test_what_cannot_be_done_is_noted_and_the_timeline_goes_on(own_emulator):
    text = """
    [[at]]
    seconds = 1
    fault = { kind = "drop", session = "random" }
    [[at]]
    seconds = 2
    end = { session = 5 }
    [[at]]
    seconds = 3
    settings = { idle_s = 9 }
    """
    async with own_emulator(*MANUAL) as emulator:
        await emulator.http.post("/_emulator/scenario", content=text, headers=TOML)
        await emulator.advance(3)
        log = rows((await emulator.http.get("/_emulator/log")).content)
        missed = [(row["entry"], row["why"]) for row in log if row["what"] == "scenario.missed"]
        assert [entry for entry, _ in missed] == [1, 2]
        assert (await emulator.http.get("/_emulator/settings")).json()["idle_s"] == 9


# -- the same again


class Caller:
    """Talks to two sessions, one step after the other: whatever it starts it sees through before the next."""

    def __init__(self, emulator) -> None:
        self.emulator = emulator
        self.sockets: dict[str, object] = {}
        self.commands: dict[str, int] = {}

    async def session(self):
        """A started session; refusals are answered by asking again, delays by moving the clock."""
        while (minted := await self.emulator.mint()).status_code != 200:
            assert minted.status_code == 503
        token = minted.json()["data"]["session_token"]
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self.emulator.start_with(token))
            if not self.commands:
                await self.fired()
                await self.emulator.advance(2)
        data = starting.result().json()["data"]
        self.commands[data["session_id"]] = 0
        return data

    async def fired(self) -> None:
        """Wait until the start that is to be delayed has been hit."""
        async with asyncio.timeout(PATIENCE_S):
            while (
                b'"endpoint":"start"'
                not in (await self.emulator.http.get("/_emulator/log")).content.split(b'"what":"fault",')[-1]
            ):
                await asyncio.sleep(0.01)

    async def attach(self, stack, data) -> None:
        before = len((await self.recording(data))["sockets"])
        self.sockets[data["session_id"]] = await stack.enter_async_context(
            connect(data["ws_url"], compression=None)
        )
        await self.when(data, lambda row: len(row["sockets"]) == before + 1 and row["socket_open"])

    async def recording(self, data) -> dict:
        return dict((await self.emulator.http.get(f"/_emulator/sessions/{data['session_id']}")).json())

    async def when(self, data, so) -> dict:
        async with asyncio.timeout(PATIENCE_S):
            while not so(row := await self.recording(data)):
                await asyncio.sleep(0.005)
        return row

    async def command(self, data, kind: str, **fields) -> None:
        """Send a command and wait until the emulator has recorded it."""
        session_id = data["session_id"]
        self.commands[session_id] += 1
        try:
            await self.sockets[session_id].send(json.dumps({"type": kind, **fields}))
        except ConnectionClosed as error:
            raise AssertionError("the caller did not notice that its socket was gone") from error
        await self.when(data, lambda row: row["command_count"] == self.commands[session_id])


async def scripted(emulator) -> None:
    """The same conversation each time, as far as the faults let it."""
    caller = Caller(emulator)
    await emulator.advance(0)
    audio = base64.b64encode(PACKET).decode()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await caller.session(), await caller.session()]
        for data in sessions:
            await caller.attach(stack, data)
        await emulator.advance(2.6)
        for step in range(24):
            for data in sessions:
                row = await caller.recording(data)
                if row["end_reason"] is not None:
                    continue
                if not row["socket_open"]:
                    await caller.attach(stack, data)
                kind = ("agent.speak", "agent.speak", "agent.speak_end", "agent.interrupt")[step % 4]
                fields = {"audio": audio} if kind == "agent.speak" else {}
                await caller.command(data, kind, event_id=f"u{step}", **fields)
            await emulator.advance(0.35)
        await emulator.advance(10)


@pytest.fixture
def log_of(own_emulator, tmp_path):
    """Plays the rough scenario to the scripted caller and returns the event log."""
    scenario = tmp_path / "rough.toml"
    scenario.write_text(ROUGH)
    runs = iter(range(10))

    async def run(seed: int) -> bytes:
        path = tmp_path / f"{next(runs)}.log"
        options = ("--scenario", str(scenario), "--seed", str(seed), "--event-log", str(path))
        async with own_emulator(*MANUAL, *options) as emulator:
            await scripted(emulator)
        return path.read_bytes()

    return run


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_the_same_scenario_seed_and_caller_give_the_same_log_byte_for_byte(log_of):
    first, again, other = await log_of(7), await log_of(7), await log_of(8)
    assert first.splitlines() == again.splitlines()
    assert first == again
    assert [row for row in rows(first) if row["n"] > 1] != [row for row in rows(other) if row["n"] > 1]

    kinds_seen = [row["what"] for row in rows(first)]
    for what in ("rest", "session.started", "socket.attached", "command", "event", "event.swallowed", "fault"):
        assert what in kinds_seen
    for what in ("clock.advance", "socket.detached", "session.ended", "scenario.at", "scenario.when"):
        assert what in kinds_seen
    kinds = {row["kind"] for row in rows(first) if row["what"] == "fault"}
    assert kinds == {"rest", "drop", "swallow_acks"}


async def test_the_log_holds_no_secret(own_emulator, tmp_path):
    path = tmp_path / "log"
    options = ("--event-log", str(path), "--ready-delay-ms", "0", "--seed", "1")
    async with own_emulator(*options) as emulator, emulator.ready() as (session, socket):
        await socket.speak(PACKET, "u1")
        await socket.until("agent.audio_buffer_appended")
    log = path.read_text()
    assert session.id in log
    for secret in (session.token, session.ws_url.rpartition("/")[2], "emulator-key"):
        assert secret not in log
    (command,) = [row for row in rows(log) if row["what"] == "command"]
    assert (command["type"], command["event_id"], command["size_bytes"], command["utterance"]) == (
        "agent.speak",
        "u1",
        9_600,
        0,
    )
    assert max(len(line) for line in log.splitlines()) < 400
