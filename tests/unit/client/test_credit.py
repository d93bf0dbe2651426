from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from liveavatar.gateway import AudioFormat
from liveavatar.gateway.credit import MAX_GAPS, CreditAccount, SendWindow, sendable_bytes

CAPACITY = 5000


class Conversation(RuleBasedStateMachine):
    """A caller that keeps to its account, and a gateway that buffers, plays, acknowledges and cuts when it likes.

    The gateway's buffer must never overflow, whatever the order and however late its words arrive.
    """

    def __init__(self):
        super().__init__()
        self.account = CreditAccount(CAPACITY)
        self.wire = deque()
        self.answers = deque()
        self.sent = {}
        self.received = {}
        self.buffered = {}
        self.over = set()
        self.open = None
        self.count = 0

    def free(self):
        return CAPACITY - sum(self.buffered.values())

    @rule()
    def begin(self):
        self.count += 1
        self.open = f"u{self.count}"
        self.account.begin(self.open)
        self.sent[self.open] = 0
        self.wire.append((self.open, None))

    @precondition(lambda self: self.open)
    @rule(wanted=st.integers(1, 3000))
    def append(self, wanted):
        size = min(wanted, self.account.available_bytes)
        if size:
            self.sent[self.open] += size
            self.account.sent(self.open, self.sent[self.open])
            self.wire.append((self.open, size))

    @precondition(lambda self: self.wire)
    @rule()
    def gateway_reads(self):
        utterance, size = self.wire.popleft()
        if size is None:
            self.received[utterance] = self.buffered[utterance] = 0
        elif utterance not in self.over:
            self.received[utterance] += size
            self.buffered[utterance] += size
            assert sum(self.buffered.values()) <= CAPACITY, "CREDIT_EXCEEDED"

    @precondition(lambda self: self.buffered)
    @rule(data=st.data(), size=st.integers(1, 4000))
    def gateway_plays(self, data, size):
        utterance = data.draw(st.sampled_from(sorted(self.buffered)))
        self.buffered[utterance] = max(self.buffered[utterance] - size, 0)

    @precondition(lambda self: self.buffered)
    @rule(data=st.data())
    def gateway_acknowledges(self, data):
        utterance = data.draw(st.sampled_from(sorted(self.buffered)))
        self.answers.append(("ack", utterance, self.received[utterance], self.free()))

    @precondition(lambda self: self.buffered)
    @rule(data=st.data())
    def gateway_ends(self, data):
        utterance = data.draw(st.sampled_from(sorted(self.buffered)))
        del self.buffered[utterance]
        self.over.add(utterance)
        self.answers.append(("ended", utterance, None, None))

    @precondition(lambda self: self.answers)
    @rule()
    def caller_hears(self):
        kind, utterance, received, credit = self.answers.popleft()
        if kind == "ack":
            self.account.ack(utterance, received, credit)
        else:
            self.account.forget(utterance)
            if self.open == utterance:
                self.open = None

    @invariant()
    def nothing_is_negative(self):
        assert self.account.available_bytes >= 0
        assert self.account.in_flight_bytes >= 0


TestTheCreditIsNeverExceeded = Conversation.TestCase
TestTheCreditIsNeverExceeded.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_ack_gives_back_what_it_covers():
    account = CreditAccount(1000)
    account.begin("a")
    account.sent("a", 600)
    assert (account.in_flight_bytes, account.available_bytes) == (600, 400)
    account.ack("a", 500, 700)
    assert (account.in_flight_bytes, account.available_bytes) == (100, 600)
    account.ack("a", 400, 50)
    assert (account.in_flight_bytes, account.available_bytes) == (100, 0)


def test_utterances_share_the_credit():
    account = CreditAccount(1000)
    account.begin("a")
    account.sent("a", 600)
    account.begin("b")
    account.sent("b", 300)
    assert account.available_bytes == 100
    account.forget("a")
    assert account.available_bytes == 700
    account.ack("a", 600, 900)
    assert account.available_bytes == 600


def test_the_unknown_changes_nothing_but_the_credit():
    account = CreditAccount(10)
    account.sent("nobody", 100)
    account.forget("nobody")
    account.ack("nobody", 5, 20)
    assert (account.in_flight_bytes, account.available_bytes) == (0, 20)


