"""Lists in which a bad item does not fail the others."""

from google.protobuf import duration_pb2
from structlog.testing import capture_logs

from liveavatar_gateway.rpc.lists import fitting, readable


def test_an_item_that_raises_is_logged_and_left_out():
    with capture_logs() as logged:
        assert readable([1, 0, 4], lambda item: 8 // item) == [8, 2]
    assert [line["event"] for line in logged] == ["list.item_failed"]


def _message(seconds: int) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds)


def test_a_page_ends_before_it_is_too_large():
    size_bytes = _message(100).ByteSize()
    messages, count = fitting([100, 101, 102], _message, max_bytes=2 * size_bytes)
    assert (messages, count) == ([_message(100), _message(101)], 2)


def test_a_page_of_all_items_is_whole():
    assert fitting([100, 101], _message) == ([_message(100), _message(101)], 2)


def test_a_message_that_is_too_large_for_a_page_is_a_page_of_its_own():
    assert fitting([100, 101], _message, max_bytes=1) == ([_message(100)], 1)


def test_an_item_that_raises_is_left_out_of_its_page():
    def message_of(seconds: int) -> duration_pb2.Duration:
        return _message(100 // seconds)

    with capture_logs():
        assert fitting([1, 0, 2], message_of) == ([_message(100), _message(50)], 3)
