"""A LiveAvatar session is in the journal and in the bill, or in neither."""

import pytest

from liveavatar_gateway.core.errors import RegistryUnavailable
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.billing import Payer
from liveavatar_gateway.upstream.model import Started

PAYER = Payer(session_id="s-1", tenant="acme", label="", free=False)
STARTED = Started(session_id="up-1", ws_url="", room_url="", viewer_token="", max_duration_s=600)


class Calls:
    """Notes its calls, and fails at one of them if a test says so."""

    def __init__(self, log: list[str], prefix: str) -> None:
        self._log = log
        self._prefix = prefix
        self.failing = ""

    def __getattr__(self, name: str):
        def note(*arguments: object, **options: object) -> None:
            follows = f" follows={options['follows']}" if "follows" in options else ""
            self._log.append(f"{self._prefix}.{name}{follows}")
            if name == self.failing:
                raise RegistryUnavailable("no")

        async def later(*arguments: object, **options: object) -> None:
            note(*arguments, **options)

        return note if self._prefix == "billing" and name in {"started", "stopped", "adopt"} else later


@pytest.fixture
def log():
    return []


@pytest.fixture
def inner(log):
    return Calls(log, "journal")


@pytest.fixture
def billed(log, inner):
    return BilledJournal(inner, Calls(log, "billing"), PAYER)


async def test_the_first_avatar_is_charged_as_such_and_the_next_ones_follow(billed, log):
    for _ in range(2):
        await billed.minted("up-1")
        await billed.started(STARTED)
        await billed.stopped("up-1")
    assert log == [
        *("billing.reserve follows=False", "journal.minted", "billing.started follows=False", "journal.started"),
        *("billing.stopped", "journal.stopped"),
        *("billing.reserve follows=True", "journal.minted", "billing.started follows=True", "journal.started"),
        *("billing.stopped", "journal.stopped"),
    ]


async def test_what_the_journal_does_not_take_is_not_billed(billed, inner, log):
    inner.failing = "minted"
    with pytest.raises(RegistryUnavailable):
        await billed.minted("up-1")
    assert log[-1] == "billing.refund"


async def test_a_session_that_never_started_is_given_back(billed, log):
    await billed.minted("up-1")
    await billed.not_started("up-1")
    assert log[-2:] == ["billing.refund", "journal.not_started"]


async def test_an_adopted_session_is_not_a_new_one(billed, log):
    billed.adopted(STARTED, None)
    await billed.minted("up-2")
    assert log[:2] == ["billing.adopt", "billing.reserve follows=True"]


@pytest.mark.parametrize(
    ("ends", "billed_after"),
    [((), True), (("stopped",), True), (("not_started",), False), (("not_started", "stopped"), True)],
)
async def test_what_is_not_known_to_have_failed_was_billed(billed, ends, billed_after):
    assert not await billed.was_billed(wait_s=0.0)
    for number, end in enumerate(ends or ("",)):
        await billed.minted(f"up-{number}")
        if end:
            await getattr(billed, end)(f"up-{number}")
    assert await billed.was_billed(wait_s=0.0) is billed_after


@pytest.mark.parametrize("failing", ["billing", "journal"])
async def test_a_start_that_could_not_be_recorded_was_not_billed(billed, failing):
    (billed._billing if failing == "billing" else billed._journal).failing = {
        "billing": "reserve",
        "journal": "minted",
    }[failing]
    with pytest.raises(RegistryUnavailable):
        await billed.minted("up-1")
    assert not await billed.was_billed(wait_s=0.0)
