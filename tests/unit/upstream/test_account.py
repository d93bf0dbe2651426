"""The account: its sessions, and LiveAvatar's records of them."""

import asyncio
import contextlib

import pytest

from liveavatar_gateway.core.errors import UpstreamUnauthenticated, UpstreamUnreachable
from liveavatar_gateway.telemetry.metrics import Metrics
from liveavatar_gateway.upstream import account as module
from liveavatar_gateway.upstream.account import Account, AccountConfig, AccountSpec
from liveavatar_gateway.upstream.model import RemoteStatus


class Rest:
    """REST client whose answer is given."""

    metrics = Metrics()

    def __init__(self, answer: RemoteStatus | Exception | None) -> None:
        self._answer = answer

    async def remote_status(self, _: str) -> RemoteStatus:
        if self._answer is None:
            await asyncio.Event().wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        assert self._answer is not None
        return self._answer


async def test_a_status_is_returned_as_liveavatar_reports_it():
    status = RemoteStatus(over=True, reason="IDLE_TIMEOUT")
    assert await Account(AccountSpec(), AccountConfig(), Rest(status)).remote_status("s-1") == status


@pytest.mark.parametrize("answer", [UpstreamUnreachable("no network"), None], ids=["refused", "no answer in time"])
async def test_an_unknown_status_counts_as_not_over(monkeypatch, answer):
    monkeypatch.setattr(module, "_STATUS_TIMEOUT_S", 0.01)
    assert await Account(AccountSpec(), AccountConfig(), Rest(answer)).remote_status("s-1") == RemoteStatus(
        over=False
    )


async def test_sessions_are_listed_until_they_are_removed():
    account = Account(AccountSpec(), AccountConfig(), Rest(None))
    account.add_session("s-1")
    account.add_session("s-2")
    account.remove_session("s-1")
    account.remove_session("s-1")
    assert account.session_ids == {"s-2"}


@pytest.mark.parametrize("key", ["former", "new"])
async def test_a_refusal_of_a_former_key_says_nothing_about_the_new_one(key):
    account = Account(AccountSpec(api_key="former"), AccountConfig(), Rest(None))
    with contextlib.suppress(UpstreamUnauthenticated), account.checked_key():
        account.spec = AccountSpec(api_key=key)
        raise UpstreamUnauthenticated("no")
    assert account.health.has_bad_key == (key == "former")
