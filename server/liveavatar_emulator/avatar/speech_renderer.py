"""Renderer of the avatar's speech: a session's avatar events become one endless stream of samples. Pure.

The stream's clock counts samples. The sample due at second `t` has the number `(t - epoch_s) * 24 000`, and is
silence while no speech is due. Speech lies exactly at its time of the playback clock if its event arrives before
its samples are rendered. A later event delays the rest of its utterance: no sample is lost or rendered twice, and
the next pause compensates for the delay.

Holds only audio that is still to be rendered.
"""

from collections import deque

from liveavatar_emulator.avatar_events import AvatarEvent, PoseChanged, SpeechAudio, SpeechCut, SpeechStarted

RATE_HZ = 24_000
SAMPLE_BYTES = 2


class _Utterance:
    """Rest of one utterance: pieces in order, each due at a sample or right after the piece ahead of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.started = False
        self.due: int | None = None
        """Sample at which the first sample is due; None once that sample is rendered."""
        self.pieces: deque[tuple[int | None, memoryview]] = deque()
        self._odd_byte = b""

    def add(self, pcm: bytes, due: int | None) -> None:
        # Packets may end inside a sample: an utterance is the concatenation of its packets.
        whole = self._odd_byte + pcm if self._odd_byte else pcm
        even = len(whole) & ~1
        self._odd_byte = whole[even:]
        if even:
            self.pieces.append((due, memoryview(whole)[:even]))


class SpeechRenderer:
    """The stream of one avatar. Invariant: each sample of speech is rendered once, unless it is cut."""

    def __init__(self, *, epoch_s: float) -> None:
        self.epoch_s = epoch_s
        """Time at which sample 0 is due."""
        self._utterances: deque[_Utterance] = deque()
        self._cuts: deque[tuple[int, int]] = deque()
        self.rendered = 0
        """Number of the next sample."""
        self.spoken = 0
        """Number of the sample after the last rendered sample of speech."""
        self.late_samples = 0
        """Total delay of speech whose events arrived after their time, in samples."""

    @property
    def waiting_bytes(self) -> int:
        """Audio that is still to be rendered."""
        return sum(len(piece) for utterance in self._utterances for _, piece in utterance.pieces)

    def handle(self, event: AvatarEvent) -> None:
        """Take an avatar event; the renderer ignores poses."""
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
        """Return the next `count` samples."""
        out = bytearray(count * SAMPLE_BYTES)
        end = self.rendered + count
        while self.rendered < end:
            self._apply_cuts()
            limit = min(end, self._cuts[0][0]) if self._cuts else end
            self._render_next(out, end - count, limit)
        return bytes(out)

    def speaks_on(self, count: int) -> bool:
        """Return whether the next `count` samples are speech already received that no known cut ends."""
        self._apply_cuts()
        piece = self._next_piece()
        if piece is None or self._cuts or (piece[0] is not None and piece[0] > self.rendered):
            return False
        for due, pcm in self._utterances[0].pieces:
            # A later piece with its own due time follows a gap.
            if due is not None and due > self.rendered:
                return False
            count -= len(pcm) // SAMPLE_BYTES
            if count <= 0:
                return True
        return False

    def retract(self, heard: int) -> int | None:
        """Take back samples that a newer event has overtaken; samples before `heard` have been sent and stay.

        These are speech behind a cut, and silence where speech is due now. Returns the number of the sample from
        which rendering starts again; None if all rendered samples stay valid.
        """
        if self._cuts:
            holds_until = self._cuts[0][0]
        else:
            piece = self._next_piece()
            if piece is None:
                return None
            # A piece without a due time follows the last speech directly, even if silence was rendered since.
            holds_until = self.spoken if piece[0] is None else max(piece[0], self.spoken)
        if holds_until >= self.rendered:
            return None
        self.rendered = max(holds_until, min(heard, self.rendered))
        self.spoken = min(self.spoken, self.rendered)
        self._apply_cuts()
        return self.rendered

    def skip(self, count: int) -> None:
        """Let `count` samples of time pass without rendering. Shortens silence and delays speech."""
        self.rendered += count

    def _render_next(self, out: bytearray, first: int, limit: int) -> None:
        """Render audio due before `limit` into `out`, which begins at sample `first`, and advance."""
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
        """Return the next piece with its sample number; None while it is unknown."""
        while self._utterances:
            utterance = self._utterances[0]
            if not utterance.started:
                return None
            if utterance.pieces:
                due, pcm = utterance.pieces[0]
                return due if utterance.due is None else utterance.due, pcm
            # All audio of the utterance is rendered; more may arrive unless the next utterance has started.
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
