"""Unread answers: each has a deadline, and together they have a limit."""

import asyncio
from collections.abc import Collection

import pytest

from liveavatar_gateway.core.errors import AnswersUnread, TooManyCalls
from liveavatar_gateway.rpc.unread import CALL_BYTES, SMALL_BYTES, UnreadAnswers
from liveavatar_gateway.telemetry.metrics import Metrics

LARGE = 1_000_000


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Connections:
    """Connections that can be closed, except the lost ones."""

    def __init__(self, *lost: str) -> None:
        self.lost = lost
        self.attempts: list[list[str]] = []

    def close(self, peers: Collection[str]) -> set[str]:
        self.attempts.append(list(peers))
        return set(peers).difference(self.lost)


def made(
    *,
    timeout_s: float = 10.0,
    connections: Connections | None = None,
    clock: Clock | None = None,
    metrics: Metrics | None = None,
) -> UnreadAnswers:
    return UnreadAnswers(
        metrics or Metrics(),
        limit_bytes=2 * LARGE,
        timeout_s=timeout_s,
        close=(connections or Connections()).close,
        clock=clock or Clock(),
    )


def closed_count(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("gateway_connections_closed_total")


async def end(*begun_answers: tuple[asyncio.Event, asyncio.Task[None]]) -> None:
    for sent, writing in begun_answers:
        sent.set()
        await writing


async def begun(unread: UnreadAnswers, peer: str, size_bytes: int) -> tuple[asyncio.Event, asyncio.Task[None]]:
    """Begin an answer that is sent once the event is set."""
    sent = asyncio.Event()
    writing = asyncio.create_task(unread.write(peer, size_bytes, sent.wait()))
    await asyncio.sleep(0)
    return sent, writing


async def test_an_answer_counts_until_it_is_sent():
    unread = made()
    sent, writing = await begun(unread, "a", 10)
    assert unread.size_bytes == 10 + CALL_BYTES
    sent.set()
    await writing
    assert unread.size_bytes == 0


async def test_an_answer_that_nobody_reads_ends_its_call_and_counts_until_its_connection_ends():
    unread = made(timeout_s=0.01)
    sent, writing = await begun(unread, "a", 10)
    with pytest.raises(AnswersUnread):
        await writing
    assert unread.size_bytes == 10 + CALL_BYTES
    sent.set()
    await asyncio.sleep(0.01)
    assert unread.size_bytes == 0


async def test_a_cancelled_caller_does_not_cancel_what_grpc_still_sends():
    unread = made()
    sent, writing = await begun(unread, "a", 10)
    writing.cancel()
    await asyncio.wait([writing])
    assert unread.size_bytes == 10 + CALL_BYTES
    sent.set()
    await asyncio.sleep(0.01)
    assert unread.size_bytes == 0


async def test_an_answer_that_cannot_be_sent_raises_and_counts_no_longer():
    async def fail() -> None:
        raise ConnectionResetError

    unread = made()
    with pytest.raises(ConnectionResetError):
        await unread.write("a", 10, fail())
    assert unread.size_bytes == 0


async def test_large_answers_above_the_limit_are_refused_and_small_ones_are_not():
    unread = made()
    sent, writing = await begun(unread, "a", 2 * LARGE)
    with pytest.raises(TooManyCalls):
        unread.admit(SMALL_BYTES + 1)
    unread.admit(SMALL_BYTES)
    sent.set()
    await writing
    unread.admit(SMALL_BYTES + 1)


async def test_above_the_limit_the_stalled_connection_with_most_is_closed_once():
    connections, clock, metrics = Connections(), Clock(), Metrics()
    unread = made(connections=connections, clock=clock, metrics=metrics)
    stuck = [await begun(unread, "less", 500_000), await begun(unread, "most", LARGE)]
    assert connections.attempts == []
    clock.now_s = 10.0
    stuck.append(await begun(unread, "fresh", LARGE))
    assert connections.attempts == [["most"]]
    clock.now_s = 11.0
    with pytest.raises(TooManyCalls):
        unread.admit(LARGE)
    assert connections.attempts == [["most"], ["less"]]
    assert closed_count(metrics) == 2
    await end(*stuck)


async def test_connections_are_looked_for_once_a_second_at_most():
    connections, clock = Connections("lost"), Clock()
    unread = made(connections=connections, clock=clock)
    stuck = [await begun(unread, "lost", 3 * LARGE)]
    clock.now_s = 10.0
    stuck += [await begun(unread, "fresh", 1) for _ in range(100)]
    assert connections.attempts == [["lost"]]
    clock.now_s = 11.0
    stuck += [await begun(unread, "fresh", 1) for _ in range(100)]
    assert connections.attempts == [["lost"], ["lost"]]
    await end(*stuck)


async def test_as_many_connections_are_closed_at_once_as_hold_too_much():
    connections, clock = Connections(), Clock()
    unread = made(connections=connections, clock=clock)
    stuck = [await begun(unread, peer, 400_000 + at) for at, peer in enumerate("abcd")]
    clock.now_s = 10.0
    stuck.append(await begun(unread, "fresh", LARGE))
    assert connections.attempts == [["d", "c"]]
    await end(*stuck)


async def test_a_connection_that_is_not_found_is_not_counted_and_does_not_save_the_others():
    connections, clock, metrics = Connections("lost"), Clock(), Metrics()
    unread = made(connections=connections, clock=clock, metrics=metrics)
    stuck = [await begun(unread, "lost", LARGE), await begun(unread, "less", 500_000)]
    clock.now_s = 10.0
    stuck.append(await begun(unread, "fresh", LARGE))
    assert (connections.attempts, closed_count(metrics)) == ([["lost"]], 0)
    clock.now_s = 11.0
    with pytest.raises(TooManyCalls):
        unread.admit(SMALL_BYTES + 1)
    assert (connections.attempts, closed_count(metrics)) == ([["lost"], ["less", "lost"]], 1)
    await end(*stuck)


async def test_a_connection_whose_other_calls_read_is_kept():
    connections, clock = Connections(), Clock()
    unread = made(connections=connections, clock=clock)
    stuck = [await begun(unread, "proxy", 2 * LARGE)]
    for _ in range(10):
        clock.now_s += 1.0
        await end(await begun(unread, "proxy", 10))
    assert connections.attempts == []
    clock.now_s += 6.0
    stuck.append(await begun(unread, "fresh", 10))
    assert connections.attempts == [["proxy"]]
    await end(*stuck)


async def test_an_answer_that_fails_shows_no_reader():
    async def fail() -> None:
        raise ConnectionResetError

    connections, clock = Connections(), Clock()
    unread = made(connections=connections, clock=clock)
    stuck = [await begun(unread, "a", 2 * LARGE)]
    for _ in range(10):
        clock.now_s += 1.0
        with pytest.raises(ConnectionResetError):
            await unread.write("a", 10, fail())
    assert connections.attempts == [["a"]]
    await end(*stuck)


async def test_the_error_of_an_answer_that_fails_as_its_call_is_cancelled_is_taken(unretrieved):
    sent = asyncio.get_running_loop().create_future()
    writing = asyncio.create_task(made().write("a", 10, sent))
    await asyncio.sleep(0)
    sent.set_exception(RuntimeError("the call is over"))
    writing.cancel()
    await asyncio.wait([writing])
    del sent, writing
    assert await unretrieved() == []
