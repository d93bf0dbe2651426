"""Rules of speech: from audio that a caller sent to packets, acks, playback and interrupts."""
