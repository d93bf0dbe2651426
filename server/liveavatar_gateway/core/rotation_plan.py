"""Plan of the rotation from an avatar whose limit is near to a standby avatar."""

from dataclasses import dataclass
from enum import Enum, unique

from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.speech.config import SpeechConfig
from liveavatar_gateway.core.speech.handover import SendGate

_LAST_MOMENT_S = 1.0
"""Margin for the clock of LiveAvatar, which counts a limit from a start that is reported a little later."""
_RESERVE_S = 2.0
"""Margin for a playout that takes longer than estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationConfig:
    """Times at which a standby avatar is prepared."""

    lead_s: float = 30.0
    """Time between the start of the standby avatar and the limit, at most half of the limit. Both avatars are
    billed from that start until the first end of an utterance. Higher gives more time for a permit and an end of
    an utterance; lower costs less."""


@unique
class StandbyState(Enum):
    """Stage of the standby avatar."""

    NONE = "none"
    REQUESTED = "requested"
    """The owner was asked for a standby avatar, and tries until it is ready."""
    READY = "ready"
    """The standby avatar can take over."""


class RotationPlan:
    """Plan of the rotations of a session, one after the other. No clock: times are arguments.

    The standby avatar is started at `_prepare_at_s`. Once it is ready, the outgoing avatar is sent no new
    utterance and falls silent at the end of its current one. From `_stop_at_s` on the outgoing avatar is sent no
    audio at all, so that it can play what it has before the limit. At `_last_moment_s` the standby avatar takes
    over even if audio is cut.
    """

    def __init__(self, config: RotationConfig, speech: SpeechConfig) -> None:
        self._config = config
        self._finish_s = speech.scheduler.max_lead_s + speech.start_delay_s + speech.handover_grace_s + _RESERVE_S
        self._prepare_at_s: float | None = None
        self._stop_at_s = self._last_moment_s = 0.0
        self.standby = StandbyState.NONE
        self.failure: GatewayError | None = None
        """Error of the latest attempt to start a standby avatar."""

    def plan(self, expires_at_s: float | None, max_duration_s: float | None) -> None:
        """Plan the rotation from an avatar.

        Args:
            expires_at_s: Time at which its limit ends the avatar; None without a limit.
            max_duration_s: Whole length of the limit; None when it is not known.
        """
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
        """Return which part of the speech waits for the next avatar."""
        if self.standby is not StandbyState.READY:
            return SendGate.NOTHING
        return SendGate.ALL if now_s >= self._stop_at_s else SendGate.NEXT

    def next_s(self, now_s: float) -> float | None:
        """Return the time of the next change of the plan."""
        if self._prepare_at_s is None:
            return None
        steps = (self._prepare_at_s, self._stop_at_s, self._last_moment_s)
        return min((at_s for at_s in steps if at_s > now_s), default=None)
