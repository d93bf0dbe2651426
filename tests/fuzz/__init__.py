"""Fuzzing of a gateway from both sides: a caller and an upstream that say anything, and what must stay true."""
