"""Session tokens that are minted while their callers wait."""

import asyncio
from dataclasses import replace

import pytest

from liveavatar_gateway.core.errors import UpstreamUnreachable
from liveavatar_gateway.pool.book import Place
from liveavatar_gateway.upstream import early_token
from liveavatar_gateway.upstream.account import Account, AccountSpec
from liveavatar_gateway.upstream.early_token import EarlyToken
from liveavatar_gateway.upstream.model import Minted
from testkit.pools import accounts_at

HEAD = Place(position=1, expected_wait_s=5.0)


class Mint:
    """LiveAvatar's answers."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self, _account: Account) -> Minted:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Minted(session_id=f"s-{self.count}", token="t")


@pytest.fixture
def accounts() -> list[Account]:
    specs = [AccountSpec(name=name, id=name, api_key=name) for name in ("a", "b")]
    return list(accounts_at("http://127.0.0.1:9", *specs))


async def run_tasks() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("place", "is_minted"),
    [
        (HEAD, True),
        (Place(position=2, expected_wait_s=None), True),
        (Place(position=1, expected_wait_s=100.0), True),
        (Place(position=2, expected_wait_s=100.0), False),
        (Place(position=3, expected_wait_s=1.0), False),
    ],
)
async def test_a_token_is_minted_at_the_head_of_the_queue(accounts, place, is_minted):
    mint = Mint()
    early = EarlyToken(mint)
    early.prepare(accounts[0], place)
    token = await early.take(accounts[0])
    assert (token is not None, mint.count) == (is_minted, is_minted)


async def test_a_token_is_minted_and_taken_once(accounts):
    mint = Mint()
    early = EarlyToken(mint)
    for _ in range(3):
        early.prepare(accounts[0], HEAD)
        await run_tasks()
    token = await early.take(accounts[0])
    assert token is not None
    assert token.minted.session_id == "s-1"
    assert await early.take(accounts[0]) is None
    assert mint.count == 1


async def test_a_token_of_another_account_is_not_used(accounts):
    early = EarlyToken(Mint())
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    assert await early.take(accounts[1]) is None


async def test_another_is_minted_when_the_account_changes_or_the_token_grows_old(accounts, monkeypatch):
    mint = Mint()
    early = EarlyToken(mint)
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    early.prepare(accounts[1], HEAD)
    await run_tasks()
    assert mint.count == 2
    with monkeypatch.context() as patch:
        patch.setattr(early_token, "_RENEWAL_AGE_S", 0.0)
        early.prepare(accounts[1], HEAD)
    await run_tasks()
    token = await early.take(accounts[1])
    assert token is not None
    assert token.minted.session_id == "s-3"


async def test_a_token_that_grew_old_or_whose_key_changed_is_not_used(accounts, monkeypatch):
    early = EarlyToken(Mint())
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    accounts[0].use(replace(accounts[0].spec, api_key="new"))
    assert await early.take(accounts[0]) is None
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    monkeypatch.setattr(early_token, "_MAX_EARLY_AGE_S", 0.0)
    assert await early.take(accounts[0]) is None


async def test_a_failure_is_left_to_the_start_and_not_repeated(accounts):
    mint = Mint()
    mint.error = UpstreamUnreachable("no", retry_after_s=1.0)
    early = EarlyToken(mint)
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    assert await early.take(accounts[0]) is None
    assert mint.count == 1


class Hanging:
    """LiveAvatar that does not answer."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def __call__(self, _account: Account) -> Minted:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("unreachable")


@pytest.mark.parametrize("give_up", ["dropped", "for another account", "taken in vain"])
async def test_a_token_that_is_given_up_is_minted_no_further(accounts, give_up, monkeypatch):
    monkeypatch.setattr(early_token, "_TAKE_WAIT_S", 0.01)
    mint = Hanging()
    early = EarlyToken(mint)
    early.prepare(accounts[0], HEAD)
    await run_tasks()
    if give_up == "dropped":
        early.drop()
        early.drop()
    else:
        assert await early.take(accounts[give_up == "for another account"]) is None
    await run_tasks()
    assert mint.cancelled == 1


async def test_a_failure_of_a_token_that_is_dropped_is_not_logged(accounts, unretrieved):
    mint = Mint()
    mint.error = UpstreamUnreachable("no", retry_after_s=1.0)
    for take in (False, True):
        early = EarlyToken(mint)
        early.prepare(accounts[0], HEAD)
        await run_tasks()
        if take:
            assert await early.take(accounts[1]) is None
        early.drop()
    await run_tasks()
    assert await unretrieved() == []


async def test_a_caller_that_leaves_while_its_token_is_minted_is_cancelled(accounts):
    mint = Hanging()
    early = EarlyToken(mint)
    early.prepare(accounts[0], HEAD)
    taking = asyncio.create_task(early.take(accounts[0]))
    await run_tasks()
    taking.cancel()
    await asyncio.wait([taking])
    await run_tasks()
    assert (taking.cancelled(), mint.cancelled) == (True, 1)
