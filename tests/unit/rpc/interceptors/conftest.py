"""Calls of these tests have no caller before an interceptor finds one."""

import pytest


@pytest.fixture
def caller() -> None:
    """Leave calls without a caller, unlike the tests of services."""
