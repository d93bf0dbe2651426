"""Refused session requests, and an account's rights over avatars and secrets."""

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from liveavatar_emulator import catalog, session_request
from liveavatar_emulator.account import Account, SessionRecord
from liveavatar_emulator.config import Settings
from liveavatar_emulator.errors import ApiError
from liveavatar_emulator.session_request import Connector, SessionRequest

NOW = datetime(2026, 10, 1, 9, 0, tzinfo=UTC)
ANY = "00000000-0000-4000-8000-000000000001"


def order(**changes: Any) -> SessionRequest:
    plain: dict[str, Any] = {
        "avatar_id": ANY,
        "is_sandbox": False,
        "quality": "high",
        "encoding": "H264",
        "max_session_duration": 60,
        "livekit_room": None,
    }
    return SessionRequest(**{**plain, **changes})


def openai(secret_id: str) -> Connector:
    return Connector("openai_realtime_config", {"secret_id": secret_id})


def refusal(asked: SessionRequest, account: Account | None = None, **knobs: Any) -> tuple[int, int]:
    with pytest.raises(ApiError) as refused:
        session_request.check(asked, account or Account("a", 10), Settings(**knobs))
    return refused.value.status, refused.value.code


def test_a_plain_order_passes():
    session_request.check(order(), Account("a", 10), Settings())


def test_an_avatar_out_of_use_is_refused():
    account, settings = Account("a", 10), Settings(own_avatars=3)
    usable, deploying, expired = (row["id"] for row in account.avatars.rows(3))
    session_request.check(order(avatar_id=usable), account, settings)
    for avatar_id in (deploying, expired):
        assert refusal(order(avatar_id=avatar_id), account, own_avatars=3) == (400, 4000)


def test_1080p_needs_the_plan_first_and_then_the_avatar():
    small = catalog.PUBLIC_AVATARS[1]["id"]
    asked = order(avatar_id=small, quality="very_high")
    assert refusal(asked) == (403, 4030)
    assert refusal(asked, allow_1080p=True) == (400, 4000)
    session_request.check(order(quality="very_high"), Account("a", 10), Settings(allow_1080p=True))


def test_strict_mode_refuses_a_secret_that_nobody_stored():
    assert refusal(order(connector=openai(ANY)), strict=True) == (400, 4000)
    account = Account("a", 10)
    stored = account.store_secret("OPENAI_API_KEY", "x", NOW, random.Random(1))
    session_request.check(order(connector=openai(stored.id)), account, Settings(strict=True))


def test_a_known_secret_must_fit_its_connector_and_an_unknown_one_passes():
    account = Account("a", 10)
    session_request.check(order(connector=openai(ANY)), account, Settings())
    ids = random.Random(1)
    unfit = account.store_secret("GEMINI_API_KEY", "x", NOW, ids)
    assert refusal(order(connector=openai(unfit.id)), account) == (400, 4000)
    fit = account.store_secret("OPENAI_API_KEY", "x", NOW, ids)
    session_request.check(order(connector=openai(fit.id)), account, Settings())


def test_own_avatars_have_the_same_ids_every_time_and_differ_between_accounts():
    def ids(account: str) -> list[str]:
        return [row["id"] for row in catalog.OwnAvatars(account).rows(4)]

    assert ids("a") == ids("a")
    assert not set(ids("a")) & set(ids("b"))


def test_a_deleted_avatar_leaves_a_gap_and_not_a_shift():
    avatars = catalog.OwnAvatars("a")
    first, second, third = (row["id"] for row in avatars.rows(3))
    avatars.deleted.add(second)
    assert [row["id"] for row in avatars.rows(3)] == [first, third]


def test_a_refund_is_given_once_and_shows_in_the_history():
    account = Account("a", 10)
    record = SessionRecord(id="s", account="a", avatar_id=ANY, is_sandbox=False, created_at=NOW, started_s=0.0)
    account.admit(record, Settings(), 0.0)
    account.refund(record)
    account.refund(record)
    assert account.balance == 10
    assert record.credits_consumed(59.0) == 0


def test_overage_minutes_are_counted_and_leave_the_balance_alone():
    account = Account("a", 0.5)
    assert not account.charge_minute()
    assert account.charge_minute(overage=True)
    assert (account.balance, account.overage_minutes) == (0.5, 1)
