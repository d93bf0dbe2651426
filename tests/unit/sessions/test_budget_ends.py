"""A session whose budget is spent ends at once if it is silent, else when its utterance has ended."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import BudgetExhausted
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import EndReason
from liveavatar_gateway.sessions.budget_ends import BudgetEnds
from testkit.actors import Process

ERROR = BudgetExhausted(
    "acme", period="day", used=3, limit=3, until="2026-12-01T00:00:00+00:00", retry_after_s=9.0
)


class Log:
    """Log to which a test adds ends of utterances."""

    def __init__(self) -> None:
        self.entries = []

    @property
    def last_sequence(self) -> int:
        return len(self.entries)

    def after(self, sequence: int):
        return self.entries[sequence:]


class Session:
    """Session that speaks as long as a test says so."""

    id = "s-1"
    over = False
    speaks = True

    def __init__(self) -> None:
        self.log = Log()
        self.ends = []

    def end(self, reason: EndReason, *, error: BudgetExhausted) -> None:
        self.ends.append((reason, error))
        self.over = True


@pytest.fixture
def session():
    return Session()


@pytest.fixture
def ends(session):
    return BudgetEnds({"s-1": session}.get)


def ended():
    event = UtteranceEnded.__new__(UtteranceEnded)
    return type("Entry", (), {"event": event})()


def news():
    return type("Entry", (), {"event": object()})()


async def test_a_silent_session_ends_at_once(ends, session):
    session.speaks = False
    ends.request("s-1", ERROR)
    assert session.ends == [(EndReason.OPERATOR, ERROR)]


async def test_a_session_that_speaks_ends_with_its_utterance_even_if_others_wait(ends, session):
    session.log.entries.append(ended())
    ends.request("s-1", ERROR)
    ends.request("s-1", ERROR)
    session.log.entries.append(news())
    ends.on_news("s-1")
    await asyncio.sleep(0)
    assert session.ends == []
    session.log.entries.append(ended())
    ends.on_news("s-1")
    ends.on_news("s-1")
    assert session.ends == [], "the session is publishing"
    await asyncio.sleep(0)
    assert session.ends == [(EndReason.OPERATOR, ERROR)]


async def test_sessions_that_are_gone_or_were_not_requested_are_left_alone(ends, session):
    ends.request("s-9", ERROR)
    ends.on_news("s-1")
    ends.request("s-1", ERROR)
    session.over = True
    ends.on_news("s-1")
    await asyncio.sleep(0)
    assert session.ends == []


async def test_a_real_session_tells_its_callers_why():
    process = Process()
    session = await process.ready()
    BudgetEnds({session.id: session}.get).request(session.id, ERROR)
    assert (session.end_reason, session.error) == (EndReason.OPERATOR, ERROR)
    await process.close()
