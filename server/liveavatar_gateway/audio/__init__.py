"""Audio as callers send it, turned into what LiveAvatar takes: 24 kHz mono 16-bit PCM."""
