"""Audio formats of callers, and their conversion to LiveAvatar's 24 kHz mono 16-bit PCM."""
