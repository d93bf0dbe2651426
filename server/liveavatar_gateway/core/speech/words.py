"""Text of an utterance with the times of its words, and the part of it that was heard."""

import operator
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Final

from liveavatar_gateway.core.errors import GatewayError, TimingsGap, TimingsInvalid, TimingsLimit
from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.states import Outcome

MAX_ITEMS: Final = 1000
"""Words or characters of one message: those that a millisecond suffices to check."""
MAX_ITEM_CHARS: Final = 256
"""Characters of one word."""
MAX_CHARS: Final = 100_000
"""Characters of an utterance: more than an hour of speech."""
MAX_SESSION_CHARS: Final = 200_000
"""Characters of the unfinished utterances of a session, about 4 MB when each character has a time."""
MAX_MS: Final = 86_400_000
"""Latest time, 24 h."""
BURST_CHARS: Final = 1000
MS_PER_CHAR: Final = 10
"""Characters beyond the first `BURST_CHARS` may come 100 a second, so that the text that was heard cannot outgrow
the audio that was heard: ended utterances are remembered with their texts. The fastest speech has 40."""
END_TOLERANCE_S: Final = 1.0
"""Time by which the timings of an utterance that was heard whole may reach beyond its audio."""


@dataclass(frozen=True, slots=True)
class TimedText:
    """Piece of an utterance's text as a caller sent it, unchecked."""

    texts: Sequence[str]
    """Words or characters with all that is between them."""
    start_ms: Sequence[int]
    """Start of each text, from the beginning of the utterance's audio."""
    end_ms: Sequence[int] = ()
    """End of each text; empty when they last to the start of the next."""
    first_item: int | None = None
    """Number of the first text in the utterance; None for directly behind the piece before."""


