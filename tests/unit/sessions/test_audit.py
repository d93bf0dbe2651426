"""The audit of ends: one line for each session, whatever ended it."""

import pytest

from liveavatar_gateway.core.errors import OwnerMoved, UpstreamTimeout
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.audit import EndAudit
from testkit.actors import Process


class Log:
    """Audit log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def write(self, event, outcome, fields):
        self.lines.append((event, outcome, fields))


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def audit(log):
    return EndAudit(log)


@pytest.fixture
async def process():
    found = Process()
    yield found
    await found.close()


async def ended(process, audit, **end):
    session = process.session()
    audit.on_session(session)
    process.run(session)
    await session.ready()
    audit.on_news(session.id)
    session.end(**end)
    await session.finished.wait()
    for _ in range(2):
        audit.on_news(session.id)
    return session


async def test_an_end_has_one_line_with_its_reason(process, audit, log):
    session = await ended(process, audit, reason=EndReason.CALLER_ENDED)
    fields = {"session": session.id, "request_id": "", "end_reason": EndReason.CALLER_ENDED.value, "tenant": ""}
    assert log.lines == [("session.ended", "OK", fields)]


async def test_an_end_by_an_error_has_its_reason_as_the_outcome(process, audit, log):
    await ended(process, audit, reason=EndReason.UPSTREAM_FAILED, error=UpstreamTimeout("late", retry_after_s=1))
    ((_, outcome, fields),) = log.lines
    assert (outcome, fields["end_reason"]) == ("UPSTREAM_TIMEOUT", EndReason.UPSTREAM_FAILED.value)


async def test_a_session_that_another_process_has_is_not_reported(process, audit, log):
    session = process.session()
    audit.on_session(session)
    process.run(session)
    await session.ready()
    session.moved(OwnerMoved(session.id))
    await session.finished.wait()
    audit.on_news(session.id)
    audit.on_news("unknown")
    assert log.lines == []


def test_an_end_of_a_dead_process_session_has_a_line(audit, log):
    audit.on_swept("s-1", "acme", {"end_reason": "caller_lost", "request_id": "r-1"})
    audit.on_swept("s-2", "", {})
    assert [line[2]["end_reason"] for line in log.lines] == ["caller_lost", None]
    assert [line[2]["tenant"] for line in log.lines] == ["acme", ""]
