"""What is heard in the room: a session's cues turned into one endless stream of samples. Pure.

The stream's clock counts samples. The sample that is due at second `t` has number `(t - epoch_s) * 24 000`, and
is silence wherever no speech is due. Speech lies exactly where the playback clock has it as long as its cue
comes before its samples are rendered. A cue that comes later delays the rest of its utterance: no sample is
lost or said twice, and the next pause makes good for it.

Holds no more than what is still to be said.
"""

from collections import deque

from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged, SpeechAudio, SpeechCut, SpeechStarted

RATE_HZ = 24_000
SAMPLE_BYTES = 2


class _Utterance:
    """What is left to say of one utterance: pieces in order, each due at a sample or right after the last."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = False
        self.due: int | None = None
        """When its first sample is due; None once that has been said."""
        self.pieces: deque[tuple[int | None, memoryview]] = deque()
        self._odd_byte = b""

    def add(self, pcm: bytes, due: int | None) -> None:
        # Packets may be cut inside a sample: the utterance is the bytes of all of them in a row.
        whole = self._odd_byte + pcm if self._odd_byte else pcm
        even = len(whole) & ~1
        self._odd_byte = whole[even:]
        if even:
            self.pieces.append((due, memoryview(whole)[:even]))


class SpeechRenderer:
    """The stream of one avatar. Invariant: every sample of speech is rendered once, unless it is cut."""

    def __init__(self, *, epoch_s: float) -> None:
        self.epoch_s = epoch_s
        """When sample 0 is due."""
        self._utterances: deque[_Utterance] = deque()
        self._cuts: deque[tuple[int, int]] = deque()
        self.rendered = 0
        """Number of the next sample."""
        self.spoken = 0
        """Number of the sample after the last one of speech that was rendered."""
        self.late_samples = 0
        """By how much speech was begun too late, in total, since its cue came after its time."""

    @property
    def waiting_bytes(self) -> int:
        """Audio held that is still to be said."""
        return sum(len(piece) for utterance in self._utterances for _, piece in utterance.pieces)

    def handle(self, event: AvatarEvent) -> None:
        """Take a cue; poses mean nothing to the voice."""
        match event:
            case SpeechAudio(number, pcm, resumes_at_s):
                due = None if resumes_at_s is None else self._sample_at(resumes_at_s)
                self._utterance(number).add(pcm, due)
            case SpeechStarted(number, at_s):
                utterance = self._utterance(number)
                utterance.started, utterance.due = True, self._sample_at(at_s)
            case SpeechCut(through, at_s):
                self._cuts.append((self._sample_at(at_s), through))
            case PoseChanged():
                pass

    def render(self, count: int) -> bytes:
        """The next `count` samples."""
        out = bytearray(count * SAMPLE_BYTES)
        end = self.rendered + count
        while self.rendered < end:
            self._apply_cuts()
            limit = min(end, self._cuts[0][0]) if self._cuts else end
            self._render_next(out, end - count, limit)
        return bytes(out)

    def speaks_on(self, count: int) -> bool:
        """Whether the next `count` samples are speech already known, and no cut is known that ends it."""
        self._apply_cuts()
        piece = self._next_piece()
        if piece is None or self._cuts or (piece[0] is not None and piece[0] > self.rendered):
            return False
        for due, pcm in self._utterances[0].pieces:
            # A later piece with a time of its own comes after a gap.
            if due is not None and due > self.rendered:
                return False
            count -= len(pcm) // SAMPLE_BYTES
            if count <= 0:
                return True
        return False

    def retract(self, heard: int) -> int | None:
        """Take back what a cue has overtaken, when only samples before `heard` have left for good.

        That is speech behind a cut, and silence where speech is due now. Returns the number of the sample from
        which on what was rendered is void, and is to be rendered again; None when all of it holds.
        """
        if self._cuts:
            holds_until = self._cuts[0][0]
        else:
            piece = self._next_piece()
            if piece is None:
                return None
            # One without a time of its own comes right behind what was said, though silence was rendered since.
            holds_until = self.spoken if piece[0] is None else max(piece[0], self.spoken)
        if holds_until >= self.rendered:
            return None
        self.rendered = max(holds_until, min(heard, self.rendered))
        self.spoken = min(self.spoken, self.rendered)
        self._apply_cuts()
        return self.rendered

    def skip(self, count: int) -> None:
        """Let `count` samples of time pass unheard. Silence gets shorter by them, speech later."""
        self.rendered += count

    def _render_next(self, out: bytearray, first: int, limit: int) -> None:
        """Put what is due before `limit` into `out`, which begins at sample `first`, and go on to there."""
        piece = self._next_piece()
        if piece is None:
            self.rendered = limit
            return
        due, pcm = piece
        if due is not None and due > self.rendered:
            self.rendered = min(limit, due)
            return
        if due is not None:
            self.late_samples += self.rendered - due
        size = min((limit - self.rendered) * SAMPLE_BYTES, len(pcm))
        at = (self.rendered - first) * SAMPLE_BYTES
        out[at : at + size] = pcm[:size]
        self.rendered += size // SAMPLE_BYTES
        self.spoken = self.rendered
        utterance = self._utterances[0]
        utterance.due = None
        if size == len(pcm):
            utterance.pieces.popleft()
        else:
            utterance.pieces[0] = (None, pcm[size:])

    def _next_piece(self) -> tuple[int | None, memoryview] | None:
        """What is to be said next, with its sample number; None while that is not known."""
        while self._utterances:
            utterance = self._utterances[0]
            if not utterance.started:
                return None
            if utterance.pieces:
                due, pcm = utterance.pieces[0]
                return due if utterance.due is None else utterance.due, pcm
            # It has said all it has; more may come, unless the next one has begun.
            if len(self._utterances) == 1 or not self._utterances[1].started:
                return None
            self._utterances.popleft()
        return None

    def _apply_cuts(self) -> None:
        while self._cuts and self._cuts[0][0] <= self.rendered:
            _, through = self._cuts.popleft()
            while self._utterances and self._utterances[0].number <= through:
                self._utterances.popleft()

    def _utterance(self, number: int) -> _Utterance:
        for utterance in reversed(self._utterances):
            if utterance.number == number:
                return utterance
        utterance = _Utterance(number)
        self._utterances.append(utterance)
        return utterance

    def _sample_at(self, at_s: float) -> int:
        return round((at_s - self.epoch_s) * RATE_HZ)
