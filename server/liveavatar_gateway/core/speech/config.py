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
    """Utterances that may be open or in line at once."""
    remembered_utterances: int = 256
    """Ended utterances that are remembered, to refuse their ids, and to answer late interrupts and those who
    resume one."""
    start_delay_s: float = 0.2
    """From the first packet to the first sound, until LiveAvatar confirms it."""
    started_timeout_s: float = 1.0
    """How long after the first packet a start is concluded when LiveAvatar took the audio but says nothing."""
    ended_grace_s: float = 5.0
    """How long after the estimated end an end is concluded when LiveAvatar says nothing."""
    interrupt_timeout_s: float = 1.0
    """How long an interrupt may stay unanswered before speech goes on."""
    presumed_taken_s: float = 1.0
    """Where LiveAvatar plays what it confirms by neither ack nor pong: audio that was sent this long before its
    socket was lost is not sent again. Higher repeats more, lower loses more."""
    silence_timeout_s: float = 5.0
    """How long a packet may stay unconfirmed, by ack or pong, where acks are given: then the socket is taken for
    dead. LiveAvatar's media servers delay pongs under load, so this is not short. Where no acks are given and
    pongs come late, what is older than this is taken for there."""
    max_unconfirmed_s: float = 5.0
    """Audio that may be on its way without ack and pong, where LiveAvatar gives either: so much is said twice at
    most behind a socket that is lost. Higher rides out later acks, and repeats more."""
    unread_timeout_s: float = 30.0
    """How long a packet is kept that no pong confirms, where no acks are given: every WebSocket server answers
    pings (RFC 6455, section 5.5.2), so it was not read yet. Higher survives longer stalls; costs memory, 48 kB per
    second of them."""
    never_started_s: float = 5.0
    """Where starts are told: how long an utterance that LiveAvatar took may be silent. Then all that is upstream
    is cut and spoken anew, once; the second time the utterance fails."""
    lost_grace_s: float = 2.0
    """How long after the estimated end an end is concluded that may have been told to a lost socket."""
    parting_grace_s: float = 1.0
    """How long after the estimated end of what an avatar has left to say another goes on, when LiveAvatar does not
    tell that end. Lower makes a shorter gap in the middle of an utterance, and risks its last word before."""
