"""Faults of a connection, in toxiproxy's words: github.com/Shopify/toxiproxy, README, "Toxics".

As there, times are milliseconds (microseconds for the slicer's delay), sizes bytes, rates kilobytes of 1000 bytes
per second.
"""

from dataclasses import dataclass
from typing import Literal

Stream = Literal["upstream", "downstream"]
"""Direction: `upstream` from the client, `downstream` from the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """All data comes `latency` +/- `jitter` later, in order. What is under way at a time is not limited by it."""

    latency: float
    jitter: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """At most `rate` kilobytes per second. 0 holds all data until the toxic changes, and loses none."""

    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowClose:
    """The end of the stream comes `delay` later."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """All data is dropped, and the connection closed after `timeout`; with 0, when the toxic is removed.

    A stream with a hole in it does not exist in TCP, so a connection that lost data never goes on.
    """

    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPeer:
    """Both sides get a TCP reset after `timeout`."""

    timeout: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicer:
    """Data comes in bits of `average_size` +/- `size_variation`, each `delay` microseconds after the last."""

    average_size: int
    size_variation: int = 0
    delay: float = 0

    def __post_init__(self) -> None:
        if not 0 <= self.size_variation < self.average_size:
            raise ValueError("size_variation is at least 0 and below average_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitData:
    """The connection is closed when `bytes` have come through since it has the toxic."""

    bytes: int


Toxic = Latency | Bandwidth | SlowClose | Timeout | ResetPeer | Slicer | LimitData
