"""Plan of the rotation from an avatar whose limit is near to a standby avatar."""

from dataclasses import dataclass
from enum import Enum, unique

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import SendGate

_LAST_MOMENT_S = 1.0
"""LiveAvatar counts a limit from its own start, a little before this side hears of it."""
_RESERVE_S = 2.0
"""Margin for a playout that takes longer than estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationConfig:
    """Times at which a standby avatar is prepared."""

    lead_s: float = 30.0
    """Time between its start and the limit, at most half of the limit. Both avatars are billed from
    then until the first border between two utterances. Higher finds a place and a border more surely, lower pays
    less for two."""


@unique
class StandbyState(Enum):
    """Stage of the avatar that is to take over."""

    NONE = "none"
    REQUESTED = "requested"
    """The owner was asked for one, and tries until there is one."""
    READY = "ready"
    """It can take over."""


class RotationPlan:
    """The plan of one take-over after the other. No clock: times come in.

    The fresh avatar is started at `prepare_at_s`. Once it is ready, no new utterance goes to the old one, so
    that it falls silent at its next border. From `part_at_s` on it gets nothing at all, so that it can say what it
    has before the limit. At `last_moment_s` the fresh one goes on whatever is.
    """

    def __init__(self, config: RotationConfig, speech: SpeechConfig) -> None:
        self._config = config
        self._finish_s = speech.scheduler.max_lead_s + speech.start_delay_s + speech.parting_grace_s + _RESERVE_S
        self._prepare_at_s: float | None = None
        self._stop_at_s = self._last_moment_s = 0.0
        self.standby = StandbyState.NONE
        self.failure: GatewayError | None = None
        """Error of the latest attempt to have a standby avatar."""

    def plan(self, expires_at_s: float | None, max_duration_s: float | None) -> None:
        """Plan for an avatar with this limit; None when it has none, or its length is unknown."""
        self.standby = StandbyState.NONE
        self.failure = None
        self._prepare_at_s = None
        if expires_at_s is None:
            return
        lead_s = self._config.lead_s if max_duration_s is None else min(self._config.lead_s, max_duration_s / 2)
        self._prepare_at_s = expires_at_s - lead_s
        self._stop_at_s = expires_at_s - self._finish_s
        self._last_moment_s = expires_at_s - _LAST_MOMENT_S

    def request_standby(self, now_s: float) -> bool:
        """Return True once, when a standby avatar is to be prepared."""
        if self.standby is not StandbyState.NONE or self._prepare_at_s is None or now_s < self._prepare_at_s:
            return False
        self.standby = StandbyState.REQUESTED
        return True

    def is_last_moment(self, now_s: float) -> bool:
        """Return True when the standby avatar must take over even if audio is cut."""
        return self.standby is StandbyState.READY and now_s >= self._last_moment_s

    def gate(self, now_s: float) -> SendGate:
        """Return the part of the speech that waits for the next avatar."""
        if self.standby is not StandbyState.READY:
            return SendGate.NOTHING
        return SendGate.ALL if now_s >= self._stop_at_s else SendGate.NEXT

    def next_s(self, now_s: float) -> float | None:
        """Return the time of the next change of the plan."""
        if self._prepare_at_s is None:
            return None
        steps = (self._prepare_at_s, self._stop_at_s, self._last_moment_s)
        return min((at_s for at_s in steps if at_s > now_s), default=None)