@given(
    wanted=st.integers(0, 20_000).map(lambda size: size * 2),
    available=st.integers(0, 40_000),
    in_flight=st.integers(0, 40_000),
)
def test_a_chunk_goes_when_it_fits_or_is_worth_it(wanted, available, in_flight):
    size = sendable_bytes(AudioFormat(), wanted=wanted, available=available, in_flight=in_flight)
    assert size % 2 == 0
    assert size <= min(wanted, available)
    if available >= wanted or available >= 960:
        assert size == min(wanted, available - available % 2)
    elif in_flight:
        assert size == 0
    # With nothing on its way no ack would ever wake the sender.
    if not in_flight and available >= 2:
        assert size or not wanted


def test_bytes_that_liveavatar_has_are_let_go():
    window = SendWindow()
    first, second = window.append(b"abcd"), window.append(b"efgh")
    assert (first.offset_bytes, second.offset_bytes, second.end_bytes) == (0, 4, 8)
    window.discard(4)
    assert not window.repair_gap(2)
    assert window.repair_gap(4)
    assert window.resend_bytes == 4


def test_what_is_kept_is_what_liveavatar_has_not():
    window = SendWindow()
    for _ in range(3):
        window.append(b"abcd")
    assert window.kept_bytes == 12
    window.discard(5)
    assert window.kept_bytes == 8
    window.discard(12)
    assert window.kept_bytes == 0
    assert not window.rewind(8)
    assert window.rewind(12)


def test_a_second_break_may_go_back_further_than_the_first():
    """Audio is kept until LiveAvatar has it, since the gateway may restart."""
    window = SendWindow()
    window.append(b"abcdefgh")
    assert window.rewind(6)
    assert window.resend(10).audio == b"gh"
    assert window.rewind(3)
    assert (window.sent_offset, window.resend_bytes) == (3, 3)
    assert window.resend(10).audio == b"def"
    assert window.resend(10).audio == b"gh"
    assert window.append(b"ij").offset_bytes == 8


def test_a_gap_at_the_end_needs_nothing_again():
    window = SendWindow()
    window.append(b"abcd")
    assert window.repair_gap(4)
    assert window.resend_bytes == 0
    assert window.sent_offset == 4


def test_a_gap_beyond_what_was_sent_makes_no_sense():
    window = SendWindow()
    window.append(b"abcd")
    assert not window.repair_gap(6)


def test_refusals_of_what_was_on_its_way_change_nothing():
    window = SendWindow()
    for _ in range(5):
        window.append(b"abcd")
    assert window.repair_gap(4)
    assert window.resend(4).offset_bytes == 4
    assert window.repair_gap(4)
    assert window.resend(4).offset_bytes == 8


def test_holes_without_end_are_not_repaired():
    window = SendWindow()
    for _ in range(MAX_GAPS + 2):
        window.append(b"ab")
    assert all(window.repair_gap(number * 2) for number in range(MAX_GAPS))
    assert not window.repair_gap(MAX_GAPS * 2)


@given(
    audio=st.binary(max_size=200),
    sizes=st.lists(st.integers(1, 30), min_size=1),
    lost=st.lists(st.booleans(), max_size=MAX_GAPS - 1),
    behind=st.integers(0, 3),
)
def test_whatever_is_swallowed_is_sent_again(audio, sizes, lost, behind):
    """A gateway that loses chunks and asks for them gets every byte once and in order.

    `behind` chunks are on their way when a hole shows, and are refused as well.
    """
    window, heard, wire = SendWindow(), bytearray(), deque()
    losses, sizes = deque(lost), deque(sizes)

    def gateway_reads():
        chunk = wire.popleft()
        if chunk.offset_bytes > len(heard):
            assert window.repair_gap(len(heard))
            return
        heard.extend(chunk.audio[len(heard) - chunk.offset_bytes :])
        window.discard(len(heard))

    while len(heard) < len(audio):
        sizes.rotate(-1)
        if window.resend_bytes:
            wire.append(window.resend(sizes[0]))
        elif window.next_offset < len(audio):
            chunk = window.append(audio[window.next_offset :][: sizes[0]])
            # The last chunk has no successor that would show its loss.
            if not (losses and losses.popleft()) or chunk.end_bytes == len(audio):
                wire.append(chunk)
        elif not wire:
            raise AssertionError("nothing is sent and nothing is on its way")
        while len(wire) > behind or (wire and window.next_offset == len(audio) and not window.resend_bytes):
            gateway_reads()
    assert bytes(heard) == audio
