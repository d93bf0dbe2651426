"""Lifetime of an avatar: LiveAvatar's limit, the notice before it, and the rotation to a standby avatar."""

from liveavatar_gateway.core.config import SessionConfig
from liveavatar_gateway.core.errors import GatewayError
from liveavatar_gateway.core.rotation_plan import RotationPlan, StandbyState
from liveavatar_gateway.core.speech.handover import Handover, SendGate


class Lifetime:
    """Limit of the current avatar, if any, and the rotation to another avatar before that limit."""

    def __init__(self, config: SessionConfig, *, auto_rotate: bool) -> None:
        self.expires_at_s: float | None = None
        """Time at which the limit ends the avatar, monotonic seconds; None without a limit."""
        self._rotation = RotationPlan(config.rotation, config.speech) if auto_rotate else None
        self._notice_s = config.expiring_notice_s
        self._late_s = config.expiry_grace_s
        self._grace_s = self._late_s
        self._notice_given = False
        self._ticked_at_s = 0.0

    def begin(self, max_duration_s: float | None, begun_at_s: float, *, enforced: bool = False) -> None:
        """Set the limit of a new avatar.

        Args:
            max_duration_s: Length of the limit; None for no limit.
            begun_at_s: Time from which it counts.
            enforced: True for a limit that LiveAvatar does not know, so that nothing is waited for at its end.
        """
        self._grace_s = 0.0 if enforced else self._late_s
        self._renew(None if max_duration_s is None else begun_at_s + max_duration_s, max_duration_s)

    def restore(self, expires_in_s: float | None, now_s: float) -> None:
        """Set the rest of the limit of an avatar that another process started; its whole length is unknown."""
        self._renew(None if expires_in_s is None else now_s + expires_in_s, None)

    def _renew(self, expires_at_s: float | None, max_duration_s: float | None) -> None:
        self.expires_at_s = expires_at_s
        self._notice_given = False
        if self._rotation is not None:
            self._rotation.plan(expires_at_s, max_duration_s)

    # --- standby avatar

    @property
    def has_standby(self) -> bool:
        """True when a standby avatar can take over."""
        return self._rotation is not None and self._rotation.standby is StandbyState.READY

    @property
    def failure(self) -> GatewayError | None:
        """Error of the latest attempt to start a standby avatar."""
        return None if self._rotation is None else self._rotation.failure

    def request_standby(self, now_s: float) -> bool:
        """Return True once, when a standby avatar is to be prepared."""
        return self._rotation is not None and self._rotation.request_standby(now_s)

    def standby_ready(self) -> None:
        """Record that a standby avatar can take over."""
        if self._rotation is not None:
            self._rotation.standby = StandbyState.READY

    def standby_dropped(self) -> None:
        """Record that the standby avatar, if any, was dropped."""
        if self._rotation is not None:
            self._rotation.standby = StandbyState.NONE

    def standby_failed(self, error: GatewayError) -> bool:
        """Record that a standby avatar could not be started or was lost; return True when the reason is new."""
        if self._rotation is None:
            return False
        known, self._rotation.failure = self._rotation.failure, error
        self._rotation.standby = StandbyState.REQUESTED
        return known is None or known.reason != error.reason

    def is_last_moment(self, now_s: float) -> bool:
        """Return True when the standby avatar must take over even if audio is cut."""
        return self._rotation is not None and self._rotation.is_last_moment(now_s)

    def gate(self, now_s: float) -> SendGate:
        """Return which part of the speech waits for the next avatar."""
        return SendGate.NOTHING if self._rotation is None else self._rotation.gate(now_s)

    def handover_deadline_s(self, handover: Handover) -> float | None:
        """Return the next time at which the rotation plan or the handover may change; None when neither can."""
        if self._rotation is None:
            return None
        due = [self._rotation.next_s(self._ticked_at_s)]
        if self.has_standby:
            due.append(handover.at_s)
        return min((at_s for at_s in due if at_s is not None and at_s > self._ticked_at_s), default=None)

    # --- time

    @property
    def deadline_s(self) -> float | None:
        """Time at which the expiry is reported, or at which it ends the session."""
        if self.expires_at_s is None:
            return None
        is_past_notice = self._notice_given or self.has_standby
        return self.expires_at_s + (self._grace_s if is_past_notice else -self._notice_s)

    def tick(self, now_s: float) -> None:
        """Record the time of a tick, so that later deadlines alone count."""
        self._ticked_at_s = now_s

    def notice_s(self, now_s: float) -> float | None:
        """Return the remaining seconds once, when the notice of the expiry is due; None otherwise."""
        if self.expires_at_s is None or now_s < self.expires_at_s - self._notice_s:
            return None
        if self._notice_given or self.has_standby:
            return None
        self._notice_given = True
        return max(0.0, self.expires_at_s - now_s)

    def is_past(self, now_s: float) -> bool:
        """Return True when the session is to be ended because LiveAvatar did not report its end."""
        return self.expires_at_s is not None and now_s >= self.expires_at_s + self._grace_s
