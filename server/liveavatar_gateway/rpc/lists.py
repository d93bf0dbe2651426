"""Lists of messages in which one bad item does not fail the others."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog

_Item = TypeVar("_Item")
_Message = TypeVar("_Message")

_log = structlog.get_logger(__name__)


def readable(items: Iterable[_Item], message_of: Callable[[_Item], _Message]) -> list[_Message]:
    """Return the messages of all items; an item that raises is logged and left out."""
    messages = []
    for item in items:
        try:
            messages.append(message_of(item))
        except Exception:  # noqa: BLE001 - a fault of one item must not hide the others
            _log.exception("list.item_failed", item=type(item).__name__)
    return messages
