"""Learned pause between the end of a session and the next start in its permit."""

from typing import Final

_LEAST_STEP_S: Final = 0.25
"""Shortest pause after a refusal."""
_MAX_STEP_S: Final = 4.0
"""Longest pause after a refusal."""
_MAX_SETTLE_S: Final = 8.0
"""Upper bound of the learned pause after the end of a session."""
_SHRINKING: Final = 0.9
_FORGETTING: Final = 0.98
_ABOVE: Final = 1.1


class Settling:
    """Pause between the end of a session and the next start, learned from LiveAvatar's answers. Pure.

    Two bounds are learned: the longest time after an end at which a start was refused, and the time at which a
    start was accepted. The pause moves from the second towards the first, and the first decays slowly.
    """

    def __init__(self, least_s: float) -> None:
        self.pause_s = least_s
        self._least_s = least_s
        self._refused_after_s = 0.0
        self._shrunk_at_s = float("-inf")

    def refused(self, waited_s: float) -> float:
        """Learn from a refused start and return the additional wait, which grows with the time waited in vain.

        Args:
            waited_s: Time since the previous session of this permit ended.
        """
        self._refused_after_s = max(self._refused_after_s, min(waited_s, _MAX_SETTLE_S))
        step_s = min(max(waited_s / 2, _LEAST_STEP_S), _MAX_STEP_S)
        self._set(max(self.pause_s, waited_s + step_s))
        return step_s

    def accepted(self, waited_s: float, *, had_refusals: bool, now_s: float) -> None:
        """Learn from an accepted start.

        Args:
            waited_s: Time since the previous session of this permit ended.
            had_refusals: Earlier starts with this permit were refused.
            now_s: Monotonic time. Without refusals the pause shrinks at most once per pause, because simultaneous
                starts carry the same information.
        """
        if had_refusals:
            # LiveAvatar counts sessions, not permits: a session that ended later may have made room for this
            # start.
            self._set(max(waited_s, self._refused_after_s * _ABOVE))
        elif now_s >= self._shrunk_at_s + self.pause_s:
            self._shrunk_at_s = now_s
            self._refused_after_s *= _FORGETTING
            self._set(self._refused_after_s + (self.pause_s - self._refused_after_s) * _SHRINKING)

    def _set(self, pause_s: float) -> None:
        self.pause_s = max(self._least_s, min(pause_s, _MAX_SETTLE_S))
