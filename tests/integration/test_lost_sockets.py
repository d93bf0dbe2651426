"""The command socket is lost in every way and at every moment: speech goes on, and nothing of it is missing."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from liveavatar.gateway.v1 import audio_pb2, session_pb2, session_service_pb2
from testkit import processes
from testkit.caller import Attachment, Caller, Refusal, Speech
from testkit.caller import caller as connect
from testkit.continuity import BYTES_PER_SECOND, continuity, noise

PROFILES = ["modern", "classic", "acks_only"]


@pytest.fixture(scope="module", params=PROFILES)
def dialect(request):
    """Run an emulator of one dialect, and a gateway in front of it."""
    with (
        processes.emulator(profile=request.param) as emulator,
        processes.gateway(emulator.url, reconnect_budget_s=10) as gateway,
    ):
        yield emulator, gateway


@contextlib.asynccontextmanager
async def talking(dialect, source: bytes) -> AsyncIterator[tuple[processes.Emulator, Attachment, Speech, Caller]]:
    """Open a session that speaks `source`, sent in real time as a voice comes."""
    emulator, gateway = dialect
    emulator.clear_faults()
    async with connect(gateway.address) as caller:
        attachment = await caller.attach()
        await attachment.until_ready()
        stream = await caller.speak(attachment.session_id)
        await stream.begin("monologue")
        feeding = asyncio.create_task(feed(stream, source))
        try:
            yield emulator, attachment, stream, caller
        finally:
            feeding.cancel()
            await caller.end(attachment.session_id)


async def feed(stream: Speech, source: bytes) -> None:
    """Two seconds ahead of real time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for start in range(0, len(source), BYTES_PER_SECOND // 10):
        await asyncio.sleep(began_s + start / BYTES_PER_SECOND - 2.0 - loop.time())
        await stream.chunk(source[start : start + BYTES_PER_SECOND // 10])
    await stream.end()


def reconnects(attachment: Attachment) -> list:
    return [event.reconnected for event in attachment.events if event.WhichOneof("event") == "reconnected"]


def states(attachment: Attachment) -> list[str]:
    return [
        session_pb2.SessionState.Name(event.state_changed.state).removeprefix("SESSION_STATE_")
        for event in attachment.events
        if event.WhichOneof("event") == "state_changed"
    ]


def check(emulator, attachment, source) -> None:
    """Nothing lost; nothing repeated but where LiveAvatar gives no acks, and there at most a second each time."""
    found = continuity(source, emulator, attachment.upstream_id)
    profile = emulator.settings()["profile"]
    print(f"{profile}: {len(reconnects(attachment))} reconnects, {found}")  # noqa: T201 - shown with -s and with failures
    assert found.lost == 0
    resent = [one.resent_bytes for one in reconnects(attachment)]
    assert found.repeated <= sum(resent)
    recording = emulator.session(attachment.upstream_id)
    assert recording["commands_before_ready"] == recording["invalid_messages"] == 0


@pytest.mark.parametrize(
    "how", [{"code": 1011}, {"code": 1000}, {"code": 1001}, {}], ids=["1011", "1000", "1001", "reset"]
)
async def test_a_monologue_survives_a_lost_socket(dialect, how):
    source = noise(5.0)
    async with talking(dialect, source) as (emulator, attachment, stream, caller):
        await asyncio.sleep(1.0)
        emulator.drop(attachment.upstream_id, how.get("code"))
        ended = await stream.until("ended")
        assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        await attachment.event("reconnected")
        assert states(attachment)[-2:] == ["RECONNECTING", "READY"]
        check(emulator, attachment, source)
        usage = (await caller.get(attachment.session_id)).usage
        assert usage.reconnect_count == 1
        assert usage.upstream_bytes == len(emulator.audio(attachment.upstream_id))


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_twenty_lost_sockets_in_a_monologue_of_a_minute_lose_not_a_byte(dialect):
    source = noise(60.0)
    async with talking(dialect, source) as (emulator, attachment, stream, _):
        listening = asyncio.create_task(stream.until("ended"))
        for code, _ in zip(itertools.cycle([1011, None, 1000, None, 1001]), range(20), strict=False):
            await asyncio.sleep(2.8)
            emulator.drop(attachment.upstream_id, code)
            await attachment.event("reconnected")
        ended = await listening
        assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        assert len(reconnects(attachment)) == 20
        check(emulator, attachment, source)


async def test_refused_reconnects_are_tried_again_while_the_session_lives(dialect):
    """HTTP 403 and TCP resets: LiveAvatar's record says that the session is active."""
    source = noise(6.0)
    async with talking(dialect, source) as (emulator, attachment, stream, _):
        await asyncio.sleep(0.7)
        for how, for_s in (("forbidden", 1.0), ("reset", 2.0)):
            emulator.socket_fault("refuse_sockets", attachment.upstream_id, how=how, for_s=for_s)
        emulator.drop(attachment.upstream_id, 1011)
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        told = await attachment.event("reconnected")
        assert told.attempt_count > 2
        assert told.gap.ToTimedelta().total_seconds() > 1.5
        check(emulator, attachment, source)


async def test_a_server_that_says_connected_only_once_is_spoken_to_after_three_seconds(dialect):
    source = noise(6.0)
    emulator, _ = dialect
    emulator.change_settings(reconnect_emits_connected=False)
    try:
        async with talking(dialect, source) as (emulator, attachment, stream, _):
            await asyncio.sleep(0.7)
            emulator.drop(attachment.upstream_id, None)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            told = await attachment.event("reconnected")
            assert told.gap.ToTimedelta().total_seconds() >= 3.0
            check(emulator, attachment, source)
    finally:
        emulator.change_settings(reconnect_emits_connected=True)


async def test_audio_that_comes_while_the_socket_is_away_is_taken_and_spoken(dialect):
    emulator, gateway = dialect
    emulator.clear_faults()
    async with connect(gateway.address) as caller:
        attachment = await caller.attach()
        await attachment.until_ready()
        emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset", for_s=1.5)
        emulator.drop(attachment.upstream_id, 1011)
        while (await attachment.event("state_changed")).state != session_pb2.SESSION_STATE_RECONNECTING:
            pass
        source = noise(2.0)
        stream = await caller.speak(attachment.session_id)
        await stream.say(source)
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        assert emulator.audio(attachment.upstream_id) == source
        await caller.end(attachment.session_id)


async def test_a_socket_lost_at_the_end_of_an_utterance_leaves_no_utterance_open(dialect):
    """The loss falls between audio and end, or takes the end with it."""
    emulator, gateway = dialect
    emulator.clear_faults()
    async with connect(gateway.address) as caller:
        attachment = await caller.attach()
        await attachment.until_ready()
        stream = await caller.speak(attachment.session_id)
        for number in range(4):
            await stream.begin(f"u{number}")
            await stream.chunk(noise(0.4, number))
            if number % 2:
                await stream.end()
            emulator.drop(attachment.upstream_id, None)
            if not number % 2:
                await stream.end()
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        await stream.say(noise(1.0, 99), "last")
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        outcomes = [one["outcome"] for one in emulator.session(attachment.upstream_id)["utterances"]]
        assert set(outcomes) == {"ended"}
        await caller.end(attachment.session_id)


async def test_a_socket_lost_during_an_interrupt_cuts_all_the_same(dialect):
    emulator, gateway = dialect
    emulator.clear_faults()
    async with connect(gateway.address) as caller:
        attachment = await caller.attach()
        await attachment.until_ready()
        stream = await caller.speak(attachment.session_id)
        await stream.say(noise(8.0), "long")
        await stream.until("started")
        interrupt = session_service_pb2.Interrupt()
        command = asyncio.create_task(attachment.command("i1", interrupt=interrupt))
        emulator.drop(attachment.upstream_id, None)
        result = await command
        assert [one.utterance_id for one in result.interrupt.interrupted] == ["long"]
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_INTERRUPTED
        answer = noise(1.0, 7)
        await stream.say(answer, "answer")
        assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
        recording = emulator.session(attachment.upstream_id)
        assert recording["audio_after_interrupt"] == {"packets": 0, "bytes": 0}
        assert emulator.utterance_audio(attachment.upstream_id, len(recording["utterances"]) - 1) == answer
        await caller.end(attachment.session_id)


@pytest.fixture
async def impatient(emulator):
    """Connect a caller to a gateway that tries to reconnect for two seconds."""
    with processes.gateway(emulator.url, reconnect_budget_s=2) as gateway:
        async with connect(gateway.address) as found:
            yield found


async def test_a_socket_that_stays_away_ends_the_session_with_a_typed_error(impatient, emulator):
    attachment = await impatient.attach()
    await attachment.until_ready()
    stream = await impatient.speak(attachment.session_id)
    await stream.say(noise(5.0))
    await stream.until("started")
    emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset")
    emulator.drop(attachment.upstream_id, 1011)
    last = await attachment.event("ended")
    assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_FAILED
    why = Refusal(last.error)
    assert (why.reason, why.metadata["close_code"]) == ("UPSTREAM_UNREACHABLE", "1011")
    assert int(why.metadata["attempt_count"]) >= 2
    ended = await stream.until("ended")
    assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
    assert emulator.session(attachment.upstream_id)["phase"] == "ended"


async def test_a_budget_of_nothing_ends_a_session_with_its_socket(emulator):
    with processes.gateway(emulator.url, reconnect_budget_s=0) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            emulator.drop(attachment.upstream_id, 1011)
            last = await attachment.event("ended")
            assert Refusal(last.error).metadata["attempt_count"] == "0"
            assert emulator.session(attachment.upstream_id)["phase"] == "ended"


@pytest.mark.parametrize("profile", PROFILES)
async def test_a_session_that_ended_while_nobody_listened_ends_with_liveavatars_own_word(profile):
    """A reconnect is refused with 403, and the record says why."""
    with processes.emulator(profile=profile) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset", for_s=2)
            emulator.drop(attachment.upstream_id, None)
            while (await attachment.event("state_changed")).state != session_pb2.SESSION_STATE_RECONNECTING:
                pass
            emulator.end(attachment.upstream_id, "AVATAR_DELETED")
            last = await attachment.event("ended")
            assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_ENDED
            assert last.session.upstream_reason == "AVATAR_DELETED"
            assert not last.HasField("error")


async def test_a_service_that_restarts_and_forgets_its_sessions_ends_them_with_its_own_word():
    with processes.emulator() as other, processes.gateway(other.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            other.restart(down_s=0.3, keep_sessions=False)
            last = await attachment.event("ended")
            assert last.session.end_reason == session_pb2.END_REASON_UPSTREAM_ENDED
            assert last.session.upstream_reason == "SERVER_ERROR"


async def test_a_service_that_restarts_and_keeps_its_sessions_is_survived(emulator, caller):
    source = noise(5.0)
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(source)
    await stream.until("started")
    emulator.restart(down_s=1.5)
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    check(emulator, attachment, source)
    await caller.end(attachment.session_id)


@pytest.mark.parametrize("how", [{"code": 1011}, {}], ids=["1011", "reset"])
async def test_a_socket_lost_before_the_avatar_is_ready_is_opened_again(how):
    with processes.emulator(ready_delay_ms=1500) as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            emulator.socket_fault("drop", attachment.upstream_id, **how)
            source = noise(1.0)
            stream = await caller.speak(attachment.session_id)
            await stream.say(source)
            assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
            await attachment.event("reconnected")
            assert states(attachment) == ["CONNECTING", "RECONNECTING", "READY"]
            assert emulator.audio(attachment.upstream_id) == source
            await caller.end(attachment.session_id)


async def test_the_end_of_a_session_does_not_wait_for_its_socket(emulator, caller):
    attachment = await caller.attach()
    await attachment.until_ready()
    emulator.socket_fault("refuse_sockets", attachment.upstream_id, how="reset")
    emulator.drop(attachment.upstream_id, 1011)
    while (await attachment.event("state_changed")).state != session_pb2.SESSION_STATE_RECONNECTING:
        pass
    record = await caller.end(attachment.session_id)
    assert record.end_reason == session_pb2.END_REASON_CALLER_ENDED
    assert emulator.session(attachment.upstream_id)["phase"] == "ended"


async def test_a_socket_that_takes_nothing_any_more_is_given_up_and_opened_again(emulator, caller):
    """It is not closed: only the acks and pongs that do not come tell."""
    source = noise(12.0)
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.say(source)
    await stream.until("started")
    emulator.socket_fault("stop_reading", attachment.upstream_id, for_s=6.0)
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    assert (await attachment.event("reconnected")).resent_bytes > 0
    found = continuity(source, emulator, attachment.upstream_id)
    assert (found.lost, found.repeated) == (0, 0)
    await caller.end(attachment.session_id)


async def test_acks_that_get_lost_repeat_a_second_at_most(emulator, caller):
    """Pongs prove what acks do not."""
    source = noise(8.0)
    attachment = await caller.attach()
    await attachment.until_ready()
    stream = await caller.speak(attachment.session_id)
    await stream.begin("monologue")
    feeding = asyncio.create_task(feed(stream, source))
    await stream.until("started")
    emulator.socket_fault("swallow_acks", attachment.upstream_id)
    await asyncio.sleep(4.0)
    emulator.drop(attachment.upstream_id, 1011)
    assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
    await feeding
    assert (await attachment.event("reconnected")).resent_bytes <= 2 * BYTES_PER_SECOND
    found = continuity(source, emulator, attachment.upstream_id)
    assert found.lost == 0
    assert found.repeated <= 2 * BYTES_PER_SECOND
    await caller.end(attachment.session_id)


async def test_an_utterance_that_is_taken_and_never_begun_is_spoken_anew_and_then_fails():
    with processes.emulator() as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(noise(0.5))
            await stream.until("ended")
            emulator.change_settings(start_after_ms=600_000)
            await stream.begin("stuck")
            await stream.chunk(noise(1.0, 2))
            ended = await stream.until("ended")
            assert ended.outcome == audio_pb2.UTTERANCE_OUTCOME_FAILED
            assert Refusal(ended.error).reason == "UPSTREAM_STALLED"
            recording = emulator.session(attachment.upstream_id)
            assert [one["outcome"] for one in recording["utterances"][1:2]] == ["interrupted"]
            assert emulator.utterance_audio(attachment.upstream_id, 2) == noise(1.0, 2)
            await caller.end(attachment.session_id)


async def test_what_liveavatar_reads_late_is_neither_played_early_nor_failed_and_then_spoken():
    """It reads nothing for longer than its deadlines are, so a caller that is told of a failure says it twice."""
    with processes.emulator(profile="classic") as emulator, processes.gateway(emulator.url) as gateway:
        async with connect(gateway.address) as caller:
            attachment = await caller.attach()
            await attachment.until_ready()
            stream = await caller.speak(attachment.session_id)
            await stream.say(noise(0.5), "warm-up")
            await stream.until("ended")
            emulator.socket_fault("stop_reading", attachment.upstream_id, for_s=8.0)
            sources = [noise(1.0, 5), noise(1.0, 6)]
            for number, source in enumerate(sources):
                await stream.say(source, f"u{number}")
            for source in sources:
                assert (await stream.until("ended")).outcome == audio_pb2.UTTERANCE_OUTCOME_COMPLETED
                assert source[-4_800:] in emulator.audio(attachment.upstream_id), "it ended before it was read"
            await caller.end(attachment.session_id)
