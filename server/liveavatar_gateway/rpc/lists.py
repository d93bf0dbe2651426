"""Lists of messages: one bad item does not fail the others, and a page has a bounded size."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import structlog
from google.protobuf.message import Message

from liveavatar_gateway.telemetry.limited_log import LimitedLog

MAX_PAGE_BYTES: Final = 256 * 1024
"""Size of the messages of one page. 500 sessions with a few labels have 150 kB."""

_Item = TypeVar("_Item")
_Message = TypeVar("_Message")
_Sized = TypeVar("_Sized", bound=Message)

_log = LimitedLog(structlog.get_logger(__name__))


def readable(items: Iterable[_Item], message_of: Callable[[_Item], _Message]) -> list[_Message]:
    """Return the messages of all items; an item that raises is logged and left out."""
    messages = []
    for item in items:
        try:
            messages.append(message_of(item))
        except Exception:  # noqa: BLE001 - a fault of one item must not hide the others
            _log.exception("list.item_failed", item=type(item).__name__)
    return messages


def fitting(
    items: Sequence[_Item], message_of: Callable[[_Item], _Sized], *, max_bytes: int = MAX_PAGE_BYTES
) -> tuple[list[_Sized], int]:
    """Return the messages of the first items that fit into a page, and the number of these items.

    The first message is always returned, so that every list has an end.
    """
    messages: list[_Sized] = []
    size_bytes = 0
    for count, item in enumerate(items):
        for message in readable([item], message_of):
            size_bytes += message.ByteSize()
            if messages and size_bytes > max_bytes:
                return messages, count
            messages.append(message)
    return messages, len(items)
