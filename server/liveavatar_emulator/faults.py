"""Faults that a test may arm, and the queue of those on REST calls. Pure.

RestFault                    the next calls of an endpoint get a false response
SocketFault                  a session's socket misbehaves, at once or after some audio or time
├── Drop                     closed with a code, or TCP reset
├── StopReading, SlowReading the client's TCP window fills
├── DelayAcks, SwallowAcks   agent.audio_buffer_* are sent late, or never
├── ShuffleEvents            events of one moment in a random order
├── RefuseSockets            no new socket for a while
└── NeverConnected           usable, but `connected` is never sent
"""

import difflib
import random
from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

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

Selector = Annotated[int, Field(ge=1)] | Literal["next", "all", "random"] | Annotated[str, Field(min_length=8)]
"""Selected sessions: the n-th session started, the next, all, a random session with a socket, or an id."""

Ack = Literal["appended", "committed", "cleared"]


class Part(BaseModel):
    """Part of a handwritten file or request: unknown keys are refused with the closest known key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(cls.model_fields)}"
                    raise ValueError(f"unknown key {key!r}{hint}")
        return data


class RestFault(Part):
    """Fault for `times` calls. Needs one of status, body, truncate, delay_s, jitter_s, hang."""

    kind: Literal["rest"] = "rest"
    """Optional for REST faults."""
    endpoint: Endpoint
    """Endpoint of the affected calls."""
    times: int = Field(default=1, ge=1, le=1_000_000)
    """Number of affected calls."""
    chance: float = Field(default=1, gt=0, le=1)
    """Probability that a call is affected; unaffected calls are not counted."""
    status: int | None = Field(default=None, ge=200, le=599)
    """HTTP status of the false response. Without status, body and truncate the call is only delayed."""
    code: int | None = None
    """Envelope code; the status by default."""
    message: str = "Injected fault"
    """Envelope message."""
    retry_after_s: float | None = Field(default=None, ge=0)
    """Sent as `Retry-After`."""
    delay_s: float = Field(default=0, ge=0, le=3600)
    """Delay before any other effect."""
    jitter_s: float = Field(default=0, ge=0, le=3600)
    """Additional random delay up to this value."""
    hang: bool = False
    """Never respond."""
    truncate: bool = False
    """Malformed JSON: the true response, or the false response of `status`, cut off in the middle."""
    body: str | None = None
    """Respond with this text instead of an envelope; status 502 unless given."""
    account: str | None = Field(default=None, min_length=1, max_length=100)
    """Account whose calls are affected; without it, those of all accounts."""
    after_effect: bool = False
    """Execute the call first, then lose its response: blind retries are dangerous in this case."""

    @model_validator(mode="after")
    def _does_something(self) -> "RestFault":
        waits = self.delay_s or self.jitter_s or self.hang
        if self.status is None and self.body is None and not waits and not self.truncate:
            raise ValueError("a REST fault needs one of status, body, truncate, delay_s, jitter_s, hang")
        if self.truncate and self.body is not None:
            raise ValueError("truncate cuts an envelope, so it cannot go with body")
        return self


class Trigger(Part):
    """Condition, counted from the binding to a session: none, or one of the following."""

    after_bytes: int | None = Field(default=None, ge=1)
    """PCM bytes the session received."""
    after_packets: int | None = Field(default=None, ge=1)
    """`agent.speak` packets the session received."""
    after_s: float | None = Field(default=None, ge=0, le=31_622_400)
    """Emulator seconds."""
    times: int = Field(default=1, ge=1, le=1_000_000)
    """Number of runs for each session, with a new count after each."""

    @property
    def at_once(self) -> bool:
        """True without a condition."""
        return self.after_bytes is None and self.after_packets is None and self.after_s is None

    @model_validator(mode="after")
    def _one_condition(self) -> "Trigger":
        if sum(value is not None for value in (self.after_bytes, self.after_packets, self.after_s)) > 1:
            raise ValueError("give only one of after_bytes, after_packets, after_s")
        return self


class SocketFault(Trigger):
    """Common part of all faults on sockets."""

    session: Selector | None = None
    """Selected sessions; in a scenario's `[[when]]` the entry's own session."""

    @model_validator(mode="after")
    def _again_needs_a_condition(self) -> "SocketFault":
        # A drop waits for the next socket; other faults would fire all their runs at once.
        if self.times > 1 and self.at_once and not isinstance(self, Drop):
            raise ValueError("times needs after_bytes, after_packets or after_s, to separate the runs")
        return self


class _Lasting(SocketFault):
    for_s: float | None = Field(default=None, gt=0, le=31_622_400)
    """Duration in emulator seconds; without a value the fault lasts until it is disarmed."""


class Drop(SocketFault):
    """Close the socket, or reset its TCP connection; without a socket, as soon as a client attaches."""

    kind: Literal["drop"]
    code: int | None = Field(default=None, ge=1000, le=4999)
    """Close code; without it TCP is reset and no close frame is sent."""
    reason: str = Field(default="", max_length=100)


class StopReading(_Lasting):
    """Read nothing from the session's sockets, so that their TCP windows fill."""

    kind: Literal["stop_reading"]
    for_s: float = Field(gt=0, le=31_622_400)


