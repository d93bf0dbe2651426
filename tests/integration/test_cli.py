"""The commands, run as users run them: what they print, and the exit codes that scripts rely on."""

import contextlib
import json
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from liveavatar.gateway import AudioEncoding, Client, SessionState
from liveavatar_demo.process import clean_environment
from liveavatar_gateway import cli
from liveavatar_gateway.audio.convert import convert_all
from liveavatar_gateway.audio.formats import AudioFormat, Encoding
from liveavatar_gateway.cli import say, sessions
from testkit.caller import AVATAR
from testkit.certificates import Authority, make_certificate
from testkit.pool_files import profile, write_pool_file
from testkit.processes import Emulator, Gateway
from testkit.processes import gateway as start_gateway
from testkit.speech import sound

PROGRAM = [sys.executable, "-m", "liveavatar_gateway"]
RATE_HZ = 16_000
# A test run in the background of a shell ignores Ctrl-C, and its children would too.
HEARS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        env={**clean_environment(), **environment},
        check=False,
        timeout=50,
    )
    shown = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in shown.stderr
    return shown


def wait_until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


@pytest.fixture
def client(shared_gateway: Gateway) -> Iterator[Client]:
    with Client(shared_gateway.address) as found:
        yield found


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return an address that is taken and does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def open_to_others(tmp_path: Path) -> dict[str, str]:
    """Settings of a gateway that other machines may reach: TLS, certificates of callers, and all of them equal."""
    authority = Authority()
    signed = authority.server()
    contents = {
        "tls_cert_file": signed.certificate,
        "tls_key_file": signed.key,
        "tls_client_ca_file": authority.certificate,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {"anonymous": "1", **{name: str(tmp_path / name) for name in contents}}


@pytest.fixture
def make_wav(tmp_path: Path) -> Callable[[float], tuple[Path, bytes]]:
    def make(seconds: float) -> tuple[Path, bytes]:
        pcm = sound(seconds * RATE_HZ / 24_000)
        path = tmp_path / "speech.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(pcm)
        return path, pcm

    return make


def upstream_audio(emulator: Emulator, client: Client, session_id: str) -> bytes:
    return emulator.audio(client.get_session(session_id).upstream_session_id)


# --- help


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["demo", "-h"], ["say", "-h"], ["sessions", "watch", "-h"], ["admin", "drain", "-h"]],
    ids=str,
)
def test_help_waits_for_no_heavy_import(arguments):
    probe = (
        "import sys; from liveavatar_gateway.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print('heavy:', sorted({'grpc', 'numpy', 'pydantic', 'httpx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    assert "Usage:" in done.stdout
    assert done.stdout.endswith("heavy: []\n")


def test_every_command_has_its_place_and_no_other():
    assert set(cli.COMMANDS) == set(cli.main.list_commands(None))
    for name in cli.COMMANDS:
        assert cli.main.get_command(None, name).name == name
    assert run("no-such-command").returncode == 2


def test_choices_are_those_of_the_client():
    assert set(sessions.STATES) == {state.value for state in SessionState} - {"unspecified"}
    assert set(say.ENCODINGS) == {encoding.value for encoding in AudioEncoding}


# --- serve, check-config


def test_serve_without_a_key_says_what_to_set_and_what_needs_none():
    done = run("serve", "--port", "0")
    assert done.returncode == 78
    assert "LIVEAVATAR_API_KEY" in done.stderr
    assert "liveavatar-gateway demo" in done.stderr


def test_serve_says_that_its_ready_file_cannot_be_written(tmp_path):
    path = tmp_path / "nowhere" / "ready.json"
    settings = {"LIVEAVATAR_API_KEY": "key", "GATEWAY_REGISTRY_FILE": "off"}
    done = run("serve", "--port", "0", "--ready-file", str(path), **settings)
    assert done.returncode == 78
    assert f"--ready-file: {path} cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_an_unknown_variable_gets_a_suggestion(command):
    done = run(command, GATEWAY_MAX_SESSION="3")
    assert done.returncode == 78
    assert "GATEWAY_MAX_SESSION " in done.stderr
    assert "did you mean GATEWAY_MAX_SESSIONS?" in done.stderr


def test_check_config_shows_what_is_in_effect_and_no_secret():
    done = run("check-config", "--json", GATEWAY_MAX_SESSIONS="7", LIVEAVATAR_API_KEY="a-real-secret")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert (shown["max_sessions"], shown["api_key"]) == (7, "set")
    assert "a-real-secret" not in done.stdout + done.stderr


def test_check_config_says_what_warm_sessions_cost(tmp_path):
    path = write_pool_file(tmp_path, {"desk": profile(min=2, payer="acme")})
    done = run("check-config", "--json", GATEWAY_POOL_FILE=str(path))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["warm_desk"]
    assert said.startswith("2 sessions in each process, at most 3 in all together, paid by acme: about 1")
    assert "credits per hour and process" in said


def test_check_config_keeps_log_lines_out_of_its_output():
    url = "http://127.0.0.1:9"
    done = run("check-config", "--online", "--json", LIVEAVATAR_API_URL=url, LIVEAVATAR_API_KEY="a-real-secret")
    assert done.returncode == 78
    assert done.stdout == ""
    assert "UPSTREAM_UNREACHABLE" in done.stderr
    assert "upstream.unreachable" in done.stderr


def test_check_config_without_a_key_exits_as_its_help_promises():
    for arguments in (["check-config"], ["check-config", "--json"], ["check-config", "--online"]):
        done = run(*arguments)
        assert done.returncode == 78
        assert "LIVEAVATAR_API_KEY" in done.stderr
        assert "Traceback" not in done.stderr
    assert json.loads(run("check-config", "--json").stdout)["api_key"] == "not set"


def test_a_taken_port_is_told_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        key = {"LIVEAVATAR_API_KEY": "key", "GATEWAY_REGISTRY_FILE": "off"}
        for name, settings in {
            "GATEWAY_PORT": {"GATEWAY_PORT": f"{port}"},
            "GATEWAY_METRICS_PORT": {"GATEWAY_PORT": "0", "GATEWAY_METRICS_PORT": f"{port}"},
            "GATEWAY_ADMIN_PORT": {"GATEWAY_PORT": "0", "GATEWAY_ADMIN_PORT": f"{port}"},
        }.items():
            done = run("serve", **key, **settings)
            assert done.returncode == 78
            assert done.stderr == (
                f"liveavatar-gateway: {name}: cannot listen on 127.0.0.1:{port}: the port is in use; "
                "choose another port\n"
            )


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "192.0.2.1 is not an address of"), ("no.such.invalid", "no.such.invalid is")],
)
def test_an_address_that_cannot_be_listened_on_is_told_with_its_setting(host, words):
    done = run(
        "serve",
        LIVEAVATAR_API_KEY="key",
        GATEWAY_REGISTRY_FILE="off",
        GATEWAY_ANONYMOUS="1",
        GATEWAY_PLAINTEXT="behind-proxy",
        GATEWAY_HOST=host,
        GATEWAY_PORT="0",
    )
    assert done.returncode == 78
    *logged, told = done.stderr.splitlines()
    assert [line.partition("protection=")[2] for line in logged] == ["anonymous", "plaintext"]
    assert told.startswith(f"liveavatar-gateway: GATEWAY_HOST: cannot listen on {host}:0: {words}")


