"""Times of the words of an utterance, in the shapes of text-to-speech services, and the text that was heard."""

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from liveavatar.gateway.v1 import audio_service_pb2 as pb

MAX_ITEMS = 1000
"""Texts of one message to the gateway."""
_END_TOLERANCE_MS = 1000
# Time by which the timings of an utterance that was heard whole may reach beyond its audio, as in the gateway.
_CLOSING = frozenset(".,;:!?…)]}»”’'%、。，！？：；）」』")  # noqa: RUF001  of several scripts
# Characters with which an item continues the word before it.
_OPENING = frozenset("([{«“¿¡（「『")  # noqa: RUF001  of several scripts
_TEXTS = ("characters", "chars", "words")
# Fields with the texts of an alignment.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai and Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # Chinese and Japanese
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True, slots=True)
class Word:
    """Word of an utterance with its time in the utterance's audio."""

    text: str
    """The word, with the punctuation that belongs to it. A space is put between two words that have none, except
    in scripts that use none."""
    start: float
    """Start, seconds from the beginning of the audio."""
    end: float | None = None
    """End, seconds from the beginning of the audio. Default: the start of the next word."""


Words: TypeAlias = "Word | Mapping[str, Any] | Iterable[Any] | AsyncIterable[Any] | None"
"""Timings for `say`: words, alignments of ElevenLabs or Cartesia as dicts or objects of their libraries, or
iterables of these."""


class TimedPiece:
    """Timings that came between pieces of audio."""

    __slots__ = ("is_relative", "words")

    def __init__(self, words: Any, *, is_relative: bool) -> None:
        self.words = words
        self.is_relative = is_relative
        """True when the times count from the piece of audio that follows."""


class SpokenText:
    """Text of one utterance in order, each part with its start and end in milliseconds.

    Invariant: starts never decrease; a part that would begin before the part before it begins with it.
    """

    def __init__(self, words: Words = None) -> None:
        """Begin with the words that are known.

        Args:
            words: Timings. An async iterable of them is kept as `later`, to be read beside the audio.

        Raises:
            TypeError: these are no timings.
            ValueError: an alignment has not as many times as texts, or a time is no number.
        """
        self.later = words if isinstance(words, AsyncIterable) else None
        """Words that are still to come; None without any."""
        self.is_finished = self.later is None
        """True when `later` has no more words."""
        self._texts: list[str] = []
        self._starts: list[int] = []
        self._ends: list[int | None] = []
        self._sent_count = 0
        self._is_refused = False
        if self.later is None and words is not None:
            self.add(words)

    def __bool__(self) -> bool:
        return bool(self._texts)

    @property
    def has_unsent(self) -> bool:
        """True when the present stream lacks timings."""
        return self._sent_count < len(self._texts) and not self._is_refused

    def add(self, words: Any, *, offset_s: float = 0.0) -> None:
        """Add timings.

        Args:
            words: Word, alignment, or iterable of these.
            offset_s: Position in the utterance from which their times count, seconds.

        Raises:
            TypeError: these are no timings.
            ValueError: an alignment has not as many times as texts, or a time is no number.
        """
        offset_ms = offset_s * 1000
        if words is None:
            return
        if isinstance(words, Word):
            end_ms = None if words.end is None else words.end * 1000 + offset_ms
            self._append(words.text, words.start * 1000 + offset_ms, end_ms, is_word=True)
        elif (columns := _columns_of(words)) is not None:
            for text, start_ms, end_ms in zip(columns.texts, columns.starts, columns.ends, strict=True):
                self._append(text, start_ms + offset_ms, end_ms + offset_ms, is_word=columns.are_words)
        elif isinstance(words, Iterable) and not isinstance(words, str | bytes | bytearray | Mapping):
            for one in words:
                self.add(one, offset_s=offset_s)
        else:
            msg = (
                f"words must be Word objects or alignments of a text-to-speech service, not {type(words).__name__}"
            )
            raise TypeError(msg)

    def _append(self, text: str, start_ms: float, end_ms: float | None, *, is_word: bool) -> None:
        if not text:
            return
        start = max(round(start_ms), self._starts[-1] if self._starts else 0)
        space = " " if is_word and self._texts and _needs_space(self._texts[-1][-1], text[0]) else ""
        self._texts.append(space + text)
        self._starts.append(start)
        self._ends.append(None if end_ms is None else max(round(end_ms), start))

    def finish(self) -> None:
        """Note that `later` has no more words."""
        self.is_finished = True

    def refuse(self) -> None:
        """Note that the gateway refused timings: it gets no more of them."""
        self._is_refused = True

    def restart(self) -> pb.TimedText | None:
        """Return the first timings for another stream, which gets all of them again; None without any."""
        self._sent_count = 0
        return self.take()

    def take(self) -> pb.TimedText | None:
        """Return the next timings for the present stream; None when it has all."""
        if not self.has_unsent:
            return None
        first, self._sent_count = self._sent_count, min(self._sent_count + MAX_ITEMS, len(self._texts))
        part = slice(first, self._sent_count)
        starts, ends = self._starts[part], self._ends[part]
        following = [*self._starts[first + 1 : self._sent_count + 1], starts[-1]]
        filled = [after if end is None else end for end, after in zip(ends, following, strict=False)]
        return pb.TimedText(
            first_item=first,
            texts=self._texts[part],
            start_ms=starts,
            end_ms=[] if all(end is None for end in ends) else filled,
        )

    def heard(self, played: timedelta, *, is_complete: bool) -> str:
        """Return the text that was heard by the gateway's rule, for where the gateway could not say."""
        if not played:
            return ""
        reached_ms = played / timedelta(milliseconds=1) + (_END_TOLERANCE_MS if is_complete else 0)
        following = [after for _, after in pairwise(self._starts)] + self._starts[-1:]
        count = 0
        for start, end, after in zip(self._starts, self._ends, following, strict=True):
            if start + (after if end is None else end) > 2 * reached_ms:
                break
            count += 1
        return "".join(self._texts[:count])


