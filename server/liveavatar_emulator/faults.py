"""Faults armed by a test: what the next calls of an endpoint get instead of, or after, the truth. Pure."""

import random
from collections import deque
from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

Item = TypeVar("Item")

Endpoint = Literal[
    "token",
    "start",
    "stop",
    "keep-alive",
    "list",
    "get",
    "transcript",
    "events",
    "avatars",
    "voices",
    "contexts",
    "credits",
    "secrets",
]


class Fault(BaseModel):
    """One fault, good for `times` calls. At least one of status, body, delay_s, hang must be set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    endpoint: Endpoint
    """The endpoint it hits."""
    times: int = Field(default=1, ge=1, le=1_000_000)
    """Calls it hits."""
    status: int | None = Field(default=None, ge=200, le=599)
    """HTTP status of the false answer. Without it and without body the call is only delayed."""
    code: int | None = None
    """Envelope code; the status by default."""
    message: str = "Injected fault"
    """Envelope message."""
    retry_after_s: float | None = Field(default=None, ge=0)
    """Sent as `Retry-After`."""
    delay_s: float = Field(default=0, ge=0, le=3600)
    """Wait before anything else."""
    hang: bool = False
    """Never answer."""
    body: str | None = None
    """Answer with this text instead of an envelope; status 502 unless given."""
    after_effect: bool = False
    """Carry the call out first, then lose its answer: the case that makes blind retries dangerous."""

    @model_validator(mode="after")
    def _does_something(self) -> "Fault":
        if self.status is None and self.body is None and not self.delay_s and not self.hang:
            raise ValueError("a fault needs one of status, body, delay_s, hang")
        return self


def shuffled(items: Sequence[Item], movable: type[Item], rng: random.Random) -> list[Item]:
    """The same items with those of type `movable` in a random order, each in a place one of them had."""
    places = [place for place, item in enumerate(items) if type(item) is movable]
    moved = rng.sample(places, len(places))
    result = list(items)
    for place, source in zip(places, moved, strict=True):
        result[place] = items[source]
    return result


class Faults:
    """Armed faults per endpoint, used up in the order they were armed."""

    def __init__(self) -> None:
        self._armed: dict[str, deque[tuple[Fault, int]]] = {}
        self.fired = 0

    def arm(self, fault: Fault) -> None:
        """Queue a fault behind those of the same endpoint."""
        self._armed.setdefault(fault.endpoint, deque()).append((fault, fault.times))

    def take(self, endpoint: str) -> Fault | None:
        """The fault that hits this call, if any."""
        queue = self._armed.get(endpoint)
        if not queue:
            return None
        fault, left = queue.popleft()
        if left > 1:
            queue.appendleft((fault, left - 1))
        self.fired += 1
        return fault

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def armed(self) -> list[dict[str, object]]:
        """What is armed, with the calls left."""
        return [{**fault.model_dump(), "times": left} for queue in self._armed.values() for fault, left in queue]
