"""Settings of speech."""

from dataclasses import dataclass, field

from liveavatar_gateway.core.speech.scheduler import SchedulerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechConfig:
    """Bounds and deadlines of speech, in seconds."""

    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """Packet sizes and lead."""
    max_buffered_s: float = 30.0
    """Audio that may wait here per session: the credit. Higher takes longer bursts; costs memory, at most
    192 kB per second (48 kHz stereo) and usually 48 kB."""
    max_utterances: int = 64
    """Utterances that may be open or queued at once."""
    remembered_utterances: int = 256
    """Ended utterances that are remembered, to refuse their ids, and to answer late interrupts and those who
    resume one."""
    start_delay_s: float = 0.2
    """From the first packet to the first sound, until LiveAvatar confirms it."""
    started_timeout_s: float = 1.0
    """Time after the first packet at which a start is inferred when LiveAvatar accepted it and reports none."""
    ended_grace_s: float = 5.0
    """Time after the estimated end at which an end is inferred when LiveAvatar reports none."""
    interrupt_timeout_s: float = 1.0
    """Longest wait for the answer to an interrupt before speech continues."""
    presumed_taken_s: float = 1.0
    """Age at which audio counts as received, where LiveAvatar plays without ack or pong: older audio is not sent
    again after a loss. Higher repeats more, lower loses more."""
    silence_timeout_s: float = 5.0
    """Longest wait for the ack or pong of a packet, where acks are given; then the socket counts as
    dead. LiveAvatar's media servers delay pongs under load, so this is not short. Where no acks are given and
    pongs come late, what is older than this is taken for there."""
    max_unconfirmed_s: float = 5.0
    """Audio that may be on its way without ack and pong, where LiveAvatar gives either: so much is said twice at
    most behind a socket that is lost. Higher rides out later acks, and repeats more."""
    unread_timeout_s: float = 30.0
    """Time for which a packet without a pong is kept, where no acks are given: every WebSocket server answers
    pings (RFC 6455, section 5.5.2), so it was not read yet. Higher survives longer stalls; costs memory, 48 kB per
    second of them."""
    never_started_s: float = 5.0
    """Longest silence of an accepted utterance, where starts are reported. Then all audio upstream is interrupted
    and sent again, once; the second time the utterance fails."""
    lost_grace_s: float = 2.0
    """Time after the estimated end at which an end is inferred that may have been reported to a lost socket."""
    parting_grace_s: float = 1.0
    """Time after the estimated end of the outgoing avatar's audio at which the next one takes over, when
    LiveAvatar does not report that end. Lower makes a shorter gap inside an utterance, and risks its last word
    before."""
