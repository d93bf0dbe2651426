"""A fault in telemetry is logged once and never raised."""

from structlog.testing import capture_logs

from liveavatar_gateway.telemetry.guard import never_raises


def test_a_fault_is_logged_once_and_not_raised():
    @never_raises
    def record(value: int) -> None:
        raise ZeroDivisionError(value)

    with capture_logs() as lines:
        record(1)
        record(2)
    assert [line["event"] for line in lines] == ["telemetry.failed"]
