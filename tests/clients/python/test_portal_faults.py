"""The blocking client where things happen to its process, its thread or its loop."""

import concurrent.futures
import subprocess
import sys
import textwrap
import threading

import pytest

from liveavatar.gateway import Client, ClientClosed, DeadlineExceeded, EndReason, GatewayError
from testkit.caller import AVATAR
from testkit.speech import sound

SPOKEN = sound(0.3)
FORKING = """
    import os, sys, time
    from liveavatar.gateway import AsyncClient, Client, ForkedClient

    def child_of(work):
        '''Run work in a fork; a child that hangs is killed, and its exit code is told.'''
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            work()
            sys.exit(7)  # as a program ends, with all that the interpreter does then
        until = time.monotonic() + 20
        while time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                print("child", os.waitstatus_to_exitcode(status), flush=True)
                return
            time.sleep(0.02)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        print("child hung", flush=True)

    def refused(work):
        try:
            work()
        except ForkedClient as error:
            print("refused", str(os.getppid()) in error.message, flush=True)
"""


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_a_fork_is_named_and_ends_nothing(blocking, shared_gateway):
    """In a child of a process with a live session, by every call, without a wait and also at its exit."""
    lines = run(f"""
        with Client({shared_gateway.address!r}) as client, client.open_session({AVATAR!r}) as session:
            print(session.id)
            utterance = session.say(bytes(4800))
            utterance.result()
            watch = client.watch(session.id).open()

            def child():
                for work in (
                    client.server_info,
                    lambda: client.open_session({AVATAR!r}).open(),
                    lambda: list(client.list_sessions()),
                    session.end,
                    session.start_listening,
                    lambda: session.say(b""),
                    lambda: next(session.events()),
                    utterance.result,
                    watch.next,
                    lambda: Client({shared_gateway.address!r}).server_info(),
                ):
                    refused(work)
                watch.close()
                client.close()

            child_of(child)
            print(session.say(bytes(4800)).result().kind.value)
            watch.close()
    """)
    assert lines[1:] == ["refused True"] * 10 + ["child 7", "played"]
    assert blocking.get_session(lines[0]).end_reason is EndReason.CALLER_ENDED


def test_a_fork_that_leaves_the_blocks_ends_nothing(shared_gateway):
    lines = run(f"""
        parent = os.getpid()
        try:
            with Client({shared_gateway.address!r}) as client, client.open_session({AVATAR!r}) as session:
                def child():
                    raise LookupError
                child_of(child)
                print(session.say(bytes(4800)).result().kind.value)
        except LookupError:
            assert os.getpid() != parent
            sys.exit(3)
    """)
    assert lines == ["child 3", "played"]


def test_a_client_of_the_forks_own_works_where_the_parent_made_none(shared_gateway):
    lines = run(f"""
        child_of(lambda: print(bool(Client({shared_gateway.address!r}).server_info().version), flush=True))
        with Client({shared_gateway.address!r}) as client:
            print(bool(client.server_info().version))
    """)
    assert lines == ["True", "child 7", "True"]


def test_a_fork_is_named_to_the_asyncio_client_too(shared_gateway):
    lines = run(f"""
        import asyncio
        client = AsyncClient({shared_gateway.address!r})

        async def use():
            print(bool((await client.server_info()).version), flush=True)
            def child():
                # A loop of its own: the parent's does not run here.
                asyncio._set_running_loop(None)
                for work in (client.server_info, client.open_session({AVATAR!r}).open, client.watch().open):
                    refused(lambda work=work: asyncio.new_event_loop().run_until_complete(work()))
                os._exit(7)
            child_of(child)
            await client.close()

        asyncio.run(use())
    """)
    assert lines == ["True"] + ["refused True"] * 3 + ["child 7"]


def test_sessions_are_ended_when_a_program_forgets_to(blocking, shared_gateway):
    lines = run(f"""
        session = Client({shared_gateway.address!r}).open_session({AVATAR!r}).open()
        print(session.id)
    """)
    assert blocking.get_session(lines[0]).end_reason is EndReason.CALLER_ENDED


