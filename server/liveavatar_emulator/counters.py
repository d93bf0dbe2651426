"""Counters of one recording that are also summed over all sessions."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from liveavatar_emulator.recording import Recording

_COUNTED: Final[Mapping[str, Callable[[Recording], int]]] = {
    "packets": lambda recording: recording.packet_count,
    "received_bytes": lambda recording: recording.received_bytes,
    "utterances": lambda recording: len(recording.utterances),
    "commands": lambda recording: recording.command_count,
    "commands_before_ready": lambda recording: recording.commands_before_ready,
    "commands_after_end": lambda recording: recording.commands_after_end,
    "audio_after_interrupt_packets": lambda recording: recording.packets_after_interrupt,
    "audio_after_interrupt_bytes": lambda recording: recording.bytes_after_interrupt,
    "interrupts": lambda recording: recording.interrupt_count,
    "underruns": lambda recording: recording.underruns,
    "unknown_messages": lambda recording: recording.unknown_messages,
    "invalid_messages": lambda recording: recording.invalid_messages,
    "oversize_packets": lambda recording: recording.oversize_packets,
    "odd_size_packets": lambda recording: recording.odd_size_packets,
    "refused_packets": lambda recording: recording.refused_packets,
    "keepalives": lambda recording: recording.keepalive_count,
}


def zero_counters() -> Counter[str]:
    """Return all counters at zero."""
    return Counter(dict.fromkeys(_COUNTED, 0))


def counters_of(recording: Recording) -> Counter[str]:
    """Return the counters of one recording."""
    return Counter({name: count(recording) for name, count in _COUNTED.items()})
