"""Bulkheads: a fault of one session is logged, and reaches no other."""

import asyncio

import pytest
from structlog.testing import capture_logs

from liveavatar_gateway.sessions.bulkhead import bulkhead


def test_a_fault_is_logged_with_its_session_and_goes_no_further():
    with capture_logs() as logged, bulkhead("drain.failed", "s-1"):
        raise ZeroDivisionError
    assert [(line["event"], line["session"]) for line in logged] == [("drain.failed", "s-1")]


def test_work_without_a_fault_logs_nothing():
    with capture_logs() as logged, bulkhead("drain.failed", "s-1"):
        pass
    assert logged == []


def test_a_cancellation_is_no_fault():
    with pytest.raises(asyncio.CancelledError), bulkhead("drain.failed", "s-1"):
        raise asyncio.CancelledError
