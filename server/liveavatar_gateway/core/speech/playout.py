"""Playout clock: estimate of the playback position."""


class PlayoutClock:
    """Estimate of how much of the audio that was sent upstream was played.

    Positions are seconds of audio since the session began, over all utterances. The clock has two views. `lead_s`
    is cautious: it assumes that playback began at the moment of sending, so that the next packet is never late.
    `heard_s` is realistic: it adds the start delay until LiveAvatar confirms the start.

    Invariant: 0 <= heard_s <= sent_s, and the position decreases only when a start is confirmed later than
    assumed.
    """

    __slots__ = ("_base_at_s", "_base_s", "_confirmed", "_start_delay_s", "sent_s")

    def __init__(self, *, start_delay_s: float) -> None:
        """Create a clock of a silent avatar.

        Args:
            start_delay_s: Assumed delay of the first sound after the first packet, until a start is confirmed.
                LiveAvatar's speak_started came about 200 ms after the first packet (field measurement).
        """
        self.sent_s = 0.0
        self._start_delay_s = start_delay_s
        self._base_s = 0.0
        self._base_at_s = 0.0
        self._confirmed = False

    def send(self, seconds: float, now_s: float) -> None:
        """Record that `seconds` of audio were sent; a clock that ran dry starts again."""
        if self.lead_s(now_s) <= 0.0:
            self._base_s = self.sent_s
            self._base_at_s = now_s
            # Only the start of an utterance has the delay; playback that ran dry inside one resumes at once.
            self._confirmed = False
        self.sent_s += seconds

    def confirm(self, position_s: float, now_s: float) -> None:
        """Record that LiveAvatar began to play at `position_s` at this moment."""
        self._base_s = position_s
        self._base_at_s = now_s
        self._confirmed = True

    def resume(self) -> None:
        """Record that playback has no start delay, since it resumed after it had run dry."""
        self._confirmed = True

    def lead_s(self, now_s: float) -> float:
        """Return the seconds of audio that were sent and not yet played, by the cautious view."""
        return max(0.0, self.sent_s - self._base_s - (now_s - self._base_at_s))

    def heard_s(self, now_s: float) -> float:
        """Return the position that was played by now, by the realistic view."""
        delay_s = 0.0 if self._confirmed else self._start_delay_s
        elapsed_s = max(0.0, now_s - self._base_at_s - delay_s)
        return min(self.sent_s, self._base_s + elapsed_s)

    @property
    def dry_at_s(self) -> float:
        """Time at which all sent audio is played."""
        delay_s = 0.0 if self._confirmed else self._start_delay_s
        return self._base_at_s + delay_s + self.sent_s - self._base_s

    def take_back(self, seconds: float) -> None:
        """Subtract the latest `seconds` of audio, which are sent again."""
        self.sent_s -= seconds

    def cut(self, now_s: float) -> None:
        """Subtract the audio that was not played, since LiveAvatar dropped it."""
        self.sent_s = self.heard_s(now_s)
        self._base_s = self.sent_s
        self._base_at_s = now_s
