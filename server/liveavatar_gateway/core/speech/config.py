"""Settings of speech."""

from dataclasses import dataclass, field

from liveavatar_gateway.core.speech.scheduler import SchedulerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechConfig:
    """Bounds and deadlines of speech, in seconds."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """Packet sizes and lead."""
    max_buffered_s: float = 30.0
    """Audio that may wait here per session: the credit. Higher accepts longer bursts and needs more memory: at
    most 192 kB per second (48 kHz stereo), usually 48 kB."""
    max_utterances: int = 64
    """Utterances that may be open or queued at once."""
    remembered_utterances: int = 256
    """Ended utterances that are remembered, to refuse their ids and to answer late interrupts and streams that
    resume an utterance."""
    start_delay_s: float = 0.2
    """Assumed delay of the first sound after the first packet, until LiveAvatar confirms the start."""
    started_timeout_s: float = 1.0
    """Time after the first packet at which a start is inferred, when LiveAvatar accepted the packet and reports no
    start."""
    ended_grace_s: float = 5.0
    """Time after the estimated end at which an end is inferred, when LiveAvatar reports no end."""
    interrupt_timeout_s: float = 1.0
    """Longest wait for the answer to an interrupt before speech continues."""
    presumed_taken_s: float = 1.0
    """Age at which audio counts as received, where LiveAvatar plays without ack or pong: older audio is not sent
    again after a loss. Higher repeats more audio, lower loses more."""
    silence_timeout_s: float = 5.0
    """Longest wait for the ack or pong of a packet, where LiveAvatar sends any; then the socket counts as
    dead. LiveAvatar's media servers delay pongs under load, so this is not short. Where LiveAvatar sends no acks
    and late pongs, older audio than this counts as received."""
    max_unconfirmed_s: float = 5.0
    """Longest audio without ack or pong, where LiveAvatar sends either: no more than this is played twice after a
    lost socket. Higher tolerates later acks and repeats more audio."""
    unread_timeout_s: float = 30.0
    """Time for which a packet without a pong is kept, where LiveAvatar sends no acks: every WebSocket server
    answers pings (RFC 6455, section 5.5.2), so the packet was not read yet. Higher survives longer stalls and
    needs 48 kB of memory per second of stall."""
    never_started_s: float = 5.0
    """Longest wait for the start of an accepted utterance, where LiveAvatar reports starts. Then all audio
    upstream is interrupted and sent again, once; the second time the utterance fails."""
    lost_grace_s: float = 2.0
    """Time after the estimated end at which an end is inferred that a lost socket may have reported."""
    handover_grace_s: float = 1.0
    """Time after the estimated end of the outgoing avatar's audio at which the next one takes over, when
    LiveAvatar does not report that end. Lower makes a shorter gap inside an utterance, and may cut the word before
    the gap."""