class UtteranceText:
    """Text of one utterance, in the order in which it is spoken.

    A text counts as heard when the middle between its start and its end was played, and that of each text before.
    The position that was heard is an estimate with an error of some 100 ms: by the middle, half a word is as often
    given too much as too little.

    Invariant: the text has no holes. After a refusal, pieces without a number are dropped until a numbered piece
    continues the text.
    """

    __slots__ = (
        "_last_start_ms",
        "_lasts_to_next",
        "_middles",
        "_next_item",
        "_texts",
        "_utterance_id",
        "char_count",
    )

    def __init__(self, utterance_id: str) -> None:
        self.char_count = 0
        self._utterance_id = utterance_id
        self._texts: list[str] = []
        self._middles = array("q")
        """Twice the time at which each text counts as heard, milliseconds; never decreases."""
        self._last_start_ms = 0
        self._lasts_to_next = False
        """True while the last text has no end, which the start of the next one will be."""
        self._next_item: int | None = 0
        """Number of the first text of a piece without a number; None after a refusal."""

    def add(self, piece: TimedText, *, room_chars: int, field: str) -> None:
        """Add a piece, less what is known already; a refused piece changes nothing.

        Args:
            piece: The piece.
            room_chars: Characters that the session still takes.
            field: Path of the piece in its message, for errors.

        Raises:
            TimingsInvalid, TimingsGap, TimingsLimit: The piece was refused.
        """
        first = self._next_item if piece.first_item is None else piece.first_item
        if first is None:
            return
        try:
            self._require_whole(piece, field)
            self._require_adjacent(first, field)
            known = len(self._texts) - first
            texts, starts, ends = (
                list(piece.texts)[known:],
                list(piece.start_ms)[known:],
                list(piece.end_ms)[known:],
            )
            if texts:
                self._require_timely(starts, ends, field)
                self._require_room(texts, starts, room_chars, field)
                self._append(texts, starts, ends)
        except GatewayError:
            self._next_item = None
            raise
        self._next_item = first + len(piece.texts)

    def heard(self, played_s: float, *, is_complete: bool = False) -> str:
        """Return the text that was heard.

        Args:
            played_s: Seconds of the utterance that were heard.
            is_complete: True when that is all of it.
        """
        if played_s <= 0.0:
            return ""
        reached_s = played_s + END_TOLERANCE_S if is_complete else played_s
        return "".join(self._texts[: bisect_right(self._middles, round(reached_s * 2000))])

    # --- checks

    def _require_whole(self, piece: TimedText, field: str) -> None:
        """Refuse a piece of a wrong size; the number of its texts comes first, so that the rest is cheap."""
        count = len(piece.texts)
        if count > MAX_ITEMS:
            raise self._invalid(
                f"a message takes {MAX_ITEMS} texts", f"{field}.texts", count=count, limit=MAX_ITEMS
            )
        lengths = list(map(len, piece.texts))
        if lengths and not 1 <= min(lengths) <= max(lengths) <= MAX_ITEM_CHARS:
            raise self._invalid(
                f"a text has 1 to {MAX_ITEM_CHARS} characters", f"{field}.texts", limit=MAX_ITEM_CHARS
            )
        if len(piece.start_ms) != count:
            raise self._invalid(
                "each text has one start", f"{field}.start_ms", count=count, got=len(piece.start_ms)
            )
        if len(piece.end_ms) not in (0, count):
            raise self._invalid(
                "each text has one end, or none has", f"{field}.end_ms", count=count, got=len(piece.end_ms)
            )

    def _require_adjacent(self, first: int, field: str) -> None:
        if first < 0:
            raise self._invalid("items have no negative numbers", f"{field}.first_item", got=first)
        if first > len(self._texts):
            raise TimingsGap(self._utterance_id, len(self._texts), first, field=f"{field}.first_item")

    def _require_timely(self, starts: list[int], ends: list[int], field: str) -> None:
        if starts[0] < self._last_start_ms or any(map(operator.gt, starts, islice(starts, 1, None))):
            raise self._invalid("a start is before the start of the text before it", f"{field}.start_ms")
        if starts[-1] > MAX_MS:
            raise self._invalid("a start is above 24 hours", f"{field}.start_ms", got=starts[-1])
        if any(map(operator.gt, starts, ends)) or max(ends, default=0) > MAX_MS:
            raise self._invalid("an end is before its start or above 24 hours", f"{field}.end_ms")

    def _require_room(self, texts: list[str], starts: list[int], room_chars: int, field: str) -> None:
        counts = list(accumulate(map(len, texts), initial=self.char_count))[1:]
        if counts[-1] > MAX_CHARS:
            raise TimingsLimit(self._utterance_id, MAX_CHARS, "utterance", field=f"{field}.texts")
        if counts[-1] - self.char_count > room_chars:
            raise TimingsLimit(self._utterance_id, MAX_SESSION_CHARS, "session", field=f"{field}.texts")
        if any(map(operator.gt, counts, [BURST_CHARS + start // MS_PER_CHAR for start in starts])):
            raise self._invalid("nobody speaks so fast; start_ms are milliseconds", f"{field}.start_ms")

    def _invalid(self, problem: str, field: str, **values: int) -> TimingsInvalid:
        return TimingsInvalid(self._utterance_id, problem, field=field, values=values)

    # --- growth

    def _append(self, texts: list[str], starts: list[int], ends: list[int]) -> None:
        if self._lasts_to_next:
            self._middles[-1] = max(self._middles[-1], self._last_start_ms + starts[0])
        self._lasts_to_next = not ends
        middles = map(operator.add, starts, ends or [*starts[1:], starts[-1]])
        so_far = self._middles[-1] if self._middles else 0
        self._middles.extend(islice(accumulate(middles, max, initial=so_far), 1, None))
        self._texts += texts
        self.char_count += sum(map(len, texts))
        self._last_start_ms = starts[-1]


def with_text(ended: UtteranceEnded, piece: TimedText, *, field: str) -> UtteranceEnded:
    """Return the end of an utterance with the text of timings that came again: another process had them before.

    Raises:
        TimingsInvalid, TimingsGap, TimingsLimit: The timings were refused.
    """
    text = UtteranceText(ended.utterance_id)
    text.add(piece, room_chars=MAX_CHARS, field=field)
    return replace(ended, heard_text=text.heard(ended.played_s, is_complete=ended.outcome is Outcome.COMPLETED))
