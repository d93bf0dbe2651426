"""Lists in which a bad item does not fail the others."""

from structlog.testing import capture_logs

from liveavatar_gateway.rpc.lists import readable


def test_an_item_that_raises_is_logged_and_left_out():
    with capture_logs() as logged:
        assert readable([1, 0, 4], lambda item: 8 // item) == [8, 2]
    assert [line["event"] for line in logged] == ["list.item_failed"]
