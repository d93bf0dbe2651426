"""All speech of a session: utterances in line, packets out, barge-in, and exactly one end for each utterance."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, unique

from liveavatar_gateway.core.correlation import Correlator, forget_oldest
from liveavatar_gateway.core.credit import Credit
from liveavatar_gateway.core.delivery import Sending
from liveavatar_gateway.core.errors import (
    CapacityExhausted,
    GatewayError,
    InvalidField,
    UpstreamStalled,
    UtteranceIdReused,
    UtteranceNotFound,
)
from liveavatar_gateway.core.events import Happening, UtteranceEnded, UtteranceStarted
from liveavatar_gateway.core.messages import (
    BYTE_RATE,
    Command,
    CutSpeech,
    Refs,
    Speak,
    SpeakEnd,
)
from liveavatar_gateway.core.past import PastSession, PastUtterance
from liveavatar_gateway.core.playout import PlayoutClock
from liveavatar_gateway.core.scheduler import PacketScheduler, SchedulerConfig
from liveavatar_gateway.core.states import Outcome
from liveavatar_gateway.core.utterance import Intake, Utterance


@unique
class Hold(Enum):
    """How much of what is to be said waits for another avatar."""

    NOTHING = "nothing"
    NEXT = "next"
    """Utterances of which this avatar has nothing yet."""
    ALL = "all"
    """Whatever it has not got yet: it says what it has, to the end."""


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


@dataclass(slots=True)
class _Barge:
    """An interrupt on its way: what it cuts, and who wants to know."""

    command_id: str
    cut: list[Utterance]
    tickets: list[tuple[int, list[UtteranceEnded]]]
    """Each with the utterances that were waiting here and ended at once."""
    sent_at_s: float | None = None
    was_sent: bool = False
    """Whether it went out, be it over a socket that was lost: then it may have been carried out."""

    @property
    def is_void(self) -> bool:
        """Whether all that it was to cut ended before it went out."""
        all_over = all(utterance.outcome is not None for utterance in self.cut)
        return bool(self.cut) and all_over and not self.was_sent


class Speech:
    """Utterances of one session in the order they were begun.

    Give it inputs (`begin`, `receive`, `seal`, `interrupt`, the `on_*` events, `tick`), then drain `next_command`
    until it is None; sleep until `deadline_s` or until an input says that a command is due. What it concludes is
    in `happenings` and `answers`, both for the owner to empty.

    Invariant: at most one start and exactly one end for each utterance; bytes of one go up once and in order,
    after those of the one before.
    """

    def __init__(self, config: SpeechConfig, new_id: Callable[[], str]) -> None:
        self.config = config
        self.clock = PlayoutClock(start_delay_s=config.start_delay_s)
        self.active: list[Utterance] = []
        self.happenings: list[Happening] = []
        self.answers: list[tuple[int, list[UtteranceEnded]]] = []
        self.deadline_s: float | None = None
        self.enabled = False
        self.acknowledges = False
        self.dropped_bytes = 0
        self.received_bytes = 0
        self.played_s = 0.0
        self.upstream_bytes = 0
        self.utterance_count = 0
        self.interruption_count = 0
        self._new_id = new_id
        self._ended: OrderedDict[str, UtteranceEnded] = OrderedDict()
        self._credit = Credit(config.max_buffered_s)
        self._correlator = Correlator(config.remembered_utterances)
        self._barge: _Barge | None = None
        self._tickets = 0
        self._tells_starts = False
        self._says_started = False
        self._talking = False
        self._reads = False
        self._plays_unread = False
        """It was heard to play what no pong had confirmed: a missing pong proves nothing here."""
        self.sent_count = 0
        self._unproven_cut: tuple[str, Sending] | None = None
        self.hold = Hold.NOTHING
        """What waits for another avatar; set by the session."""
        self._parting: Utterance | None = None
        self._parted = False
        self._head: Utterance | None = None
        self._turn_since_s = 0.0
        self._wake_bytes = 0

    @property
    def speaking(self) -> bool:
        """Whether an utterance is being heard."""
        return any(utterance.started for utterance in self.active)

    # --- the caller's side

    def begin(self, utterance_id: str, intake: Intake) -> Utterance:
        """Open an utterance behind those in line.

        Raises:
            UtteranceIdReused: the id was used before in this session.
            CapacityExhausted: too many utterances are in line.
        """
        if utterance_id in self._ended or any(utterance.id == utterance_id for utterance in self.active):
            raise UtteranceIdReused(utterance_id)
        if len(self.active) >= self.config.max_utterances:
            raise CapacityExhausted(
                f"{len(self.active)} utterances are in line; wait until one has ended",
                scope="session",
                retry_after_s=1.0,
                facts={"limit": self.config.max_utterances},
            )
        utterance = self._utterance(utterance_id or self._new_id(), self._new_id(), intake)
        self.active.append(utterance)
        self.utterance_count += 1
        # Its first chunk is to be looked at, whatever the last look waited for.
        self._wake_bytes = 0
        self._credit.reckon_windows(self.active)
        return utterance

    def take_up(self, utterance_id: str, intake: Intake) -> Utterance | UtteranceEnded | None:
        """Find an utterance for a stream that goes on with it, or how it ended; None when it never was.

        Raises:
            InvalidField: it was begun in another format.
        """
        utterance = next((one for one in self.active if one.id == utterance_id), None)
        if utterance is None:
            return self._ended.get(utterance_id)
        if utterance.intake.format != intake.format:
            raise InvalidField(
                f"utterance {utterance_id!r} is {utterance.intake.format}, this stream {intake.format}; go on in "
                "the format it was begun in",
                field="header.format",
                utterance_id=utterance_id,
                format=intake.format,
                begun_format=utterance.intake.format,
            )
        return utterance

    def _utterance(self, utterance_id: str, upstream_id: str, intake: Intake) -> Utterance:
        scheduler = PacketScheduler(
            self.config.scheduler, byte_rate=intake.byte_rate, frame_bytes=intake.frame_bytes
        )
        return Utterance(utterance_id, upstream_id, intake, scheduler)

    def receive(self, utterance: Utterance, offset: int | None, audio: bytes, now_s: float) -> bool:
        """Take a chunk; True when a packet may be due, so that `next_command` should be asked.

        Chunks of an utterance that was cut or sealed by an error were on their way: dropped and counted.

        Raises:
            CallerError, CreditExceeded: see `Utterance.receive`. Nothing was taken.
        """
        if utterance.sealed:
            self.dropped_bytes += len(audio)
            return False
        self.received_bytes += utterance.receive(offset, audio, now_s)
        return utterance.received - utterance.cut >= self._wake_bytes

    def seal(self, utterance: Utterance, failure: GatewayError | None = None) -> None:
        """Take no more audio for an utterance; it is spoken to its end."""
        if utterance.outcome is None:
            utterance.seal(failure)

    def cancel(self, utterance: Utterance) -> None:
        """Drop an utterance, or cut it if it is being spoken."""
        if utterance.outcome is None:
            self.interrupt(utterance.id)

    def find(self, upstream_id: str) -> Utterance | None:
        """The utterance that LiveAvatar knows by an id, if it has not ended."""
        return next((one for one in self.active if one.upstream_id == upstream_id), None)

    def credit_bytes(self, intake: Intake) -> int:
        """Bytes of a format that may come beyond what was received, whole samples."""
        return self._credit.left_bytes(self.active, intake)

    def sent_bytes(self, utterance: Utterance) -> int:
        """Bytes of an utterance that LiveAvatar has: confirmed ones, or all sent where nothing ever confirms."""
        if self.acknowledges or self._reads or not utterance.started:
            return utterance.confirmed
        return utterance.cut

    def interrupt(self, utterance_id: str) -> int:
        """Cut an utterance, or all of them when no id is given; the answer comes under the returned ticket.

        What waits here is dropped at once. When some of it is upstream already, `agent.interrupt` is next in
        line, and new audio is held until it was carried out. An utterance that waits behind the named one is
        kept whole, even when its first packets must be sent again.

        Raises:
            UtteranceNotFound: this session never had it.
        """
        targets = self._targets(utterance_id)
        self._tickets += 1
        ticket = self._tickets
        if self._barge is not None:
            # It drops all that is upstream, and nothing follows before it is done: a second has nothing to cut.
            ended = [self._end(one, Outcome.INTERRUPTED, 0.0) for one in targets if one not in self._barge.cut]
            self.interruption_count += bool(ended)
            waiting = self.answers if len(ended) == len(targets) else self._barge.tickets
            waiting.append((ticket, ended))
            return ticket
        upstream = [utterance for utterance in targets if utterance.first_sent_at_s is not None]
        if not upstream:
            ended = [self._end(utterance, Outcome.INTERRUPTED, 0.0) for utterance in targets]
            self.interruption_count += bool(ended)
            self.answers.append((ticket, ended))
            return ticket
        self._start_barge(targets, upstream[-1], ticket)
        return ticket

    def _targets(self, utterance_id: str) -> list[Utterance]:
        if not utterance_id:
            return list(self.active)
        found = [utterance for utterance in self.active if utterance.id == utterance_id]
        if not found and utterance_id not in self._ended:
            raise UtteranceNotFound(utterance_id)
        return found

    def _start_barge(self, targets: list[Utterance], last: Utterance, ticket: int) -> None:
        """Upstream drops all it has, so everything it has up to the last target is cut too."""
        before = self.active[: self.active.index(last) + 1]
        cut = [one for one in self.active if one in targets or one in before or not one.rewindable]
        for utterance in cut:
            utterance.interrupted = True
            self.dropped_bytes += utterance.drop()
        self._credit.reckon_windows(self.active)
        self._barge = _Barge(self._new_id(), cut, [(ticket, [])])

    # --- LiveAvatar's side

    def on_appended(self, refs: Refs) -> bool:
        """A packet was accepted; True for the first sign of its utterance, after which a start may be due."""
        if self._correlator.names_ended(refs, self.active):
            return False
        self.acknowledges = True
        utterance = self._correlator.find(refs, self.active) or next(
            (one for one in self.active if one.delivery.unconfirmed), None
        )
        if utterance is None:
            return False
        first = not utterance.signed
        utterance.signed = True
        utterance.delivery.ack()
        self._prove(utterance.delivery.confirmed_number)
        self._confirm_before(utterance)
        return first

    def _confirm_before(self, utterance: Utterance) -> None:
        """All that was sent before an utterance is there when any of it is: the socket keeps the order."""
        if utterance is not self.active[0]:
            for earlier in self.active[: self.active.index(utterance)]:
                earlier.confirm_all()

    def on_committed(self, refs: Refs) -> None:
        """An utterance is sealed upstream: all of it is there."""
        if self._correlator.names_ended(refs, self.active):
            return
        utterance = self._correlator.find(refs, self.active) or next(
            (one for one in self.active if one.end_sent and not one.committed), None
        )
        if utterance is not None and utterance.end_sent:
            utterance.confirm_all()
            self._confirm_before(utterance)

    def on_read(self, number: int, now_s: float) -> None:
        """All up to the `number`-th packet or end was read. Acks prove more: with them this counts later."""
        self._reads = True
        self._prove(number)
        patience_s = self.config.presumed_taken_s if self.acknowledges else 0.0
        for utterance in self.active:
            utterance.read(number, sent_by_s=now_s - patience_s)

    def on_started(self, refs: Refs, now_s: float) -> None:
        """The first sound of an utterance is out."""
        self._tells_starts = self._says_started = True
        if self._correlator.names_ended(refs, self.active):
            return
        utterance = self._correlator.find(refs, self.active) or self._first_unstarted()
        if utterance is not None and utterance.first_sent_at_s is not None and not self._to_be_rewound(utterance):
            self._learn_from_start(utterance)
            self._start(utterance, now_s)

    def on_talking(self, now_s: float) -> None:
        """The avatar talks: the same as a start, unless the utterance that plays is known already."""
        self._tells_starts = self._talking = True
        utterance = self._first_unstarted()
        if utterance is not None and not self.speaking and not self._to_be_rewound(utterance):
            self._learn_from_start(utterance)
            self._start(utterance, now_s)

    def _learn_from_start(self, utterance: Utterance) -> None:
        """What plays was read. After a loss it may have been read before that, so its new pongs may yet come."""
        if not (utterance.started or utterance.blind or utterance.delivery.confirmed):
            self._plays_unread = True

    def on_ended(self, refs: Refs, now_s: float) -> None:
        """An utterance was played to its end. One that came after an interrupt is ignored."""
        if self._barge and self._barge.sent_at_s is not None and self._concerns_barge(refs):
            self._finish_barge(self._barge, now_s)
            return
        if self._correlator.names_ended(refs, self.active):
            return
        utterance = self._correlator.find(refs, self.active)
        if utterance is None and self.active and self.active[0].started:
            utterance = self.active[0]
        if utterance is not None and utterance is self._parting:
            self._parted = True
        elif utterance is not None and utterance.end_sent:
            self._complete_through(utterance, now_s)

    def on_silent(self, now_s: float) -> None:
        """The avatar stopped talking. It ends the utterance that plays, unless that one merely ran dry."""
        self._talking = False
        if self._barge and self._barge.sent_at_s is not None:
            self._finish_barge(self._barge, now_s)
            return
        head = self.active[0] if self.active else None
        if head is None or not head.started or not (head.end_sent or head is self._parting):
            return
        if head.sent_s - head.position_s(self.clock, now_s) > self.config.started_timeout_s:
            return
        if self._is_unproven(head):
            return
        if head is self._parting:
            self._parted = True
        else:
            self._complete_through(head, now_s)

    def on_cleared(self, refs: Refs, now_s: float) -> None:
        """An interrupt was carried out."""
        if self._unproven_cut is not None and (not refs.ids or self._unproven_cut[0] in refs.ids):
            self._unproven_cut = None
        barge = self._barge
        if barge is None or barge.sent_at_s is None:
            return
        if barge.command_id in refs.ids or not refs.ids or self._concerns_barge(refs):
            self._finish_barge(barge, now_s)

    def on_interrupted(self, refs: Refs, now_s: float) -> None:
        """An utterance was cut."""
        if self._barge and self._barge.sent_at_s is not None and self._concerns_barge(refs):
            self._finish_barge(self._barge, now_s)

    def _prove(self, number: int) -> None:
        """All up to a number is there, so an interrupt before it was not lost."""
        if self._unproven_cut is not None and number >= self._unproven_cut[1].number:
            self._unproven_cut = None

    # --- a lost socket

    def lose(self, now_s: float) -> None:
        """The socket is gone: nothing goes out until `resume`, and what LiveAvatar may not have goes first then.

        What was sent and confirmed is there, plays on, and is not sent again.
        """
        self.enabled = False
        self._parting, self._parted = None, False
        for utterance in self.active:
            if utterance.first_sent_at_s is None:
                continue
            if utterance.overdue_at_s is not None and now_s >= utterance.overdue_at_s:
                utterance.doubted = self._is_unproven(utterance)
            if not self.acknowledges:
                self._presume(utterance, now_s)
                # A start may have been told to the lost socket, and nothing else would ever prove it.
                utterance.signed = True
            self.clock.take_back(utterance.lose() / BYTE_RATE)
        self._lose_cut(now_s)
        if self._barge is not None:
            self._barge.sent_at_s = None
            for utterance in self._barge.cut:
                utterance.delivery.again.clear()
        end_by_s = now_s + self.clock.lead_s(now_s) + self.config.lost_grace_s
        for utterance in self.active:
            if utterance.overdue_at_s is not None:
                utterance.overdue_at_s = min(utterance.overdue_at_s, end_by_s)

    def _lose_cut(self, now_s: float) -> None:
        """Send an interrupt again that is lost, although an end that came by itself was taken for what it did.

        Nothing that was sent behind it is confirmed, or it would be proven, so nothing but repeats can be cut.
        """
        if self._unproven_cut is None or self._barge is not None:
            return
        command_id, sending = self._unproven_cut
        if self._confirms or now_s < sending.at_s + self.config.presumed_taken_s:
            self._barge = _Barge(command_id, [], [], was_sent=True)

    def resume(self, now_s: float) -> int:
        """There is a socket again; returns how much audio goes up a second time, PCM bytes."""
        self.enabled = True
        for utterance in self.active:
            if utterance.delivery.again and not utterance.started:
                utterance.first_sent_at_s = now_s
        return sum(len(packet.pcm) for utterance in self.active for packet in utterance.delivery.again)

    def _presume(self, utterance: Utterance, now_s: float) -> None:
        """Take what was sent long ago for there, where no ack ever comes."""
        config = self.config
        late_s = config.silence_timeout_s if self._reads else config.presumed_taken_s
        utterance.presume(sent_by_s=now_s - (late_s if self._plays_unread else config.unread_timeout_s))

    @property
    def _confirms(self) -> bool:
        """Whether LiveAvatar confirms what it reads, by acks or pongs; so what it did not confirm is missing."""
        return self.acknowledges or self._reads or not self._plays_unread

    def _is_unproven(self, utterance: Utterance) -> bool:
        """Whether LiveAvatar, which confirms what it reads, may have read less than all of an utterance."""
        if not self.acknowledges and self._plays_unread:
            return False
        if utterance.delivery.unconfirmed or utterance.delivery.again:
            return True
        return self._reads and not self._plays_unread and utterance.end_sent and not utterance.committed

    @property
    def silent_at_s(self) -> float | None:
        """When the socket is to be taken for dead unless LiveAvatar confirms something; None: nothing waits."""
        if not self.enabled:
            return None
        silent_at_s = None
        if self.acknowledges:
            oldest = next((one.delivery.unconfirmed[0] for one in self.active if one.delivery.unconfirmed), None)
            silent_at_s = None if oldest is None else oldest.sending.at_s + self.config.silence_timeout_s
        head = self.active[0] if self.active and self._barge is None else None
        if head is None or head.overdue_at_s is None or not self._is_unproven(head):
            return silent_at_s
        return head.overdue_at_s if silent_at_s is None else min(silent_at_s, head.overdue_at_s)

    # --- another avatar

    def may_part(self, now_s: float) -> bool:
        """Whether another avatar can go on, with nothing cut of what this one has to say."""
        if self._barge is not None and self.enabled:
            return False
        if not any(one.first_sent_at_s is not None for one in self.active):
            return True
        says_all_it_will = self.hold is Hold.ALL or not self.enabled
        return says_all_it_will and (self._parted or now_s >= self._parted_by_s)

    @property
    def parting_at_s(self) -> float | None:
        """When to ask `may_part` again, even if nothing happens; None when only an event can change it."""
        return None if self.hold is Hold.NEXT and self.enabled else self._parted_by_s

    @property
    def _parted_by_s(self) -> float:
        return self.clock.dry_at_s + self.config.parting_grace_s

    def hand_over(self, now_s: float) -> int:
        """Another avatar goes on; returns how much audio goes up a second time, PCM bytes.

        What this one confirmed was heard, or is cut if it was not; all else goes to the other.
        """
        if self._barge is not None:
            self._finish_barge(self._barge, now_s)
        self._unproven_cut = None
        self.lose(now_s)
        self.hold = Hold.NOTHING
        self._talking = False
        return self.resume(now_s)

    def _part(self) -> SpeakEnd | None:
        """Tell an avatar that no more of an utterance comes, so that it says the last of what it has."""
        utterance = next(
            (one for one in self.active if one.first_sent_at_s is not None and not one.end_sent), None
        )
        if utterance is None or utterance is self._parting:
            return None
        self._parting, self._parted = utterance, False
        self.sent_count += 1
        return SpeakEnd(utterance.upstream_id)

    # --- another process's session

    def restore(self, past: PastSession, now_s: float) -> None:
        """Go on with the speech of a session that another process drove. For one without speech of its own."""
        self.received_bytes = past.received_bytes
        self.dropped_bytes = past.dropped_bytes
        self.upstream_bytes = past.upstream_bytes
        self.played_s = past.played_s
        self.utterance_count = past.utterance_count
        self.interruption_count = past.interruption_count
        self._ended.update((ended.utterance_id, ended) for ended in past.ended_utterances)
        for one in past.utterances:
            self.active.append(self._restored(one, now_s))
        if any(one.interrupted for one in self.active):
            # It goes out again, and nobody has what is behind it in LiveAvatar any more.
            cut = list(self.active)
            for utterance in cut:
                utterance.interrupted = True
                utterance.drop()
            self._barge = _Barge(self._new_id(), cut, [], was_sent=True)
        self._credit.reckon_windows(self.active)

    def _restored(self, past: PastUtterance, now_s: float) -> Utterance:
        utterance = self._utterance(past.id, past.upstream_id, past.intake)
        utterance.continue_at(past.taken_bytes, past.sent_s, self.clock.sent_s, now_s, started=past.started)
        utterance.interrupted = past.interrupted
        # All of it may be played by now: what is known of its lead died with the process that had it.
        self.clock.send(past.sent_s, now_s)
        self.clock.confirm(self.clock.sent_s, now_s)
        if past.end_sent:
            utterance.seal()
            utterance.end_sending = Sending(now_s)
            utterance.committed = True
            utterance.overdue_at_s = now_s + self.config.scheduler.max_lead_s + self.config.lost_grace_s
        return utterance

    # --- time

    def tick(self, now_s: float) -> None:
        """Conclude what LiveAvatar should have said by now."""
        barge = self._barge
        if barge and barge.sent_at_s is not None and now_s >= barge.sent_at_s + self.config.interrupt_timeout_s:
            self._finish_barge(barge, now_s)
        # Nothing is concluded while an interrupt is on its way: it decides what was heard and what is sent again.
        if self._barge is not None or not self.active:
            return
        head = self.active[0]
        if head is not self._head:
            self._head, self._turn_since_s = head, now_s
        started_by_s = self._started_by_s(head)
        if started_by_s is not None and now_s >= started_by_s and head.signed:
            if self._owes_a_start(head):
                self._revive(head)
                return
            self._start(head, now_s, inferred=True)
        overdue_at_s = self._overdue_at_s(head)
        if overdue_at_s is not None and now_s >= overdue_at_s:
            if head.signed and self._is_unproven(head) and not head.doubted:
                # Its socket is taken for dead now, see `silent_at_s`, and what is missing goes over another.
                return
            self._conclude(head)

    def _owes_a_start(self, head: Utterance) -> bool:
        """Whether silence about an utterance that LiveAvatar took means that it is not heard.

        Only where starts were told by name, since a pose need not change between two utterances.
        """
        return self._says_started and self.acknowledges and head.rewindable and not (head.blind or self._talking)

    def _revive(self, head: Utterance) -> None:
        """It was taken and is not heard: cut what LiveAvatar has, and speak it anew. The second time it fails."""
        if not head.revived:
            head.revived = True
            self._barge = _Barge(self._new_id(), [], [])
            return
        head.failure = head.failure or UpstreamStalled(
            "LiveAvatar took this utterance twice and began to speak neither; speak it again, or in a new session",
            utterance_id=head.id,
        )
        self._end(head, Outcome.FAILED, 0.0)

    def _overdue_at_s(self, head: Utterance) -> float | None:
        """When LiveAvatar should have said something about the head: that it ended, or that it has any of it."""
        if head.signed and not head.started and self._owes_a_start(head):
            return None
        if head.overdue_at_s is not None or head.signed or head.first_sent_at_s is None or not self.enabled:
            return head.overdue_at_s
        return head.first_sent_at_s + self.config.ended_grace_s

    def _conclude(self, head: Utterance) -> None:
        if head.signed and not self._is_unproven(head):
            self._end(head, Outcome.COMPLETED, head.sent_s, inferred=True)
            return
        head.failure = head.failure or UpstreamStalled(
            "LiveAvatar gave no sign of having taken all of this utterance; speak it again, or in a new session",
            utterance_id=head.id,
        )
        self._end(head, Outcome.FAILED, 0.0)

    def _started_by_s(self, head: Utterance) -> float | None:
        if head.started or head.first_sent_at_s is None or (self._confirms and not head.confirmed):
            return None
        if self._owes_a_start(head):
            return max(head.first_sent_at_s, self._turn_since_s) + self.config.never_started_s
        return head.first_sent_at_s + self.config.started_timeout_s

    # --- commands

    def next_command(self, now_s: float) -> Command | None:
        """The command that is due now; None when none is, with `deadline_s` for the next look."""
        self.deadline_s = None
        self._wake_bytes = 1 << 62
        if self._barge is not None and self._barge.is_void:
            # What it was to cut has ended meanwhile: nothing upstream is to be dropped.
            self.answers.extend(self._barge.tickets)
            self._barge = None
        if self._barge is not None:
            if not self.enabled:
                return None
            if self._barge.sent_at_s is None:
                self._barge.sent_at_s = now_s
                self._barge.was_sent = True
                self.sent_count += 1
                self._unproven_cut = self._barge.command_id, Sending(now_s, self.sent_count)
                return CutSpeech(self._barge.command_id)
            self._wake_at(self._barge.sent_at_s + self.config.interrupt_timeout_s)
            return None
        command: Command | None = None
        if self.enabled:
            command = self._part() if self.hold is Hold.ALL else self._speak(now_s)
        if self.active:
            head = self.active[0]
            if head.signed:
                self._wake_at(self._started_by_s(head))
            self._wake_at(self._overdue_at_s(head))
        return command

    def _wake_at(self, at_s: float | None) -> None:
        if at_s is not None and (self.deadline_s is None or at_s < self.deadline_s):
            self.deadline_s = at_s

    def _speak(self, now_s: float) -> Command | None:
        while (utterance := self._to_send()) is not None:
            if utterance.delivery.again:
                pcm = utterance.delivery.send_again(self._sending(now_s))
                return self._speak_packet(utterance, pcm, now_s)
            if utterance.sealed and utterance.buffered == 0:
                if utterance.has_tail and (speak := self._take(utterance, 0, now_s)):
                    return speak
                if utterance.first_sent_at_s is None:
                    self._end(utterance, Outcome.COMPLETED, 0.0)
                    continue
                self.sent_count += 1
                utterance.end_sending = Sending(now_s, self.sent_count)
                utterance.overdue_at_s = now_s + self.clock.lead_s(now_s) + self.config.ended_grace_s
                return SpeakEnd(utterance.upstream_id)
            command = self._cut(utterance, now_s)
            if command is not None or utterance.buffered:
                return command
            if not utterance.sealed:
                return None
        return None

    def _to_send(self) -> Utterance | None:
        utterance = next((utterance for utterance in self.active if not utterance.end_sent), None)
        if self.hold is Hold.NEXT and utterance is not None and utterance.first_sent_at_s is None:
            return None
        return utterance

    def _sending(self, now_s: float) -> Sending:
        return Sending(now_s, self.sent_count + 1)

    def _cut(self, utterance: Utterance, now_s: float) -> Speak | None:
        lead_s = self.clock.lead_s(now_s)
        if utterance.first_sent_at_s is None:
            if self.active[0] is not utterance and lead_s > self.config.scheduler.queue_lead_s:
                self._wake_at(now_s + lead_s - self.config.scheduler.queue_lead_s)
                return None
            lead_s = 0.0
        while True:
            decision = utterance.scheduler.decide(
                buffered=utterance.buffered,
                sealed=utterance.sealed,
                lead_s=lead_s,
                quiet_s=now_s - utterance.last_chunk_at_s,
            )
            if not decision.cut_bytes:
                self._wake_bytes = decision.wake_bytes
                if decision.wake_in_s is not None:
                    self._wake_at(now_s + decision.wake_in_s)
                return None
            if speak := self._take(utterance, decision.cut_bytes, now_s):
                return speak

    def _take(self, utterance: Utterance, size: int, now_s: float) -> Speak | None:
        pcm = utterance.take_packet(size, self._sending(now_s))
        self._credit.reckon_windows(self.active)
        return self._speak_packet(utterance, pcm, now_s) if pcm else None

    def _speak_packet(self, utterance: Utterance, pcm: bytes, now_s: float) -> Speak:
        if not self.acknowledges:
            # Nothing else may ever let go of what was sent.
            self._presume(utterance, now_s)
        self.sent_count += 1
        self._note_sent(utterance, len(pcm) / BYTE_RATE, now_s)
        self.upstream_bytes += len(pcm)
        return Speak(utterance.upstream_id, pcm)

    def _note_sent(self, utterance: Utterance, seconds: float, now_s: float) -> None:
        if utterance.first_sent_at_s is None:
            utterance.first_sent_at_s = now_s
            utterance.start_s = self.clock.sent_s
        ran_dry = utterance.started and self.clock.lead_s(now_s) <= 0.0
        self.clock.send(seconds, now_s)
        if ran_dry:
            self.clock.resume()

    # --- conclusions

    def _concerns_barge(self, refs: Refs) -> bool:
        """Whether an event is about an utterance that is being cut; one without usable ids is."""
        if self._barge is None or self._correlator.names_ended(refs, self.active):
            return False
        utterance = self._correlator.find(refs, self.active)
        return utterance is None or utterance in self._barge.cut

    def _to_be_rewound(self, utterance: Utterance) -> bool:
        """Whether an interrupt on its way drops what is upstream of an utterance that it does not mean.

        It may start upstream just before that. It is spoken again from its beginning, so this start is not told,
        and its audio must be kept.
        """
        return self._barge is not None and utterance not in self._barge.cut

    def _first_unstarted(self) -> Utterance | None:
        return next(
            (one for one in self.active if not one.started and one.first_sent_at_s is not None),
            None,
        )

    def _start(self, utterance: Utterance, now_s: float, *, inferred: bool = False) -> None:
        if utterance.started:
            return
        # What plays now was preceded by all before it: those ended without a word.
        for earlier in self.active[: self.active.index(utterance)]:
            self._end(earlier, Outcome.COMPLETED, earlier.sent_s, inferred=True)
        utterance.start()
        if not inferred:
            if self._barge is None:
                # It was sent behind the last interrupt, for all before that is over.
                self._unproven_cut = None
            self.clock.confirm(utterance.start_s, now_s)
        if utterance.overdue_at_s is not None:
            utterance.overdue_at_s = now_s + utterance.sent_s + self.config.ended_grace_s
        self.happenings.append(UtteranceStarted(utterance.id, inferred))

    def _complete_through(self, utterance: Utterance, now_s: float) -> None:
        for one in self.active[: self.active.index(utterance) + 1]:
            self._start(one, now_s, inferred=True)
            self._end(one, Outcome.COMPLETED, one.sent_s)

    def _finish_barge(self, barge: _Barge, now_s: float) -> None:
        self._barge = None
        for utterance in barge.cut:
            self._infer_start(utterance, now_s)
            utterance.position_s(self.clock, now_s)
        self.clock.cut(now_s)
        ended = [self._end(one, Outcome.INTERRUPTED, 0.0) for one in barge.cut if one.outcome is None]
        for utterance in self.active:
            if utterance.first_sent_at_s is not None:
                self._correlator.remember_ended(utterance.upstream_id)
                utterance.rewind(self._new_id())
        self._credit.reckon_windows(self.active)
        self.interruption_count += bool(ended)
        self.answers.extend((ticket, ended + others) for ticket, others in barge.tickets)

    def _infer_start(self, utterance: Utterance, now_s: float) -> None:
        """Where LiveAvatar never tells a start, what should have been heard was heard."""
        if self._tells_starts or not utterance.signed or utterance.first_sent_at_s is None:
            return
        if not all(earlier.end_sent for earlier in self.active[: self.active.index(utterance)]):
            # The process that had the rest of that one is gone.
            return
        if self.clock.heard_s(now_s) > utterance.start_s:
            self._start(utterance, now_s, inferred=True)

    def _end(
        self, utterance: Utterance, outcome: Outcome, played_s: float, *, inferred: bool = False
    ) -> UtteranceEnded:
        if utterance.failure is not None:
            outcome = Outcome.FAILED
        self.dropped_bytes += utterance.finish(outcome, played_s)
        self.played_s += utterance.played_s
        self.active.remove(utterance)
        self._head = None
        ended = UtteranceEnded(utterance.id, outcome, utterance.played_s, utterance.failure, inferred)
        self._ended[utterance.id] = ended
        forget_oldest(self._ended, self.config.remembered_utterances)
        self._correlator.remember_ended(utterance.upstream_id)
        self.happenings.append(ended)
        self._credit.reckon_windows(self.active)
        return ended

    def close(self, error: GatewayError, now_s: float) -> None:
        """End everything: the session is over. Interrupts on their way are answered with what was heard."""
        if self._barge is not None:
            self._finish_barge(self._barge, now_s)
        for utterance in list(self.active):
            self._infer_start(utterance, now_s)
            utterance.position_s(self.clock, now_s)
            utterance.failure = utterance.failure or error
            self._end(utterance, Outcome.FAILED, 0.0)