def test_an_address_for_operators_that_cannot_be_listened_on_is_told_with_its_setting(open_to_others):
    done = run(
        "serve",
        LIVEAVATAR_API_KEY="key",
        GATEWAY_REGISTRY_FILE="off",
        GATEWAY_PORT="0",
        GATEWAY_ADMIN_HOST="2001:db8::1",
        GATEWAY_ADMIN_PORT="0",
        **{f"GATEWAY_{name.upper()}": value for name, value in open_to_others.items()},
    )
    assert done.returncode == 78
    logged, told = done.stderr.splitlines()
    assert "tls.certificate" in logged
    assert told.startswith("liveavatar-gateway: GATEWAY_ADMIN_HOST: cannot listen on [2")


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_a_broken_certificate_is_told_as_what_it_is(tmp_path, command):
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = make_certificate(tmp_path / "other")
    broken = tmp_path / "broken.pem"
    broken.write_bytes(certificate.read_bytes()[:200])
    for cert_file, key_file, words in [
        (broken, key, f"GATEWAY_TLS_CERT_FILE: {broken} holds no usable PEM certificate"),
        (certificate, broken, f"GATEWAY_TLS_KEY_FILE: {broken} holds no usable PEM private key"),
        (certificate, other_key, f"GATEWAY_TLS_KEY_FILE: {other_key} is not the key of the certificate"),
        (tmp_path / "none", key, f"GATEWAY_TLS_CERT_FILE: {tmp_path / 'none'} cannot be read: No such file"),
    ]:
        done = run(
            command,
            LIVEAVATAR_API_KEY="key",
            GATEWAY_REGISTRY_FILE="off",
            GATEWAY_PORT="0",
            GATEWAY_TLS_CERT_FILE=str(cert_file),
            GATEWAY_TLS_KEY_FILE=str(key_file),
        )
        assert done.returncode == 78
        assert words in done.stderr