class _Columns(NamedTuple):
    """Texts with their times in milliseconds, in columns of the same length."""

    texts: Sequence[str]
    starts: Sequence[float]
    ends: Sequence[float]
    are_words: bool


def _columns_of(words: Any) -> _Columns | None:
    """Return the texts and times of an alignment; None for anything else.

    Raises:
        ValueError: it has not as many times as texts.
    """
    if (texts := _field(words, "characters")) is not None:
        starts, ends = _field(words, "character_start_times_seconds"), _field(words, "character_end_times_seconds")
        found = _Columns(texts, _scaled(starts), _scaled(ends), are_words=False)
    elif (texts := _field(words, "chars")) is not None:
        starts = _field(words, "charStartTimesMs", "char_start_times_ms") or []
        durations = _field(words, "charDurationsMs", "charsDurationsMs", "char_durations_ms") or []
        ends = [start + length for start, length in zip(starts, durations, strict=False)]
        found = _Columns(texts, starts, ends, are_words=False)
    elif (texts := _field(words, "words")) is not None:
        found = _Columns(texts, _scaled(_field(words, "start")), _scaled(_field(words, "end")), are_words=True)
    else:
        return None
    if not len(found.texts) == len(found.starts) == len(found.ends):
        msg = (
            f"{len(found.texts)} texts with {len(found.starts)} starts and {len(found.ends)} ends; each needs one "
            "of both"
        )
        raise ValueError(msg)
    return found


def is_timed(piece: Any) -> bool:
    """Return True for an item of an audio iterator that holds timings in place of samples."""
    if isinstance(piece, bytes | bytearray | memoryview | str):
        return False
    return isinstance(piece, Word | list) or any(_field(piece, name) is not None for name in _TEXTS)


def counts_from_its_piece(words: Any) -> bool:
    """Return True for an alignment of ElevenLabs' WebSocket: its times count from the audio of its message."""
    return _field(words, "chars") is not None


def _field(words: Any, *names: str) -> Any:
    for name in names:
        found = words.get(name) if isinstance(words, Mapping) else getattr(words, name, None)
        if found is not None and not callable(found):
            return found
    return None


def _scaled(seconds: Iterable[float] | None) -> list[float]:
    return [one * 1000 for one in seconds or ()]


def _needs_space(before: str, after: str) -> bool:
    if before.isspace() or after.isspace() or after in _CLOSING or before in _OPENING:
        return False
    return not (_is_unspaced(before) and _is_unspaced(after))


def _is_unspaced(character: str) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in _UNSPACED)
