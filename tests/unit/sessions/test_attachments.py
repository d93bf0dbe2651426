"""Attachments of a session, and the grace without any."""

import asyncio
import time

import pytest

from liveavatar_gateway.core.errors import AttachSuperseded, AudioStreamSuperseded, OwnerMoved
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.wakeup import Wakeup


class Session:
    """Notes whether it was abandoned, and counts changes of its grace."""

    def __init__(self) -> None:
        self.abandoned = asyncio.Event()
        self.changes = 0
        self.attachments = Attachments("s", grace_s=0.05, abandon=self.abandoned.set, changed=self._change)

    def _change(self) -> None:
        self.changes += 1


@pytest.fixture
async def session():
    return Session()


async def test_a_session_is_abandoned_a_grace_after_its_last_attachment_is_released(session):
    first, second = session.attachments.add(), session.attachments.add()
    first.release()
    assert session.attachments.detached_until_s is None
    second.release()
    second.release()
    assert session.attachments.detached_until_s is not None
    assert session.changes == 1
    await asyncio.wait_for(session.abandoned.wait(), 5)


async def test_an_attachment_that_comes_in_time_stops_the_grace(session):
    session.attachments.start_grace(0.05)
    session.attachments.add()
    assert session.attachments.detached_until_s is None
    await asyncio.sleep(0.1)
    assert not session.abandoned.is_set()


async def test_a_session_is_not_abandoned_before_those_are_heard_who_came_while_the_process_stood_still(session):
    session.attachments.start_grace(0.05)
    time.sleep(0.7)  # noqa: ASYNC251 - a suspended process
    await asyncio.sleep(0.01)
    assert not session.abandoned.is_set()
    assert session.attachments.detached_until_s is not None
    await asyncio.wait_for(session.abandoned.wait(), 5)


async def test_a_later_attach_stream_supersedes_the_earlier_one(session):
    earlier = session.attachments.add_attach_stream()
    later = session.attachments.add_attach_stream()
    await asyncio.wait_for(earlier.wakeup.wait(), 5)
    assert isinstance(earlier.superseded, AttachSuperseded)
    assert later.superseded is None
    earlier.release()
    assert session.attachments.attached
    later.release()
    assert not session.attachments.attached


async def test_a_later_audio_stream_takes_over_before_it_does_anything(session):
    orphaned: list[str] = []
    earlier = session.attachments.add_audio_stream(lambda: orphaned.append("utterance"))
    # A stream that waits for another to continue its speech does not keep the session alive.
    earlier.detach()
    assert session.attachments.detached_until_s is not None
    session.attachments.add_audio_stream(lambda: None)
    assert orphaned == ["utterance"]
    assert isinstance(earlier.superseded, AudioStreamSuperseded)


async def test_a_detached_stream_still_receives_news_until_it_is_released(session):
    attachment = session.attachments.add_attach_stream()
    attachment.detach()
    assert not session.attachments.attached
    session.attachments.wake()
    await asyncio.wait_for(attachment.wakeup.wait(), 5)
    attachment.release()
    session.attachments.wake()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await attachment.wakeup.wait()


async def test_another_owner_supersedes_every_attachment(session):
    attachments = [session.attachments.add(), session.attachments.add_attach_stream()]
    attachments[1].detach()
    session.attachments.supersede_all(error := OwnerMoved("s"))
    assert [one.superseded for one in attachments] == [error, error]


async def test_no_grace_starts_after_the_end_of_the_session(session):
    attachment = session.attachments.add()
    session.attachments.close()
    attachment.release()
    assert session.attachments.detached_until_s is None


async def test_who_observes_has_the_news_and_does_not_keep_the_session(session):
    first = session.attachments.add()
    first.release()
    ends_s = session.attachments.detached_until_s
    wakeup = Wakeup()
    observer = session.attachments.observe(wakeup)
    assert session.attachments.detached_until_s == ends_s
    session.attachments.wake()
    await asyncio.wait_for(wakeup.wait(), 5)
    observer.release()
    observer.release()
    assert session.attachments.detached_until_s == ends_s
    await asyncio.wait_for(session.abandoned.wait(), 5)


async def test_who_observes_learns_that_another_process_owns_the_session(session):
    observer = session.attachments.observe()
    session.attachments.supersede_all(OwnerMoved("s"))
    assert isinstance(observer.superseded, OwnerMoved)
