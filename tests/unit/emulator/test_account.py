"""Slots, credits and history of an account."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveavatar_emulator.account import Account, SessionRecord
from liveavatar_emulator.account_limits import AccountLimits
from liveavatar_emulator.config import Settings
from liveavatar_emulator.errors import ApiError

BEGIN = datetime(2026, 10, 1, 9, 0, tzinfo=UTC)


def record(name: str = "s1", *, started_s: float = 0.0, is_sandbox: bool = False) -> SessionRecord:
    return SessionRecord(
        id=name, account="a", avatar_id="v", is_sandbox=is_sandbox, created_at=BEGIN, started_s=started_s
    )


def end(session: SessionRecord, at_s: float, reason: str = "USER_CLOSED") -> None:
    session.ended_s = at_s
    session.end_reason = reason


def test_one_session_more_than_the_limit_is_refused_with_4032():
    account = Account("a", 10)
    settings = Settings(concurrency=2)
    account.admit(record("s1"), settings, 0.0)
    account.admit(record("s2"), settings, 0.0)
    with pytest.raises(ApiError, match="Session concurrency limit reached") as refused:
        account.admit(record("s3"), settings, 0.0)
    assert (refused.value.status, refused.value.code) == (403, 4032)


def test_an_ended_session_frees_its_slot():
    account = Account("a", 10)
    first = record("s1")
    account.admit(first, Settings(), 0.0)
    end(first, 5.0)
    account.admit(record("s2"), Settings(), 5.0)


def test_a_slot_can_stay_taken_for_a_while_after_the_end():
    account = Account("a", 10)
    settings = Settings(slot_release_ms=1000)
    first = record("s1")
    account.admit(first, settings, 0.0)
    end(first, 5.0)
    assert account.occupied_slots(settings, 5.5) == 1
    assert account.occupied_slots(settings, 6.0) == 0


def test_less_than_a_minute_of_credit_is_refused_with_4033_and_takes_no_slot():
    account = Account("a", 0.99)
    with pytest.raises(ApiError, match="Insufficient credits for session") as refused:
        account.admit(record(), Settings(), 0.0)
    assert (refused.value.status, refused.value.code) == (403, 4033)
    assert account.occupied_slots(Settings(), 0.0) == 0
    assert account.balance == 0.99


def test_a_refused_slot_costs_nothing():
    account = Account("a", 10)
    with pytest.raises(ApiError):
        account.admit(record(), Settings(concurrency=0), 0.0)
    assert account.balance == 10


def test_the_first_minute_is_taken_at_start():
    account = Account("a", 10)
    account.admit(record(), Settings(), 0.0)
    assert account.balance == 9


def test_sandbox_sessions_are_free():
    account = Account("a", 0)
    free = record(is_sandbox=True)
    account.admit(free, Settings(), 0.0)
    end(free, 59.0)
    assert free.credits_consumed(99.0) == 0


@given(duration_s=st.floats(min_value=0, max_value=86_400))
def test_every_begun_minute_is_charged(duration_s):
    session = record()
    end(session, duration_s)
    consumed = session.credits_consumed(0.0)
    assert consumed >= 1
    assert (consumed - 1) * 60 < duration_s or consumed == 1
    assert duration_s <= consumed * 60


def test_history_tells_active_from_historic_newest_first():
    account = Account("a", 10)
    sessions = [record(f"s{n}") for n in range(3)]
    for session in sessions:
        account.admit(session, Settings(concurrency=9), 0.0)
    end(sessions[1], 1.0)
    assert [r.id for r in account.history(active=True)] == ["s2", "s0"]
    assert [r.id for r in account.history(active=False)] == ["s1"]
    assert account.history(active=True, avatar_id="other") == []


def test_a_historic_entry_tells_when_and_why_it_ended():
    session = record()
    end(session, 250.4)
    row = session.row(999.0)
    assert row["duration"] == 250
    assert row["credits_consumed"] == 5
    assert row["end_reason"] == "USER_CLOSED"
    assert row["end_at"] == row["updated_at"] == "2026-10-01T09:04:10.400Z"


def test_an_active_entry_has_no_end():
    row = record().row(70.0)
    assert "end_at" not in row
    assert "end_reason" not in row
    assert row["duration"] == 70


def test_limits_of_its_own_precede_the_knobs():
    account = Account("a", 10, AccountLimits(concurrency=1, credits=5, rate=3))
    assert (account.balance, account.rate(Settings())) == (5, 3)
    account.admit(record("s1"), Settings(concurrency=9), 0.0)
    with pytest.raises(ApiError, match="Session concurrency limit reached"):
        account.admit(record("s2"), Settings(concurrency=9), 0.0)
    account.reset_balance(100)
    assert (account.balance, account.peak_slots) == (5, 1)
