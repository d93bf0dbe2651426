"""The blocking client: the same things, without an event loop."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from clients.python.sound import wav

from liveavatar.gateway import (
    TLS,
    AudioContainerDetected,
    AudioFormat,
    Client,
    ClientClosed,
    ConnectionLost,
    DeadlineExceeded,
    EndReason,
    PlaintextRefused,
    Pose,
    PoseChangedEvent,
    SessionClosed,
    SessionEnded,
    SessionEndedEvent,
    SessionNotFound,
    SessionState,
    UtteranceNotFound,
)
from testkit.caller import AVATAR
from testkit.speech import real_time, sound

SPOKEN = sound(0.6)


def test_bytes_are_spoken_exactly(blocking, emulator):
    with blocking.open_session(AVATAR) as session:
        utterance = session.say(SPOKEN)
        assert utterance.started(timeout=20)
        outcome = utterance.result(timeout=20)
        assert outcome.kind == "played"
        assert outcome.played == timedelta(seconds=0.6)
        assert emulator.audio(session.record.upstream_session_id) == SPOKEN


def test_a_blocking_generator_is_spoken_as_it_comes(blocking, emulator):
    """In real time, from a thread of its own."""
    threads = set()

    def speaks():
        begun_s = time.monotonic()
        for step in real_time(len(SPOKEN)):
            time.sleep(max(begun_s + step.at_s - time.monotonic(), 0))
            threads.add(threading.current_thread())
            start = round(step.at_s * 48_000)
            yield SPOKEN[start : start + step.size]

    with blocking.open_session(AVATAR) as session:
        assert session.say(speaks()).result(timeout=20).kind == "played"
        assert emulator.audio(session.record.upstream_session_id) == SPOKEN
    assert threading.main_thread() not in threads


def test_a_generator_may_itself_use_the_client(blocking):
    """It runs in no thread of the client, so it may wait for it."""

    def speaks():
        yield SPOKEN[:9600]
        assert blocking.server_info().version
        yield SPOKEN[9600:]

    with blocking.open_session(AVATAR) as session:
        assert session.say(speaks()).result(timeout=20).kind == "played"


def test_a_file_is_spoken(blocking, tmp_path):
    path = wav(tmp_path / "said.wav", bytes(16_000), AudioFormat(sample_rate_hz=16_000))
    with blocking.open_session(AVATAR) as session:
        assert session.say(path).result(timeout=20).kind == "played"
        with pytest.raises(FileNotFoundError):
            session.say(tmp_path / "none.wav").result(timeout=20)


def test_an_interrupt_says_how_much_was_heard(blocking):
    with blocking.open_session(AVATAR) as session:
        utterance = session.say(sound(20))
        utterance.started(timeout=20)
        for progress in utterance.progress_updates(timeout=20):
            if progress.played > timedelta(seconds=0.3):
                break
        outcome = utterance.interrupt()
        assert outcome.kind == "interrupted"
        assert timedelta(seconds=0.3) < outcome.played < timedelta(seconds=20)
        assert session.interrupt().interrupted == ()
        with pytest.raises(UtteranceNotFound):
            session.interrupt("never was")
        session.wait_for_playout(timeout=20)


def test_events_and_listening(blocking):
    with blocking.open_session(AVATAR) as session:
        session.ready(timeout=20)
        assert session.state is SessionState.READY
        with session.listening():
            # One that is taken back at once is never sent.
            give_up_s = time.monotonic() + 20
            while session.pose is not Pose.LISTENING and time.monotonic() < give_up_s:
                time.sleep(0.02)
        assert session.end().end_reason is EndReason.CALLER_ENDED
        events = list(session.events())
        assert isinstance(events[-1], SessionEndedEvent)
        assert Pose.LISTENING in [event.pose for event in events if isinstance(event, PoseChangedEvent)]
        with pytest.raises(SessionEnded):
            session.say(SPOKEN)


def test_waiting_for_an_event_may_time_out(blocking):
    with blocking.open_session(AVATAR) as session:
        session.ready()
        seen = []
        with pytest.raises(DeadlineExceeded):
            seen.extend(event.sequence for event in session.events(timeout=0.3))
        session.start_listening()
        assert next(session.events(after_sequence=seen[-1], timeout=20)).sequence == seen[-1] + 1


def test_errors_are_the_same(blocking):
    with pytest.raises(SessionNotFound):
        blocking.get_session("nobody")
    with blocking.open_session(AVATAR) as session, pytest.raises(AudioContainerDetected):
        session.say(b"OggS" + bytes(100)).result(timeout=20)
    closed = blocking.open_session(AVATAR)
    with pytest.raises(SessionClosed):
        closed.ready()


def test_an_exception_ends_the_session_and_goes_on(blocking):
    sessions = []

    def fails():
        with blocking.open_session(AVATAR) as session:
            sessions.append(session)
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert blocking.get_session(sessions[0].id).state is SessionState.ENDED


def test_sessions_are_created_listed_moved_and_ended(blocking):
    created = blocking.create_session(AVATAR, labels={"who": "blocking"})
    assert [record.id for record in blocking.list_sessions(labels={"who": "blocking"})] == [created.session.id]
    with blocking.resume_session(created.handle) as session:
        handle = session.detach()
    with blocking.resume_session(handle) as session:
        assert session.say(SPOKEN).result(timeout=20).kind == "played"
        assert blocking.interrupt_session(session.id).interrupted == ()
    assert blocking.end_session(created.session.id).end_reason is EndReason.CALLER_ENDED


def test_a_session_is_prepared_and_taken(blocking):
    reservation = blocking.prepare_session(AVATAR, hold=30)
    created = blocking.create_session(AVATAR, reservation=reservation)
    blocking.end_session(created.session.id)
    with blocking.open_session(AVATAR, reservation=blocking.prepare_session(AVATAR)) as session:
        assert session.say(SPOKEN).result(timeout=20).kind == "played"


def test_many_threads_share_a_client(blocking, emulator):
    """Each with a session of its own, and some with the same."""

    def converse(number: int) -> bytes:
        with blocking.open_session(AVATAR) as session:
            session.say(sound(0.3, seed=number)).result(timeout=30)
            return emulator.audio(session.record.upstream_session_id)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(converse, range(6))) == [sound(0.3, seed=number) for number in range(6)]
    with blocking.open_session(AVATAR) as session, ThreadPoolExecutor(4) as threads:
        outcomes = threads.map(lambda number: session.say(sound(0.1, seed=number)).result(timeout=30), range(4))
        assert [outcome.kind for outcome in outcomes] == ["played"] * 4


def test_closing_ends_sessions_and_the_thread(blocking, shared_gateway):
    client = Client(shared_gateway.address)
    session = client.open_session(AVATAR).open()
    utterance = session.say(sound(60))
    utterance.started(timeout=20)
    failures = []

    def waits():
        try:
            utterance.result()
        except (SessionEnded, ClientClosed) as error:
            failures.append(error)

    waiting = threading.Thread(target=waits)
    waiting.start()
    threads = threading.active_count()
    client.close()
    client.close()
    waiting.join(20)
    assert len(failures) == 1
    assert blocking.get_session(session.id).end_reason is EndReason.CALLER_ENDED
    assert threading.active_count() <= threads - 2
    with pytest.raises(ClientClosed):
        client.server_info()
    with pytest.raises(ClientClosed):
        session.end()


def test_no_gateway_is_told_soon():
    with Client("127.0.0.1:1") as client, pytest.raises(ConnectionLost):
        client.open_session(AVATAR).open()


def test_tls(tls_gateway, identity):
    tls = TLS(ca_file=identity.certificate_path)
    with (
        Client(tls_gateway.address, credentials=lambda: "token", tls=tls) as client,
        client.open_session(AVATAR) as session,
    ):
        assert session.say(SPOKEN).result(timeout=20).kind == "played"


def test_credentials_without_tls_are_refused():
    with pytest.raises(PlaintextRefused, match="tls=True"):
        Client("gateway:1", credentials="token")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process there")
def test_ctrl_c_ends_the_session_and_the_program(blocking, shared_gateway):
    """KeyboardInterrupt comes out of the call that waits, and leaving the blocks still ends the session."""
    program = f"""
        from liveavatar.gateway import Client
        with Client({shared_gateway.address!r}) as client, client.open_session({AVATAR!r}) as session:
            utterance = session.say(bytes(48_000 * 60))
            utterance.started()
            print(session.id, flush=True)
            utterance.result()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        session_id = process.stdout.readline().strip()
        assert blocking.get_session(session_id).state is SessionState.READY
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in errors
    assert process.returncode != 0
    assert blocking.get_session(session_id).end_reason is EndReason.CALLER_ENDED


def test_a_program_that_forgets_to_close_still_exits(shared_gateway):
    program = f"""
        from liveavatar.gateway import Client
        client = Client({shared_gateway.address!r})
        print(client.server_info().version)
        session = client.open_session({AVATAR!r}, detach_grace=0).open()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
