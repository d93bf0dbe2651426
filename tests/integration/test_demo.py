"""`liveavatar-gateway demo` holds a real call, proves it, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from liveavatar_demo import recordings, room, run
from liveavatar_demo.livekit_server import LiveKitServer, find_program
from liveavatar_gateway.audio.convert import convert_all
from liveavatar_gateway.audio.formats import NATIVE_FORMAT

DEMO = [sys.executable, "-m", "liveavatar_gateway", "demo"]
# A test run in the background of a shell ignores Ctrl-C, and its children would too.
HEARS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def with_own_livekit() -> dict[str, str]:
    """Return an environment in which the demo starts a LiveKit server; fail without its program."""
    find_program(os.environ)
    return {name: value for name, value in os.environ.items() if name not in room.VARIABLES}


def without_livekit(folder: Path) -> dict[str, str]:
    """Return an environment in which no LiveKit server is found."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
    return {**bare, "XDG_CACHE_HOME": str(folder / "no-cache"), "PATH": str(folder / "no-programs")}


@pytest.mark.long
def test_the_demo_proves_a_whole_call(tmp_path: Path):
    out = tmp_path / "new" / "avatar.wav"
    # The servers must see nothing of this: both would refuse to start.
    misleading = {"GATEWAY_NO_SUCH_SETTING": "1", "EMULATOR_SPEED": "fast", "LIVEAVATAR_API_URL": "nowhere"}
    done = subprocess.run(
        [*DEMO, "--json", "--out", str(out)],
        capture_output=True,
        env={**without_livekit(tmp_path), **misleading},
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["viewer"] is None
    assert len(report["checks"]) == 8
    assert all(check["ok"] for check in report["checks"])
    events = [moment["event"] for moment in report["timeline"]]
    for earlier, later in (("handed_over", "ready"), ("greeting_ended", "interrupt"), ("interrupt", "silent")):
        assert events.index(earlier) < events.index(later)
    times = [moment["at_s"] for moment in report["timeline"] if moment["event"] != "first_packet"]
    assert times == sorted(times)

    audio_format, said = recordings.read(out)
    greeting = convert_all(*recordings.read(run.GREETING))
    story = convert_all(*recordings.read(run.STORY))
    assert audio_format == NATIVE_FORMAT
    assert said.startswith(greeting)
    heard = said[len(greeting) :]
    assert heard
    assert story.startswith(heard)
    assert len(heard) < len(story)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_and_its_servers(tmp_path: Path, number: signal.Signals, code: int):
    demo = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *DEMO[1:], "--out", str(tmp_path / "avatar.wav")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=without_livekit(tmp_path),
    )
    with demo:
        shown = ""
        while "handed over" not in shown:
            line = demo.stdout.readline()
            assert line, shown
            shown += line
        demo.send_signal(number)
        shown += demo.stdout.read()
        assert demo.wait(30) == code
    assert "Traceback" not in shown
    assert "Exception" not in shown
    # And without a LiveKit server, it says how one is had.
    assert re.search(r"^No face to watch .*`make livekit-server`", shown, re.MULTILINE)
    url = re.search(r"http://127\.0\.0\.1:\d+", shown)
    assert url is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(url[0], trust_env=False)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_watched_demo_goes_on_until_ctrl_c(tmp_path: Path):
    demo = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *DEMO[1:], "--watch", "--out", str(tmp_path / "avatar.wav")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=with_own_livekit(),
    )
    with demo:
        shown = ""
        while shown.count("ask for a session") < 2:
            line = demo.stdout.readline()
            assert line, shown
            shown += line
        url = re.search(r"^Watch the face: (http://127\.0\.0\.1:\d+)/viewer", shown, re.MULTILINE)
        assert url, shown
        told = httpx.get(f"{url[1]}/_emulator/viewer", trust_env=False).json()
        assert told["livekit"] is True
        demo.send_signal(signal.SIGINT)
        shown += demo.stdout.read()
        assert demo.wait(30) == 130
    assert "Again, until Ctrl-C" in shown
    # Seven of eight checks are about bytes; how near two clocks are says more of the machine.
    assert [
        line for line in shown.splitlines() if line.startswith(("✗", "NO")) and "both sides agree" not in line
    ] == []
    assert "Traceback" not in shown
    with pytest.raises(httpx.ConnectError):
        httpx.get(url[1], trust_env=False)


