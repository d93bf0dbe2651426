"""Packet scheduler: sizes and times of packets, derived from the lead."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Sizes and times of the packet scheduler, in seconds of audio."""

    first_packet_s: float = 0.4
    """Length of the first packet of an utterance. Lower speaks sooner; higher survives a less regular source."""
    margin_s: float = 0.2
    """Lead at which the next packet must be sent. Lower makes fewer, longer packets; higher survives longer pauses
    of the process and the network."""
    min_packet_s: float = 0.1
    """Shortest packet while the lead allows waiting. Higher saves overhead for slow sources."""
    max_packet_s: float = 1.0
    """Longest packet. LiveAvatar's documents ask for about one second; 1 MB per message is its hard limit."""
    max_lead_s: float = 3.0
    """Largest lead over playback. Higher hides longer outages; lower wastes less audio on an interrupt."""
    flush_s: float = 0.25
    """Pause of a source after which less than a first packet is sent."""
    queue_lead_s: float = 0.4
    """Lead at which the next utterance is sent before the end of the current one. Higher makes a gap between the
    two less likely; lower keeps the next one out of reach of an interrupt that names the current one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of the scheduler.

    With `cut_bytes` above 0, cut a packet of that size and ask again. Otherwise wait until `wake_bytes` are
    buffered or, when `wake_in_s` is set, until that many seconds have passed.
    """

    cut_bytes: int = 0
    wake_bytes: int = 1 << 62
    wake_in_s: float | None = None


class PacketScheduler:
    """Scheduler of the packets of one utterance. Sizes are bytes of the caller's format, in whole samples."""

    __slots__ = ("_byte_rate", "_config", "_first", "_max", "_min")

    def __init__(self, config: SchedulerConfig, *, byte_rate: int, frame_bytes: int) -> None:
        """Convert the configured seconds into bytes of a format.

        Args:
            config: Sizes and times in seconds.
            byte_rate: Bytes per second of the caller's format.
            frame_bytes: Bytes of one sample over all channels; all cuts are multiples of it.
        """

        def in_bytes(seconds: float) -> int:
            return max(1, round(seconds * byte_rate / frame_bytes)) * frame_bytes

        self._config = config
        self._byte_rate = byte_rate
        self._first = in_bytes(config.first_packet_s)
        self._min = in_bytes(config.min_packet_s)
        self._max = in_bytes(config.max_packet_s)

    def decide(self, *, buffered: int, sealed: bool, lead_s: float, quiet_s: float) -> Decision:
        """Decide whether a packet is due, and its size.

        Args:
            buffered: Bytes that wait here.
            sealed: True when no more bytes will come.
            lead_s: Seconds sent and not yet played; 0 before the first packet and when the avatar ran dry.
            quiet_s: Seconds since the latest chunk.
        """
        if buffered == 0:
            return self._wait_for_more(lead_s)
        if lead_s <= 0.0:
            return self._prime(buffered, sealed=sealed, quiet_s=quiet_s)
        if sealed or buffered >= self._max:
            return self._send_ahead(min(buffered, self._max), lead_s)
        return self._keep_up(buffered, lead_s)

    def _wait_for_more(self, lead_s: float) -> Decision:
        if lead_s <= 0.0:
            return Decision(wake_bytes=1)
        if lead_s <= self._config.margin_s:
            return Decision(wake_bytes=self._min, wake_in_s=lead_s)
        return Decision(wake_bytes=self._max, wake_in_s=lead_s - self._config.margin_s)

    def _prime(self, buffered: int, *, sealed: bool, quiet_s: float) -> Decision:
        """Wait for a whole first packet, since playback that starts with less runs dry at once."""
        if buffered >= self._first:
            return Decision(cut_bytes=self._first)
        if sealed or quiet_s >= self._config.flush_s:
            return Decision(cut_bytes=buffered)
        return Decision(wake_bytes=self._first, wake_in_s=self._config.flush_s - quiet_s)

    def _send_ahead(self, size: int, lead_s: float) -> Decision:
        """Send whole packets up to the largest lead; the rest stays here, where an interrupt can drop it."""
        over_s = lead_s + size / self._byte_rate - self._config.max_lead_s
        if over_s <= 0.0 or lead_s <= self._config.margin_s:
            return Decision(cut_bytes=size)
        return Decision(wake_in_s=min(over_s, lead_s - self._config.margin_s))

    def _keep_up(self, buffered: int, lead_s: float) -> Decision:
        """Wait for more audio until the lead falls to the margin."""
        margin_s = self._config.margin_s
        if lead_s > margin_s:
            return Decision(wake_bytes=self._max, wake_in_s=lead_s - margin_s)
        if buffered >= self._min or lead_s <= margin_s / 2:
            return Decision(cut_bytes=buffered)
        return Decision(wake_bytes=self._min, wake_in_s=lead_s - margin_s / 2)