@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_unusable_authorities_of_callers_are_named(tmp_path, command):
    certificate, key = make_certificate(tmp_path)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    done = run(
        command,
        LIVEAVATAR_API_KEY="key",
        GATEWAY_REGISTRY_FILE="off",
        GATEWAY_PORT="0",
        GATEWAY_TLS_CERT_FILE=str(certificate),
        GATEWAY_TLS_KEY_FILE=str(key),
        GATEWAY_TLS_CLIENT_CA_FILE=str(broken),
    )
    assert done.returncode == 78
    assert f"GATEWAY_TLS_CLIENT_CA_FILE: {broken} holds no usable PEM certificate" in done.stderr


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_gateway_listens_on_ipv6(emulator, host):
    with start_gateway(emulator.url, host=host, admin_host=host, admin_port=0, metrics_port=0) as found:
        bracketed = f"[{host.strip('[]')}]"
        assert found.address.startswith(f"{bracketed}:")
        assert found.admin_address.startswith(f"{bracketed}:")
        assert found.process.logged(f"listens on {found.address}")
        assert run("sessions", "list", "--address", found.address).returncode == 0
        assert run("admin", "status", "--address", found.admin_address).returncode == 0
        assert httpx.get(str(found.metrics)).status_code == 200


def test_a_gateway_listens_on_all_addresses_of_both_versions(emulator, open_to_others):
    certificate, key = open_to_others["tls_cert_file"], open_to_others["tls_key_file"]
    shown = ("--ca", open_to_others["tls_client_ca_file"], "--client-cert", certificate, "--client-key", key)
    with start_gateway(
        emulator.url, host="::", admin_host="::", admin_port=0, metrics_port=0, **open_to_others
    ) as found:
        assert found.address.startswith("[::]:")
        assert found.admin_address.startswith("[::]:")
        assert found.process.logged(f"listens on {found.address}")
        for host in ("[::1]", "127.0.0.1"):
            addresses = found.address.replace("[::]", host), found.admin_address.replace("[::]", host)
            assert run("sessions", "list", "--address", addresses[0], *shown).returncode == 0
            assert run("admin", "status", "--address", addresses[1], *shown).returncode == 0
            assert httpx.get(str(found.metrics).replace("[::]", host)).status_code == 200


def test_an_ipv6_address_without_brackets_gets_the_right_form():
    done = run("sessions", "list", "--address", "::1:50051")
    assert done.returncode == 2
    assert "[::1]:50051" in done.stderr