class Aborts(BaseException):
    """No error, and nothing that Python knows."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Aborts(),
        LookupError(),
        concurrent.futures.CancelledError(),
    ],
)
@pytest.mark.parametrize("how", ["iterator", "async iterator", "closing"])
def test_whatever_an_iterator_raises_ends_its_utterance_only(blocking, error, how):
    def speaks():
        try:
            yield SPOKEN[:4800]
            if how == "iterator":
                raise error
            yield from [SPOKEN] * 1000
        finally:
            if how == "closing":
                raise error

    async def speaks_async():
        yield SPOKEN[:4800]
        raise error

    with blocking.open_session(AVATAR) as session, blocking.open_session(AVATAR) as other:
        failing = session.say(speaks_async() if how == "async iterator" else speaks())
        behind = session.say(SPOKEN)
        if how == "closing":
            failing.started(timeout=20)
            assert failing.interrupt(timeout=20).kind == "interrupted"
        else:
            with pytest.raises((RuntimeError, LookupError)) as raised:
                failing.result(timeout=20)
            assert error in (raised.value, raised.value.__cause__)
        assert behind.result(timeout=20).kind == "played"
        assert other.say(SPOKEN).result(timeout=20).kind == "played"


def break_loop(client: Client) -> None:
    """End the client's loop as a bug would."""

    def exits() -> None:
        raise SystemExit(1)

    client._portal._loop.call_soon_threadsafe(exits)
    client._portal._thread.join(20)
    assert not client._portal._thread.is_alive()


def test_a_loop_that_is_gone_is_known_to_be_and_its_sessions_are_ended(blocking, shared_gateway):
    with Client(shared_gateway.address) as client:
        session = client.open_session(AVATAR).open()
        detached = client.open_session(AVATAR).open()
        handle = detached.detach()
        waiting: list[GatewayError] = []
        utterance = session.say(sound(60))

        def waits() -> None:
            try:
                utterance.result()
            except GatewayError as error:
                waiting.append(error)

        thread = threading.Thread(target=waits)
        thread.start()
        utterance.started(timeout=20)
        break_loop(client)
        thread.join(20)
        assert [type(error) for error in waiting] == [ClientClosed]
        with pytest.raises(ClientClosed, match="SystemExit"):
            client.server_info()
        with pytest.raises(ClientClosed, match="SystemExit"):
            session.say(SPOKEN)
    assert blocking.get_session(session.id).end_reason is EndReason.CALLER_ENDED
    with blocking.resume_session(handle) as resumed:
        assert resumed.id == detached.id


def test_no_call_waits_longer_than_its_timeout_for_a_loop_that_is_stuck(shared_gateway):
    stuck, release = threading.Event(), threading.Event()

    def blocks() -> None:
        stuck.set()
        release.wait(60)

    with Client(shared_gateway.address, timeout=0.2) as client:
        session = client.open_session(AVATAR).open()
        client._portal._loop.call_soon_threadsafe(blocks)
        assert stuck.wait(20)
        calls = [
            client.server_info,
            lambda: client.open_session(AVATAR, timeout=0.1).open(),
            lambda: session.ready(timeout=0.1),
            lambda: next(client.list_sessions()),
        ]
        try:
            for call in calls:
                with pytest.raises(DeadlineExceeded, match="stuck"):
                    call()
        finally:
            release.set()
        session.end(timeout=20)


def test_the_sessions_of_a_loop_that_is_stuck_are_ended_all_the_same(blocking, shared_gateway):
    stuck, release = threading.Event(), threading.Event()

    def blocks() -> None:
        stuck.set()
        release.wait(60)

    client = Client(shared_gateway.address)
    session = client.open_session(AVATAR).open()
    client._portal._loop.call_soon_threadsafe(blocks)
    assert stuck.wait(20)
    closing = threading.Thread(target=client.close)
    closing.start()
    with blocking.watch(session.id) as changes:
        for _ in changes:  # to the end of the session
            pass
    assert not release.is_set()
    release.set()
    closing.join(30)
    assert not closing.is_alive()
    assert blocking.get_session(session.id).end_reason is EndReason.CALLER_ENDED
