"""The avatar's face, drawn into I420 pictures. Pure: an expression comes in, a picture goes out."""

from dataclasses import dataclass

import numpy as np

SIZES = {"very_high": (1920, 1080), "high": (1280, 720), "medium": (854, 480), "low": (640, 360)}
"""Width and height per quality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What the face shows at one moment."""

    mouth: float = 0.0
    """0 closed to 1 wide open."""
    eyelids: float = 0.0
    """0 open to 1 closed."""
    lean: float = 0.0
    """0 upright to 1 listening."""
    at_s: float = 0.0
    """Where the head is in its sway, in seconds since the avatar appeared."""


class Face:
    """A face of one size. The picture returned by `draw` is overwritten by the next call."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._picture = bytearray(width * height * 3 // 2)
        planes = np.frombuffer(self._picture, dtype=np.uint8)
        self._luma = planes[: width * height].reshape(height, width)
        planes[width * height :] = 128

    def draw(self, expression: Expression) -> bytearray:
        """The face as one I420 picture."""
        height, width = self.height, self.width
        self._luma[:] = 60
        lean = int(expression.lean * 0.05 * width)
        self._luma[height // 6 : height * 9 // 10, width // 3 + lean : width * 2 // 3 + lean] = 180
        opening = int((0.01 + 0.12 * expression.mouth) * height)
        top = height * 7 // 10
        self._luma[top : top + opening, width * 9 // 20 + lean : width * 11 // 20 + lean] = 40
        return self._picture