def test_json_logs_keep_the_types_of_settings(emulator):
    with start_gateway(emulator.url, log_format="json") as found:
        assert found.process.logged('"serve.config"')
        lines = [json.loads(line) for line in found.process.log.splitlines() if line.startswith("{")]
        [shown] = [line for line in lines if line["event"] == "serve.config"]
        assert (shown["max_sessions"], shown["reflection"], shown["admin_port"]) == (200, False, None)
        assert (shown["drain_grace_s"], shown["log_format"], shown["api_key"]) == (30.0, "json", "set")


# --- say


def test_say_speaks_a_file_and_ends_its_session(emulator, shared_gateway, client, make_wav):
    path, pcm = make_wav(0.6)
    done = run("say", str(path), "--avatar", AVATAR, "--address", shared_gateway.address, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["played_s"], said["total_s"]) == ("played", 0.6, 0.6)
    assert client.get_session(said["session_id"]).end_reason == "caller_ended"
    expected = convert_all(AudioFormat(Encoding.PCM_S16LE, RATE_HZ, 1), pcm)
    assert upstream_audio(emulator, client, said["session_id"]) == expected


def test_say_speaks_raw_audio_from_standard_input(emulator, shared_gateway, client):
    raw = bytes(range(256)) * 16
    arguments = [
        "--rate",
        "8000",
        "--encoding",
        "mulaw",
        "--sandbox",
        "--address",
        shared_gateway.address,
        "--json",
    ]
    done = run("say", "-", *arguments, stdin=raw)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["played_s"]) == ("played", 0.512)
    expected = convert_all(AudioFormat(Encoding.MULAW, 8000, 1), raw)
    assert upstream_audio(emulator, client, said["session_id"]) == expected


def test_say_tells_people_what_was_heard_and_keeps_the_token_to_itself(emulator, shared_gateway, make_wav):
    path, _ = make_wav(0.3)
    arguments = ["say", str(path), "--sandbox", "--address", shared_gateway.address]
    done = run(*arguments)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "played: 0.30 of 0.30 s were heard"
    assert "token" not in done.stdout + done.stderr
    assert "&token=ey" in run(*arguments, "--show-room").stderr


def test_say_with_a_handle_leaves_the_session_alive(emulator, shared_gateway, client, make_wav):
    created = client.create_session(AVATAR)
    path, _ = make_wav(0.3)
    done = run("say", str(path), "--handle", created.handle, "--address", shared_gateway.address)
    assert done.returncode == 0, done.stderr
    assert client.get_session(created.session.id).state == "ready"
    assert client.end_session(created.session.id).usage.utterance_count == 1


def test_say_has_the_avatar_appear_in_a_room_of_the_callers_own(emulator, make_wav):
    path, _ = make_wav(0.3)
    livekit = {"livekit_key": "key", "livekit_secret": "a secret of at least thirty-two bytes"}
    with (
        start_gateway(emulator.url, livekit_url="wss://rooms.example.com", **livekit) as found,
        Client(found.address) as rooms,
    ):
        address = ["--address", found.address]
        done = run("say", str(path), "--sandbox", "--livekit-room", "desk-7", "--auto-rotate", *address, "--json")
        assert done.returncode == 0, done.stderr
        session = rooms.get_session(json.loads(done.stdout)["session_id"])
        assert emulator.session(session.upstream_session_id)["livekit_room"] == "desk-7"


@pytest.mark.parametrize("content", [b"ID3\x04" + bytes(500), b"", b"RIFF", b"hello\n" * 100], ids=len)
def test_say_refuses_what_is_no_wav_file_before_it_costs_anything(emulator, shared_gateway, tmp_path, content):
    path = tmp_path / "speech.mp3"
    path.write_bytes(content)
    before = emulator.state()["sessions"]["started_total"]
    done = run("say", str(path), "--sandbox", "--address", shared_gateway.address)
    assert done.returncode == 1
    assert "speech.mp3: " in done.stderr
    assert emulator.state()["sessions"]["started_total"] == before


