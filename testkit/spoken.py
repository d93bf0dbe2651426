"""Sounds of people: sentences by espeak-ng, coughs and noises made of numbers. Nothing is downloaded."""

import functools
import io
import subprocess
import wave

import numpy as np
import soxr

RATE_HZ = 16_000


@functools.cache
def sentence(text: str, *, voice: str = "en-us", rate_hz: int = RATE_HZ, speed: int = 160) -> np.ndarray:
    """Return a sentence as int16 samples, without silence before and after."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(speed), text]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    with wave.open(io.BytesIO(done.stdout)) as file:
        # The header of a stream has no true length.
        samples = np.frombuffer(file.readframes(1 << 30), np.int16)
        given_hz = file.getframerate()
    loud = np.flatnonzero(np.abs(samples) > 300)
    trimmed = samples[loud[0] : loud[-1] + 1].astype(np.float32)
    resampled = soxr.resample(trimmed, given_hz, rate_hz)
    return np.clip(np.rint(resampled), -32_768, 32_767).astype(np.int16)


def silence(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.zeros(round(seconds * rate_hz), np.int16)


def cough(seed: int, *, seconds: float = 0.3, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return one cough: a burst of noise through a throat, and a weaker, partly voiced tail."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    times = np.arange(count) / rate_hz
    burst = np.exp(-times / 0.03)
    tail = 0.5 * np.clip((times - 0.05) / 0.02, 0, 1) * np.exp(-np.clip(times - 0.07, 0, None) / 0.09)
    noise = rng.normal(size=count)
    formants = ((1.0, rng.uniform(450, 700), 250), (0.8, rng.uniform(1_200, 1_700), 400), (0.4, 2_800, 900))
    shaped = sum(gain * resonance(noise, hz, width_hz, rate_hz) for gain, hz, width_hz in formants)
    pitch_hz = rng.uniform(110, 260)
    voiced = resonance(np.sign(np.sin(2 * np.pi * pitch_hz * times)), 600, 300, rate_hz)
    sound = burst * shaped + tail * (0.7 * shaped + 0.3 * voiced / max(np.abs(voiced).max(), 1e-9))
    return scaled(sound, 12_000)


def resonance(samples: np.ndarray, hz: float, width_hz: float, rate_hz: int) -> np.ndarray:
    """Return samples through one formant, by its transfer function."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    gain = 1 / np.sqrt(1 + ((frequencies - hz) / (width_hz / 2)) ** 2)
    filtered = np.fft.irfft(spectrum * gain, len(samples))
    return filtered / max(float(np.abs(filtered).max()), 1e-9)


def scaled(sound: np.ndarray, peak: float) -> np.ndarray:
    return np.rint(sound / max(float(np.abs(sound).max()), 1e-9) * peak).astype(np.int16)


def noise(kind: str, seconds: float, *, seed: int = 1, level: float = 1_000, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return noise of a kind, with a root mean square of `level`."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    times = np.arange(count) / rate_hz
    frequencies = np.fft.rfftfreq(count, 1 / rate_hz)
    match kind:
        case "white":
            sound = rng.normal(size=count)
        case "pink":
            sound = np.fft.irfft(np.fft.rfft(rng.normal(size=count)) / np.sqrt(np.maximum(frequencies, 20)), count)
        case "hum":
            sound = sum(np.sin(2 * np.pi * hz * times) / hz for hz in (50, 100, 150, 250, 350))
        case "keyboard":
            sound = rng.normal(size=count) * 0.02
            for at in np.cumsum(rng.uniform(0.08, 0.4, round(seconds / 0.08))):
                first = round(at * rate_hz)
                if first + 400 < count:
                    sound[first : first + 400] += rng.normal(size=400) * np.exp(-np.arange(400) / 60)
        case "fan":
            low = np.fft.rfft(rng.normal(size=count)) / np.maximum(frequencies, 60)
            sound = np.fft.irfft(low, count) * (1 + 0.3 * np.sin(2 * np.pi * 9 * times))
        case "music":
            notes = rng.choice([220.0, 247.0, 277.2, 329.6, 370.0, 440.0], size=round(seconds / 0.25) + 1)
            pitch = np.repeat(notes, round(0.25 * rate_hz))[:count]
            turns = np.cumsum(pitch) / rate_hz
            decay = np.exp(-(times % 0.25) / 0.12)
            sound = decay * sum(np.sin(2 * np.pi * turns * part) / part for part in (1, 2, 3, 4))
        case _:
            raise ValueError(kind)
    return np.rint(sound / np.sqrt(np.mean(sound**2)) * level).clip(-32_768, 32_767).astype(np.int16)


NOISES = ("white", "pink", "hum", "keyboard", "fan", "music")