def test_without_a_room_there_is_nothing_to_watch(tmp_path: Path):
    done = subprocess.run(
        [*DEMO, "--watch", "--out", str(tmp_path / "avatar.wav")],
        capture_output=True,
        text=True,
        env=without_livekit(tmp_path),
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert "`make livekit-server`" in done.stderr
    assert "LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET" in done.stderr
    assert done.stdout == ""


def test_without_a_room_there_is_nobody_to_talk_with(tmp_path: Path):
    done = subprocess.run(
        [*DEMO, "--voice", "--port", "0"],
        capture_output=True,
        text=True,
        env=without_livekit(tmp_path),
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert "`make livekit-server`" in done.stderr or "make viewer" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--voice", "--json"], "--json"),
        (["--voice", "--watch"], "--watch"),
        (["--voice", "--out", "x.wav"], "--out"),
        (["--port", "1"], "--port"),
    ],
)
def test_an_option_without_effect_is_refused(arguments: list[str], named: str):
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert named in done.stderr
    assert "--voice" in done.stderr


def test_a_signal_ends_the_voice_demo_and_its_servers(tmp_path: Path):
    demo = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *DEMO[1:], "--voice", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=with_own_livekit(),
    )
    with demo:
        shown = ""
        while "session ready" not in shown:
            line = demo.stdout.readline()
            assert line, shown
            shown += line
        url = re.search(r"Talk with the avatar: (http://127\.0\.0\.1:\d+)/#token=\S+", shown)
        assert url, shown
        assert httpx.get(url[1], trust_env=False).status_code == 200
        demo.send_signal(signal.SIGINT)
        shown += demo.stdout.read()
        assert demo.wait(30) == 130
    assert "Traceback" not in shown
    with pytest.raises(httpx.ConnectError):
        httpx.get(url[1], trust_env=False)


def test_one_report_and_many_calls_do_not_go_together():
    done = subprocess.run([*DEMO, "--json", "--watch"], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert "--json" in done.stderr
    assert "--watch" in done.stderr


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path):
    # A module of the emulator's name that is none stands before it on the path.
    (tmp_path / "liveavatar_emulator.py").write_text("raise SystemExit('no room for me here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*DEMO, "--out", str(tmp_path / "avatar.wav")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert "liveavatar_emulator did not start" in done.stderr
    assert "no room for me here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wav_file_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*DEMO, "--out", str(tmp_path / "file" / "avatar.wav")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert done.stdout == ""


def test_a_livekit_server_that_does_not_start_is_told_with_what_it_said(tmp_path: Path):
    program = tmp_path / "livekit-server"
    program.write_text("#!/bin/sh\necho 'no room for me here'\n")
    program.chmod(0o755)
    with room.find({"LIVEKIT_SERVER": str(program)}) as found:
        assert isinstance(found, room.NoRoom)
        assert "no room for me here" in found.why


def test_a_livekit_server_that_the_environment_names_is_taken(livekit: LiveKitServer):
    named = dict(zip(room.VARIABLES, (livekit.url, livekit.api_key, livekit.api_secret), strict=True))
    with room.find(named) as found:
        assert isinstance(found, room.Room)
        assert found.settings() == {
            "EMULATOR_LIVEKIT_URL": livekit.url,
            "EMULATOR_LIVEKIT_KEY": livekit.api_key,
            "EMULATOR_LIVEKIT_SECRET": livekit.api_secret,
        }
        assert livekit.api_secret not in repr(found)
    with room.find({**named, "LIVEKIT_API_SECRET": "x" * 40}) as found:
        assert isinstance(found, room.NoRoom)
        assert f"{livekit.url} refuses the key" in found.why
    with room.find({**named, "LIVEKIT_URL": "ws://127.0.0.1:9"}) as found:
        assert isinstance(found, room.NoRoom)
        assert "ws://127.0.0.1:9 does not answer" in found.why
        assert "LIVEKIT_URL" in found.why
    with room.find({**named, "LIVEKIT_URL": "no address"}) as found:
        assert isinstance(found, room.NoRoom)
        assert "no address does not answer" in found.why
