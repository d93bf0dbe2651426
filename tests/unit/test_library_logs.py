"""Log lines of libraries: printed without values, and not for every call."""

import logging

import pytest
from structlog.testing import capture_logs

from liveavatar_gateway.library_logs import LibraryLogs

SECRET = "a-secret"


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def library(clock):
    logger = logging.Logger("grpc._cython.cygrpc")  # noqa: LOG001 - one for each test
    logger.addHandler(LibraryLogs(clock=clock))
    return logger


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        pytest.param("Invalid encoding on %s", (SECRET,), "Invalid encoding on %s", id="a value to fill in"),
        pytest.param(f"Exception in callback f({SECRET!r})", (), "Exception in callback f", id="filled in"),
        pytest.param(f"Unexpected: {SECRET}", (), "Unexpected", id="behind a colon"),
        pytest.param(f"Never retrieved\nfuture: <Task {SECRET}>", (), "Never retrieved", id="several lines"),
        pytest.param(ValueError(SECRET), (), "<ValueError>", id="an exception instead of words"),
        pytest.param(
            "Unexpected [KeyError] raised by servicer method [/a/B]",
            (),
            "Unexpected [KeyError] raised by servicer method [/a/B]",
            id="names in brackets",
        ),
    ],
)
def test_the_fixed_part_of_a_message_is_printed_and_no_value(library, message, arguments, text):
    with capture_logs() as lines:
        library.error(message, *arguments)
    assert lines == [
        {"event": "library.log", "library": "grpc._cython.cygrpc", "text": text, "log_level": "error"}
    ]


def test_of_an_exception_its_kind_and_place_are_printed_and_no_value(library):
    with capture_logs() as (lines):
        try:
            bytes([0xFF]).decode()
        except UnicodeDecodeError:
            library.exception("Invalid encoding on %s", SECRET)
    (line,) = lines
    assert line["exception"] == "UnicodeDecodeError"
    (where,) = line["where"]
    assert where.startswith("test_library_logs.py:")
    assert SECRET not in str(line)


def test_the_same_line_is_printed_once_a_minute_with_how_often_it_came(library, clock):
    with capture_logs() as lines:
        for number in range(50):
            library.warning("Invalid encoding on %s", number)
        library.warning("something else")
        clock.now_s += 61
        library.warning("Invalid encoding on %s", SECRET)
    assert [(line["text"], line.get("repeated")) for line in lines] == [
        ("Invalid encoding on %s", None),
        ("something else", None),
        ("Invalid encoding on %s", 49),
    ]


def test_lines_without_end_of_different_words_take_no_memory_without_end(library):
    handler = library.handlers[0]
    with capture_logs() as lines:
        for number in range(1000):
            library.warning(f"line {number}")
    assert len(lines) == 1000
    assert len(handler._printed) <= 256


def test_chatter_is_not_printed(library):
    with capture_logs() as lines:
        library.info("HTTP Request to %s", SECRET)
    assert lines == []
