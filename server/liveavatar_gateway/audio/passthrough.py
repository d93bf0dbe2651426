"""Audio in LiveAvatar's own format, which needs no conversion and none of the libraries for one."""

from collections.abc import Sequence


class Passthrough:
    """Passes on audio in LiveAvatar's format, without a copy for a single chunk."""

    def convert(self, chunks: Sequence[bytes], *, last: bool) -> bytes:  # noqa: ARG002 - nothing is delayed
        """Join the chunks."""
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