def test_say_names_the_reason_of_a_refusal_and_the_next_step(emulator, shared_gateway, make_wav):
    path, _ = make_wav(0.3)
    done = run("say", str(path), "--avatar", "nobody", "--address", shared_gateway.address, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["reason"] == "INVALID_FIELD"
    assert "INVALID_FIELD: " in done.stderr

    mp3 = b"ID3\x04" + bytes(500)
    done = run("say", "-", "--sandbox", "--address", shared_gateway.address, stdin=mp3)
    assert done.returncode == 1
    assert "AUDIO_CONTAINER_DETECTED: " in done.stderr
    assert "convert it to WAV" in done.stderr


@pytest.mark.parametrize("how", ["-", "/dev/stdin", "<(...)"])
def test_say_takes_a_wav_from_a_pipe(emulator, shared_gateway, client, make_wav, tmp_path, how):
    """As a program writes it that cannot go back to fill in the sizes, here with half a sample too much."""
    path, pcm = make_wav(0.3)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", 0x7FFFFFFF)
    content += b"\x01"
    options = ["--sandbox", "--address", shared_gateway.address, "--json"]
    if how == "<(...)":
        path.write_bytes(content)
        line = f"{shlex.join(PROGRAM)} say <(cat {shlex.quote(str(path))}) {shlex.join(options)}"
        shown = subprocess.run(
            ["bash", "-c", line], capture_output=True, env=clean_environment(), check=False, timeout=50
        )
        done = subprocess.CompletedProcess(line, shown.returncode, shown.stdout.decode(), shown.stderr.decode())
    else:
        done = run("say", how, *options, stdin=bytes(content))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["played_s"]) == ("played", 0.3)
    expected = convert_all(AudioFormat(Encoding.PCM_S16LE, RATE_HZ, 1), pcm)
    assert upstream_audio(emulator, client, said["session_id"]) == expected


def test_say_takes_half_a_sample_at_the_end_of_raw_audio_for_none(emulator, shared_gateway, client):
    done = run("say", "-", "--sandbox", "--address", shared_gateway.address, "--json", stdin=bytes(9_601))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["outcome"], said["played_s"]) == ("played", 0.2)
    assert upstream_audio(emulator, client, said["session_id"]) == bytes(9_600)


def test_say_refuses_a_damaged_wav_from_a_pipe_before_it_costs_anything(emulator, shared_gateway):
    before = emulator.state()["sessions"]["started_total"]
    done = run("say", "-", "--sandbox", "--address", shared_gateway.address, stdin=b"RIFF\0\0\0\0WAVEfmt ")
    assert done.returncode == 1
    assert "standard input: the file ends before its samples" in done.stderr
    assert emulator.state()["sessions"]["started_total"] == before


def test_say_takes_an_empty_avatar_for_a_mistake_and_not_for_the_sandbox(emulator, shared_gateway, make_wav):
    path, _ = make_wav(0.1)
    done = run("say", str(path), "--avatar", "", "--address", shared_gateway.address)
    assert done.returncode == 1
    assert "INVALID_FIELD: open.spec.avatar_id" in done.stderr


def test_say_with_nothing_to_speak_fails(emulator, shared_gateway):
    done = run("say", "-", "--sandbox", "--address", shared_gateway.address)
    assert done.returncode == 1
    assert "no audio was received" in done.stderr


