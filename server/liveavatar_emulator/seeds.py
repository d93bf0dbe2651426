"""Seed from which everything random in the emulator is derived, except secrets."""

import random
import uuid


class Seed:
    """Source of one stream of random numbers per purpose, so that streams do not influence each other."""

    def __init__(self, number: int) -> None:
        self.number = number

    def stream(self, purpose: str) -> random.Random:
        """Return a new stream; equal seeds and purposes give equal numbers on every machine."""
        return random.Random(f"{self.number}/{purpose}")  # noqa: S311 - repeatable on purpose, never a secret


def uuid_from(stream: random.Random) -> str:
    """Return the stream's next number as a UUID in the form of version 4."""
    return str(uuid.UUID(int=stream.getrandbits(128), version=4))