class SlowReading(_Lasting):
    """Read the session's sockets at a limited rate."""

    kind: Literal["slow_reading"]
    bytes_per_s: float = Field(ge=20, le=1_000_000_000)
    """Bytes of the connection, base64 and envelopes included."""


class DelayAcks(_Lasting):
    """Delay acks by delay_ms and up to jitter_ms more; other events overtake them."""

    kind: Literal["delay_acks"]
    delay_ms: float = Field(default=0, ge=0, le=3_600_000)
    jitter_ms: float = Field(default=0, ge=0, le=3_600_000)
    acks: tuple[Ack, ...] = ("appended", "committed", "cleared")

    @model_validator(mode="after")
    def _delays(self) -> "DelayAcks":
        if not self.delay_ms and not self.jitter_ms:
            raise ValueError("delay_acks needs delay_ms or jitter_ms")
        return self


class SwallowAcks(_Lasting):
    """Never send acks: `count` of them, or all."""

    kind: Literal["swallow_acks"]
    count: int | None = Field(default=None, ge=1)
    acks: tuple[Ack, ...] = ("appended", "committed", "cleared")


class ShuffleEvents(_Lasting):
    """Send events of one moment in a random order."""

    kind: Literal["shuffle_events"]


class RefuseSockets(_Lasting):
    """Refuse new sockets of the session with 403, or reset their TCP connection."""

    kind: Literal["refuse_sockets"]
    how: Literal["forbidden", "reset"] = "forbidden"


class NeverConnected(_Lasting):
    """Never send `connected`; the session accepts commands after the usual delay."""

    kind: Literal["never_connected"]


AnySocketFault = (
    Drop | StopReading | SlowReading | DelayAcks | SwallowAcks | ShuffleEvents | RefuseSockets | NeverConnected
)


def _kind_of(data: Any) -> Any:
    return data.get("kind", "rest") if isinstance(data, dict) else getattr(data, "kind", None)


Fault = Annotated[
    Annotated[RestFault, Tag("rest")]
    | Annotated[Drop, Tag("drop")]
    | Annotated[StopReading, Tag("stop_reading")]
    | Annotated[SlowReading, Tag("slow_reading")]
    | Annotated[DelayAcks, Tag("delay_acks")]
    | Annotated[SwallowAcks, Tag("swallow_acks")]
    | Annotated[ShuffleEvents, Tag("shuffle_events")]
    | Annotated[RefuseSockets, Tag("refuse_sockets")]
    | Annotated[NeverConnected, Tag("never_connected")],
    Discriminator(_kind_of),
]
"""Any fault; without `kind` a REST fault."""


def shuffled(items: Sequence[Item], movable: type[Item], rng: random.Random) -> list[Item]:
    """Return the items with those of type `movable` in a random order among their own positions."""
    places = [place for place, item in enumerate(items) if type(item) is movable]
    moved = rng.sample(places, len(places))
    result = list(items)
    for place, source in zip(places, moved, strict=True):
        result[place] = items[source]
    return result


class RestQueue:
    """Armed REST faults, used per endpoint in the order of arming."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._armed: dict[str, deque[tuple[int, RestFault, int]]] = {}

    def arm(self, number: int, fault: RestFault) -> None:
        """Queue a fault behind earlier faults of the same endpoint."""
        self._armed.setdefault(fault.endpoint, deque()).append((number, fault, fault.times))

    def take(self, endpoint: str, account: str | None = None) -> tuple[int, RestFault] | None:
        """Return the fault of this call with its number; None if the call is unaffected.

        Args:
            endpoint: Endpoint of the call.
            account: Account of the call; None for a call without a valid credential.
        """
        queue = self._armed.get(endpoint, deque())
        place = next((n for n, (_, fault, _) in enumerate(queue) if fault.account in (None, account)), None)
        if place is None:
            return None
        number, fault, left = queue[place]
        if fault.chance < 1 and self._rng.random() >= fault.chance:
            return None
        if left > 1:
            queue[place] = (number, fault, left - 1)
        else:
            del queue[place]
        return number, fault

    def delay_s(self, fault: RestFault) -> float:
        """Return the delay of the call, random part included."""
        return fault.delay_s + (self._rng.uniform(0, fault.jitter_s) if fault.jitter_s else 0.0)

    def disarm(self, number: int) -> bool:
        """Remove a fault; False if it is not armed, or no longer."""
        for queue in self._armed.values():
            for row in queue:
                if row[0] == number:
                    queue.remove(row)
                    return True
        return False

    def clear(self) -> None:
        """Disarm all faults."""
        self._armed.clear()

    def armed(self) -> list[tuple[int, RestFault, int]]:
        """Return the armed faults: number, fault, calls left."""
        return sorted((row for queue in self._armed.values() for row in queue), key=lambda row: row[0])
