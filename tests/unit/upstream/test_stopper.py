"""Stops run to their end, whatever becomes of those who asked for them."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import GatewayError, UpstreamUnauthenticated, UpstreamUnreachable
from liveavatar_gateway.upstream.stopper import RefusedKey, RetiredKey, StopConfig, Stopped, Stopper

_FAST = StopConfig(first_wait_s=0.001, max_wait_s=0.002, give_up_s=30.0)


class Scripted:
    """Answers each stop with the next of a script; the last one stays."""

    def __init__(self, *script: Stopped | GatewayError) -> None:
        self._script = list(script)
        self.calls: list[tuple[str, str]] = []
        self.called = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def stop(self, session_id: str, reason: str) -> Stopped:
        self.calls.append((session_id, reason))
        self.called.set()
        await self.open.wait()
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(answer, GatewayError):
            raise answer
        return answer


def down() -> UpstreamUnreachable:
    return UpstreamUnreachable("down")


@pytest.mark.parametrize("stopped", [Stopped.NOW, Stopped.BEFORE])
async def test_a_stop_tells_whether_the_session_was_alive(stopped):
    stopper = Scripted(stopped)
    assert await Stopper(_FAST, stopper).stop("s-1", "USER_CLOSED") is stopped
    assert stopper.calls == [("s-1", "USER_CLOSED")]


async def test_a_stop_is_tried_until_it_is_confirmed():
    stopper = Scripted(down(), down(), down(), Stopped.NOW)
    stops = Stopper(_FAST, stopper)
    assert await stops.stop("s-1", "r") is Stopped.NOW
    assert len(stopper.calls) == 4
    assert stops.pending == 0


async def test_a_stop_that_outlives_liveavatars_own_reaping_is_given_up():
    stopper = Scripted(down())
    stops = Stopper(StopConfig(first_wait_s=0.001, max_wait_s=0.001, give_up_s=0.003), stopper)
    assert await stops.stop("s-1", "r") is Stopped.NEVER
    assert len(stopper.calls) == 4
    assert stops.pending == 0


async def test_waits_between_tries_double_up_to_a_limit():
    stopper = Scripted(down())
    stops = Stopper(StopConfig(first_wait_s=0.001, max_wait_s=0.004, give_up_s=0.015), stopper)
    await stops.stop("s-1", "r")
    assert len(stopper.calls) == 6, "after 1, 2, 4, 4 and 4 ms"


async def test_a_cancelled_caller_leaves_the_stop_running():
    stopper = Scripted(down(), Stopped.NOW)
    stopper.open.clear()
    stops = Stopper(_FAST, stopper)
    caller = asyncio.create_task(stops.stop("s-1", "r"))
    await stopper.called.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert (caller.cancelled(), stops.pending) == (True, 1)
    stopper.open.set()
    while stops.pending:
        await asyncio.sleep(0)
    assert len(stopper.calls) == 2
    assert stops.pending == 0


async def test_what_is_not_confirmed_at_the_end_of_the_process_is_given_up():
    stopper = Scripted(Stopped.NOW)
    stopper.open.clear()
    stops = Stopper(_FAST, stopper)
    callers = [asyncio.create_task(stops.stop(f"s-{index}", "r")) for index in range(3)]
    await stopper.called.wait()
    assert stops.pending == 3
    await stops.give_up()
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    assert stops.pending == 0


async def test_giving_up_nothing_returns_at_once():
    await Stopper(_FAST, Scripted(Stopped.NOW)).give_up()


async def test_the_task_of_a_stop_is_named_after_its_session():
    stopper = Scripted(Stopped.NOW)
    stopper.open.clear()
    caller = asyncio.create_task(Stopper(_FAST, stopper).stop("s-7", "r"))
    await stopper.called.wait()
    assert "session-s-7/stop" in {task.get_name() for task in asyncio.all_tasks()}
    stopper.open.set()
    await caller


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_session_that_is_gone_when_its_stop_is_repeated_may_have_been_ended_by_us(failures):
    stopper = Scripted(*[down() for _ in range(failures)], Stopped.BEFORE)
    stopped = await Stopper(_FAST, stopper).stop("s-1", "r")
    assert (stopped, stopped.counts) == (Stopped.EITHER, True)


async def test_a_second_stop_of_a_session_joins_the_first():
    stopper = Scripted(Stopped.NOW)
    stopper.open.clear()
    stops = Stopper(_FAST, stopper)
    callers = [asyncio.create_task(stops.stop("s-1", "r")) for _ in range(3)]
    await stopper.called.wait()
    assert stops.pending == 1
    stopper.open.set()
    assert [await caller for caller in callers] == [Stopped.NOW] * 3
    assert len(stopper.calls) == 1


async def test_a_stop_waits_as_long_as_liveavatar_asks_for_within_bounds():
    stopper = Scripted(UpstreamUnreachable("busy", retry_after_s=0.05), Stopped.NOW)
    began_s = asyncio.get_running_loop().time()
    await Stopper(_FAST, stopper).stop("s-1", "r")
    assert asyncio.get_running_loop().time() - began_s >= 0.045


REVOKED = UpstreamUnauthenticated("revoked")


@pytest.mark.parametrize(
    ("answers", "stopped"),
    [
        ((Stopped.BEFORE, Stopped.NOW), Stopped.NOW),
        ((down(), Stopped.NOW), Stopped.NOW),
        ((Stopped.BEFORE, Stopped.BEFORE), Stopped.BEFORE),
    ],
)
async def test_what_a_revoked_key_started_is_asked_of_every_working_account(answers, stopped):
    call = RetiredKey(Scripted(REVOKED), lambda: [Scripted(answer) for answer in answers])
    assert await call.stop("s-1", "r") is stopped


async def test_an_account_without_a_working_key_may_have_the_session():
    call = RetiredKey(Scripted(REVOKED), lambda: [Scripted(Stopped.BEFORE), RefusedKey(REVOKED)])
    with pytest.raises(UpstreamUnauthenticated):
        await call.stop("s-1", "r")
    call = RetiredKey(Scripted(REVOKED), lambda: [RefusedKey(REVOKED), Scripted(Stopped.NOW)])
    assert await call.stop("s-1", "r") is Stopped.NOW


@pytest.mark.parametrize("answers", [(Stopped.BEFORE, down()), (down(), Stopped.BEFORE), ()])
async def test_what_a_revoked_key_started_has_not_ended_while_an_account_does_not_answer(answers):
    call = RetiredKey(Scripted(REVOKED), lambda: [Scripted(answer) for answer in answers])
    with pytest.raises(GatewayError):
        await call.stop("s-1", "r")
