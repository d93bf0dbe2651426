"""Playout clock: estimate of the playback position."""


class PlayoutClock:
    """Estimates how much of the audio sent upstream was heard.

    Positions are seconds of audio since the session began, over all utterances. Two views of one clock:
    `lead_s` is cautious (it assumes that playback began the moment audio was sent, so that the next packet
    is never late), `heard_s` is honest (it adds the start delay until LiveAvatar confirms the start).

    Invariant: 0 <= heard_s <= sent_s, and position only goes back when a start is confirmed later than assumed.
    """

    __slots__ = ("_base_at_s", "_base_s", "_confirmed", "_start_delay_s", "sent_s")

    def __init__(self, *, start_delay_s: float) -> None:
        """Begin silent.

        Args:
            start_delay_s: From the first packet to the first sound, until a start is confirmed. LiveAvatar's
                speak_started came about 200 ms after the first chunk (field measurement).
        """
        self.sent_s = 0.0
        self._start_delay_s = start_delay_s
        self._base_s = 0.0
        self._base_at_s = 0.0
        self._confirmed = False

    def send(self, seconds: float, now_s: float) -> None:
        """Note that `seconds` of audio went out; a clock that ran dry starts again here."""
        if self.lead_s(now_s) <= 0.0:
            self._base_s = self.sent_s
            self._base_at_s = now_s
            # Playback that ran dry inside an utterance goes on at once; only a fresh start has the delay.
            self._confirmed = False
        self.sent_s += seconds

    def confirm(self, position_s: float, now_s: float) -> None:
        """Note that LiveAvatar began to play at `position_s` just now."""
        self._base_s = position_s
        self._base_at_s = now_s
        self._confirmed = True

    def resume(self) -> None:
        """Note that the running playback has no start delay: it went on after it had run dry."""
        self._confirmed = True

    def lead_s(self, now_s: float) -> float:
        """Seconds of audio that were sent and, cautiously, not yet played."""
        return max(0.0, self.sent_s - self._base_s - (now_s - self._base_at_s))

    def heard_s(self, now_s: float) -> float:
        """Position that was heard by now."""
        delay_s = 0.0 if self._confirmed else self._start_delay_s
        elapsed_s = max(0.0, now_s - self._base_at_s - delay_s)
        return min(self.sent_s, self._base_s + elapsed_s)

    @property
    def dry_at_s(self) -> float:
        """Time at which all sent audio is played."""
        delay_s = 0.0 if self._confirmed else self._start_delay_s
        return self._base_at_s + delay_s + self.sent_s - self._base_s

    def take_back(self, seconds: float) -> None:
        """Note that the latest `seconds` of audio never arrived; they are sent again."""
        self.sent_s -= seconds

    def cut(self, now_s: float) -> None:
        """Forget what was sent and not heard: LiveAvatar dropped it."""
        self.sent_s = self.heard_s(now_s)
        self._base_s = self.sent_s
        self._base_at_s = now_s
