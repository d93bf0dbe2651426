"""Heartbeats of one stream: proxies cut a stream that carries nothing for a while, often 60 s."""

import time

from google.protobuf import duration_pb2

from liveavatar_gateway.rpc.mapping import duration


class Silence:
    """Time since the last message to the caller on one stream, and whether a heartbeat is due."""

    def __init__(self, interval_s: float) -> None:
        """Begin a silence now.

        Args:
            interval_s: Longest silence; 0 for a stream without heartbeats.
        """
        self._interval_s = interval_s
        self._began_s = time.monotonic()

    @property
    def announced(self) -> duration_pb2.Duration | None:
        """Value of `heartbeat_interval`; None leaves the field unset."""
        return duration(self._interval_s) if self._interval_s else None

    @property
    def left_s(self) -> float | None:
        """Seconds until a heartbeat is due; None for a stream without heartbeats."""
        return self._began_s + self._interval_s - time.monotonic() if self._interval_s else None

    @property
    def is_too_long(self) -> bool:
        """True when a heartbeat is due."""
        left_s = self.left_s
        return left_s is not None and left_s <= 0

    def broken(self) -> None:
        """Begin a new silence: a message was written."""
        self._began_s = time.monotonic()
