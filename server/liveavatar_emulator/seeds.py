"""One number from which everything random in the emulator follows, secrets excepted."""

import random
import uuid


class Seed:
    """Hands out one stream of random numbers per purpose, so that what one draws does not move another."""

    def __init__(self, number: int) -> None:
        self.number = number

    def stream(self, purpose: str) -> random.Random:
        """A new stream; the same seed and purpose give the same numbers on every machine."""
        return random.Random(f"{self.number}/{purpose}")  # noqa: S311 - repeatable on purpose, never a secret


def uuid_from(stream: random.Random) -> str:
    """The stream's next number as a UUID, version 4 by its looks."""
    return str(uuid.UUID(int=stream.getrandbits(128), version=4))