def test_say_interrupted_by_someone_else_fails(emulator, shared_gateway, client, make_wav):
    path, _ = make_wav(20.0)
    with run_in_background("say", str(path), "--avatar", AVATAR, "--address", shared_gateway.address) as saying:
        session_id = saying.stdout.readline().split()[1].strip(",")
        wait_until(lambda: client.get_session(session_id).pose == "talking")
        client.interrupt_session(session_id)
        rest = saying.stdout.read()
        assert saying.wait(30) == 1
    assert "interrupted: " in rest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_silences_the_avatar_and_ends_the_session(
    emulator, shared_gateway, client, make_wav, number, code
):
    path, _ = make_wav(20.0)
    with run_in_background("say", str(path), "--avatar", AVATAR, "--address", shared_gateway.address) as saying:
        session_id = saying.stdout.readline().split()[1].strip(",")
        wait_until(lambda: client.get_session(session_id).pose == "talking")
        saying.send_signal(number)
        rest = saying.stdout.read()
        assert saying.wait(30) == code
    assert "interrupted: " in rest
    assert "Traceback" not in rest
    record = client.get_session(session_id)
    assert (record.state, record.end_reason) == ("ended", "caller_ended")
    assert len(emulator.session(record.upstream_session_id)["interrupts"]) == 1


@pytest.mark.timeout(120)
def test_ctrl_c_ends_say_though_its_gateway_is_gone(emulator, make_wav):
    path, _ = make_wav(20.0)
    with (
        start_gateway(emulator.url, detach_grace_s=250) as found,
        Client(found.address) as client,
        run_in_background("say", str(path), "--avatar", AVATAR, "--address", found.address) as saying,
    ):
        session_id = saying.stdout.readline().split()[1].strip(",")
        wait_until(lambda: client.get_session(session_id).pose == "talking")
        found.process.kill()
        saying.send_signal(signal.SIGINT)
        assert saying.wait(60) == 130  # and does not wait for the session's grace
        rest = saying.stdout.read()
    assert "did not answer in time" in rest
    assert "Traceback" not in rest


