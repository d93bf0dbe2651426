"""Log lines that callers can cause: a few in a period, and then a count."""

from structlog import get_logger
from structlog.testing import capture_logs

from liveavatar_gateway.telemetry.limited_log import LimitedLog


def test_lines_above_the_limit_are_counted_and_the_next_line_has_their_number():
    now = [0.0]
    with capture_logs() as lines:
        log = LimitedLog(get_logger(), per_event=2, period_s=10.0, clock=lambda: now[0])
        for _ in range(5):
            log.warning("a", value=1)
        log.error("b")
        now[0] = 10.0
        log.warning("a", value=2)
        log.info("a")
    assert lines == [
        {"event": "a", "value": 1, "log_level": "warning"},
        {"event": "a", "value": 1, "log_level": "warning"},
        {"event": "b", "log_level": "error"},
        {"event": "a", "value": 2, "left_out": 3, "log_level": "warning"},
        {"event": "a", "log_level": "info"},
    ]


def test_an_exception_keeps_its_traceback():
    with capture_logs() as lines:
        try:
            1 / 0  # noqa: B018 - raises
        except ZeroDivisionError:
            LimitedLog(get_logger()).exception("a")
    assert lines[0]["exc_info"] is True
