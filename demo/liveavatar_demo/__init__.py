"""`liveavatar-gateway demo`: a whole call through real processes, and the proof that it went right."""