def run_in_background(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *PROGRAM[1:], *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["say"],
        ["say", "FILE"],
        ["say", "FILE", "--sandbox", "--handle", "h"],
        ["say", "FILE", "--handle", "h", "--auto-rotate"],
        ["say", "FILE", "--handle", "h", "--livekit-room", "desk-7"],
        ["say", "FILE", "--sandbox", "--rate", "8000"],
        ["say", "-", "--sandbox", "--rate", "96000"],
        ["say", "no-such-file.wav", "--sandbox"],
        ["sessions", "list", "--label", "nokey"],
        ["sessions", "list", "--state", "asleep"],
        ["sessions", "list", "--address", ""],
        ["say", "FILE", "--sandbox", "--address", "one:1,,two:2"],
        ["admin", "status", "--address", " "],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_says_why(make_wav, arguments):
    path, _ = make_wav(0.1)
    done = run(*(str(path) if argument == "FILE" else argument for argument in arguments))
    assert done.returncode == 2
    assert "Error: " in done.stderr


# --- sessions


def test_sessions_are_listed_shown_and_ended(emulator, shared_gateway, client):
    address = ["--address", shared_gateway.address]
    mark = uuid.uuid4().hex
    ids = [client.create_session(AVATAR, labels={"test": mark, "n": str(n)}).session.id for n in range(3)]

    def listed(*filters: str) -> list[dict[str, Any]]:
        done = run("sessions", "list", "--json", "--label", f"test={mark}", *filters, *address)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert [found["id"] for found in listed()] == ids[::-1]
    assert [found["id"] for found in listed("--label", "n=1")] == [ids[1]]
    assert [found["id"] for found in listed("--limit", "2")] == ids[:0:-1]

    ended = run("sessions", "end", ids[0], "--json", *address)
    assert ended.returncode == 0
    record = json.loads(ended.stdout)
    assert (record["id"], record["state"], record["end_reason"]) == (ids[0], "ended", "caller_ended")
    assert emulator.session(record["upstream_session_id"])["phase"] == "ended"
    assert [found["id"] for found in listed("--state", "ended")] == [ids[0]]
    assert [found["id"] for found in listed("--state", "ready", "--state", "connecting")] == ids[:0:-1]

    table = run("sessions", "list", "--label", f"test={mark}", *address).stdout.splitlines()
    assert table[0].split() == ["id", "state", "pose", "attached", "age", "expires", "in", "reason"]
    assert [line.split()[0] for line in table[1:]] == ids[::-1]
    assert table[3].split()[-1] == "caller_ended"

    shown = run("sessions", "show", ids[1], *address).stdout
    fields = dict(line.split(None, 1) for line in shown.splitlines())
    assert (fields["id"], fields["state"], fields["attached"]) == (ids[1], "ready", "no")
    assert float(fields["usage.billed_duration_s"]) > 0
    assert fields["labels"] == f"n=1 test={mark}"
    for session_id in ids[1:]:
        assert "ended" in run("sessions", "end", session_id, *address).stdout


def test_no_sessions_is_said(emulator, shared_gateway):
    label = f"test={uuid.uuid4()}"
    assert run("sessions", "list", "--label", label, "--address", shared_gateway.address).stdout == "no sessions\n"


@pytest.mark.parametrize("command", ["show", "end"])
def test_an_unknown_session_is_told_with_the_next_step(emulator, shared_gateway, command):
    done = run("sessions", command, str(uuid.uuid4()), "--address", shared_gateway.address)
    assert done.returncode == 1
    assert "SESSION_NOT_FOUND: " in done.stderr
    assert "sessions list" in done.stderr


def test_tls_needs_a_certificate_that_is_trusted(emulator, tmp_path):
    certificate, key = make_certificate(tmp_path)
    with start_gateway(emulator.url, tls_cert_file=certificate, tls_key_file=key) as found:
        assert run("sessions", "list", "--ca", str(certificate), "--address", found.address).returncode == 0
        for distrust in ([], ["--tls"]):
            done = run("sessions", "list", *distrust, "--address", found.address)
            assert done.returncode == 1
            assert "no gateway answers" in done.stderr
            assert "--tls" in done.stderr


# --- sessions watch


@contextlib.contextmanager
def watched(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`sessions watch`, which hears Ctrl-C."""
    watching = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *PROGRAM[1:], "sessions", "watch", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )
    with watching:
        try:
            yield watching
        finally:
            watching.kill()


def test_what_happens_in_a_session_is_printed_until_its_end(emulator, shared_gateway, client):
    created = client.create_session(AVATAR).session
    with watched(created.id, "--json", "--address", shared_gateway.address) as watching:
        first = json.loads(watching.stdout.readline())
        assert first["snapshot"]["session"]["id"] == created.id
        client.end_session(created.id)
        lines = [json.loads(line) for line in watching.stdout]
        assert watching.wait(20) == 0
    sequences = [int(line["event"]["event"]["sequence"]) for line in lines[:-1]]
    assert sequences == list(range(int(first["snapshot"]["sequence"]) + 1, sequences[-1] + 1))
    assert lines[-2]["event"]["event"]["ended"]["session"]["end_reason"] == "END_REASON_CALLER_ENDED"
    assert lines[-1]["removed"]["session_id"] == created.id


def test_sessions_that_come_are_watched_by_label_until_ctrl_c(emulator, shared_gateway, client):
    mark = uuid.uuid4().hex
    present = client.create_session(AVATAR, labels={"mark": mark}).session
    with watched("--label", f"mark={mark}", "--address", shared_gateway.address) as watching:
        snapshot = watching.stdout.readline().split(None, 4)
        assert (snapshot[1], snapshot[3]) == (present.id, "snapshot")
        created = client.create_session(AVATAR, labels={"mark": mark}).session
        client.end_session(created.id)
        told = []
        while not told or told[-1][3] != "ended":
            line = watching.stdout.readline()
            assert line, "it ended before the session did"
            told.append(line.split(None, 4))
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    client.end_session(present.id)
    assert {line[1] for line in told} == {created.id}
    assert [int(line[2]) for line in told[1:]] == list(range(int(told[0][2]) + 1, int(told[-1][2]) + 1))
    assert ["state_changed", "state=READY previous_state=CONNECTING\n"] in [line[3:] for line in told]
    assert told[-1][4] == "end_reason=CALLER_ENDED\n"


def test_a_session_that_is_not_there_is_said_and_not_waited_for(emulator, shared_gateway):
    done = run("sessions", "watch", "nobody", "--address", shared_gateway.address)
    assert done.returncode == 0
    assert "removed" in done.stdout
    assert "no session 'nobody'" in done.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_a_watch_outlives_the_gateway_that_was_killed(emulator, tmp_path, as_json):
    settings = {"registry_file": str(tmp_path / "registry.db")}
    with start_gateway(emulator.url, **settings) as found, Client(found.address) as client:
        created = client.create_session(AVATAR, detach_grace=60).session
        arguments = [created.id, "--address", found.address, *(["--json"] if as_json else [])]
        with watched(*arguments) as watching:
            watching.stdout.readline()
            found.process.kill()
            port = int(found.address.rpartition(":")[2])
            with start_gateway(emulator.url, port=port, **settings):
                client.end_session(created.id)
                lines = watching.stdout.readlines()
                assert watching.wait(20) == 0
    assert ('{"resumed": ' if as_json else "reconnected to ") in lines[0]
    assert "adopted" in "".join(lines)
    assert "ended" in lines[-1 - as_json]


def test_a_watch_of_no_gateway_says_so(nowhere):
    done = run("sessions", "watch", "--address", nowhere)
    assert done.returncode == 1
    assert f"no gateway answers on {nowhere}" in done.stderr


# --- admin


def test_a_gateway_is_operated_from_the_command_line(emulator):
    with start_gateway(emulator.url, admin_port=0) as found, Client(found.address) as client:
        address = ["--address", found.admin_address]

        def told(*arguments: str) -> Any:
            done = run("admin", *arguments, "--json", *address)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        # Nobody holds it, and a dozen commands of a busy machine may take longer than the usual grace.
        created = client.create_session(AVATAR, detach_grace=300).session
        status = told("status")
        assert (status["session_count"], status["drain_deadline"]) == (1, None)
        assert [one["id"] for one in told("sessions")] == [created.id]
        assert told("sessions")[0]["owner"] == status["owner"]
        table = run("admin", "sessions", *address).stdout.splitlines()
        assert table[1].split()[:3] == [created.id, "ready", status["owner"]]

        deadline = told("drain", "--grace", "600")["deadline"]
        assert told("status")["drain_deadline"] == deadline
        refused = run("say", "-", "--sandbox", "--address", found.address)
        assert (refused.returncode, "DRAINING" in refused.stderr) == (1, True)
        assert "9 min" in run("admin", "drain", "--grace", "590", *address).stdout
        assert told("undrain") == {"was_draining": True}
        assert run("admin", "undrain", *address).stdout == "the gateway was not draining\n"

        ejected = told("eject", created.id)
        assert (ejected["id"], ejected["state"], ejected["end_reason"]) == (created.id, "ended", "operator")
        assert run("admin", "eject", "nobody", *address).returncode == 1
        assert ["session_count", "0"] in [
            row.split() for row in run("admin", "status", *address).stdout.splitlines()
        ]


def test_operators_are_told_how_a_gateway_gets_a_port_for_them(nowhere):
    done = run("admin", "status", "--address", nowhere)
    assert done.returncode == 1
    assert f"no gateway answers on {nowhere}" in done.stderr
    assert "GATEWAY_ADMIN_PORT" in done.stderr


@pytest.mark.parametrize("command", [["sessions", "list"], ["sessions", "end", "x"], ["say", "FILE", "--sandbox"]])
def test_a_gateway_that_is_not_there_is_told_with_the_next_step(nowhere, make_wav, command):
    path, _ = make_wav(0.1)
    done = run(*(str(path) if argument == "FILE" else argument for argument in command), "--address", nowhere)
    assert done.returncode == 1
    assert f"no gateway answers on {nowhere}" in done.stderr
    assert "liveavatar-gateway serve" in done.stderr
