"""Parts of one session, wired together."""

from liveavatar_gateway.sessions.parts import SessionParts
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.upstream.model import AvatarRequest, Started
from testkit.actors import AVATAR_ID, Process


async def test_a_session_of_another_process_keeps_its_state_machine_and_its_avatar():
    process = Process()
    spec = SessionSpec(avatar=AvatarRequest(avatar_id=AVATAR_ID), detach_grace_s=1.0)
    left = process.session()
    started = Started(session_id="up-9", ws_url="", room_url="", viewer_token="", max_duration_s=None)
    restored = RestoredSession(core=left._core, started=started, started_at=None)
    parts = SessionParts.of(left, spec, process.services, restored)
    assert parts.core is left._core
    assert parts.avatars.started is started


async def test_a_new_session_has_a_state_machine_of_its_own():
    process = Process()
    owner = process.session()
    first, second = (SessionParts.of(owner, owner.spec, process.services, None) for _ in range(2))
    assert first.core.id != second.core.id


async def test_the_end_of_a_grace_reaches_the_owner_and_its_start_the_journal():
    process = Process()
    session = process.session()
    session.attachments.start_grace(60)
    assert process.journal.calls == ["change"]
