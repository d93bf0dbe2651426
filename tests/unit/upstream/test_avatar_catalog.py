"""The cache of avatars: one fetch for all callers, and an old list rather than none."""

import asyncio

import pytest

from liveavatar_gateway.core.errors import InternalError, UpstreamUnreachable
from liveavatar_gateway.upstream.avatar_catalog import AvatarCatalog, CatalogConfig
from liveavatar_gateway.upstream.avatars import Avatar

OLD, NEW = [Avatar(id="a", name="old")], [Avatar(id="b", name="new")]
DOWN = UpstreamUnreachable("LiveAvatar cannot be reached", retry_after_s=0.25)


class LiveAvatar:
    """List of avatars, or the error of a fetch; answers once `answers` is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.fetches = 0
        self.result: list[Avatar] | Exception = OLD
        self.answers = asyncio.Event()
        self.answers.set()

    async def fetch(self) -> list[Avatar]:
        self.fetches += 1
        await self.answers.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
async def upstream():
    return LiveAvatar()


@pytest.fixture
async def catalog(upstream):
    config = CatalogConfig(ttl_s=300, retry_s=5, patience_s=0.01)
    made = AvatarCatalog(config, upstream.fetch, clock=lambda: upstream.now_s)
    yield made
    await made.aclose()


async def test_a_list_is_fetched_once_for_all_callers_until_it_is_old(catalog, upstream):
    assert await asyncio.gather(*(catalog.avatars() for _ in range(10))) == [OLD] * 10
    upstream.now_s += 299
    assert await catalog.avatars() == OLD
    assert upstream.fetches == 1
    upstream.now_s, upstream.result = upstream.now_s + 1, NEW
    assert await asyncio.gather(*(catalog.avatars() for _ in range(10))) == [NEW] * 10
    assert upstream.fetches == 2


async def test_a_caller_that_gives_up_takes_the_list_from_no_other(catalog, upstream):
    upstream.answers.clear()
    first, second = (asyncio.create_task(catalog.avatars()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    upstream.answers.set()
    assert await second == OLD
    assert upstream.fetches == 1


async def test_an_old_list_is_served_while_liveavatar_is_down_or_slow(catalog, upstream):
    await catalog.avatars()
    upstream.now_s, upstream.result = upstream.now_s + 100_000, DOWN
    assert await catalog.avatars() == OLD
    assert await catalog.avatars() == OLD
    assert upstream.fetches == 2
    upstream.now_s, upstream.result = upstream.now_s + 5, NEW
    upstream.answers.clear()
    assert await catalog.avatars() == OLD
    upstream.answers.set()
    assert await catalog.avatars() == NEW
    assert upstream.fetches == 3


async def test_without_any_list_callers_get_the_failure_and_liveavatar_is_not_asked_by_each(catalog, upstream):
    upstream.result = DOWN
    for _ in range(3):
        with pytest.raises(UpstreamUnreachable):
            await catalog.avatars()
    assert upstream.fetches == 1
    upstream.now_s, upstream.result = upstream.now_s + 5, NEW
    assert await catalog.avatars() == NEW


async def test_a_fault_is_logged_and_returned_as_such(catalog, upstream):
    upstream.result = ZeroDivisionError()
    with pytest.raises(InternalError):
        await catalog.avatars()


async def test_the_exit_ends_a_fetch_and_those_who_wait_for_it(catalog, upstream):
    upstream.answers.clear()
    waiting = asyncio.create_task(catalog.avatars())
    await asyncio.sleep(0)
    await catalog.aclose()
    with pytest.raises(InternalError):
        await waiting
