"""The avatar's face, drawn into I420 frames. Pure: an expression comes in, a frame comes out.

The portrait is copied row by row, each row shifted as the head leans and sways; then eyes, brows and mouth are
drawn on top. An expression is rounded to steps too fine to be seen, so that drawn features are used again.
"""

from dataclasses import dataclass

import numpy as np

from liveavatar_emulator.avatar import features
from liveavatar_emulator.avatar.portrait import DOWN_PHASES, RIGHT_PHASES, Bytes, Floats, Shifted, stills

SIZES = {"very_high": (1920, 1080), "high": (1280, 720), "medium": (852, 480), "low": (640, 360)}
"""Width and height per quality. Encoders crop widths to multiples of four."""

TILT = 0.075
"""Angle, in radians, by which the features turn with the leaning head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """Expression of the face at one moment. Shifts are in units of the frame's height."""

    mouth: float = 0.0
    """0 closed to 1 wide open."""
    spread: float = 0.5
    """Corners of the mouth: 0 drawn together as in o, 1 apart as in e."""
    eyelids: float = 0.0
    """0 open to 1 closed."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """Direction of the gaze, from -1 to 1: to the right, and down."""
    brows: float = 0.0
    """0 at rest to 1 raised."""
    sway: tuple[float, float] = (0.0, 0.0)
    """Shift of the head to the right and down; the shoulders hardly move."""
    lean: float = 0.0
    """0 upright to 1 leaning towards the speaker, with the head tilted."""


class Face:
    """A face of one size. The next call of `draw` overwrites the frame that `draw` returned."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self._stills = stills(width, height)
        size, half = width * height, (width // 2) * (height // 2)
        self._picture = bytearray(size + 2 * half)
        planes = np.frombuffer(self._picture, dtype=np.uint8)
        self.luma = planes[:size].reshape(height, width)
        self.blue = planes[size : size + half].reshape(height // 2, width // 2)
        self.red = planes[size + half :].reshape(height // 2, width // 2)
        self._rows = (np.arange(height, dtype=np.float32) + 0.5) / height

    def draw(self, expression: Expression) -> bytearray:
        """Draw the face and return it as one I420 frame."""
        across, down = _shifts(self._rows, expression)
        still = self._stills
        _copy_rows(self.luma, still.luma, still.luma_margin, across * self.height, down * self.height)
        across, down = across[::2] * (self.height / 2), down[::2] * (self.height / 2)
        _copy_rows(self.blue, still.blue, still.chroma_margin, across, down)
        _copy_rows(self.red, still.red, still.chroma_margin, across, down)
        tilt = TILT * _rounded(expression.lean, 16)
        for side in (-1, 1):
            pixel, phase = self._place((side * features.EYE[0], features.EYE[1] - 0.022), expression)
            gaze = (_rounded(expression.gaze[0], 6), _rounded(expression.gaze[1], 6))
            eyelids, brows = _rounded(expression.eyelids, 8), _rounded(expression.brows, 6)
            self._lay(features.eye(self.height, phase, side, eyelids, gaze, brows, tilt), pixel)
        pixel, phase = self._place((features.MOUTH[0], features.MOUTH[1] + 0.010), expression)
        opening, spread = _rounded(expression.mouth, 20), _rounded(expression.spread, 4)
        self._lay(features.mouth(self.height, phase, opening, spread, tilt), pixel)
        return self._picture

    def _place(
        self, centre: tuple[float, float], expression: Expression
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the even pixel at or before a point of the portrait, and the distance in half pixels."""
        across, down = _shifts(np.array([centre[1]], dtype=np.float32), expression)
        # The position turns about the nose, as the features turn about their own centres.
        turn = TILT * _rounded(expression.lean, 16)
        x = centre[0] + float(across[0]) + turn * (centre[1] - 0.48)
        y = centre[1] + float(down[0]) - turn * centre[0]
        halves = (round(2 * (x * self.height + self.width / 2)), round(2 * y * self.height))
        pixel = (halves[0] // features.PHASES * 2, halves[1] // features.PHASES * 2)
        return pixel, (halves[0] % features.PHASES, halves[1] % features.PHASES)

    def _lay(self, sprite: features.Sprite, pixel: tuple[int, int]) -> None:
        """Draw a sprite with its centre at an even pixel."""
        left, top = pixel[0] + sprite.left, pixel[1] + sprite.top
        for plane, keep, add, scale in (
            (self.luma, sprite.keep[0], sprite.add[0], 1),
            (self.blue, sprite.keep[1], sprite.add[1], 2),
            (self.red, sprite.keep[1], sprite.add[2], 2),
        ):
            rows, columns = keep.shape
            area = plane[top // scale : top // scale + rows, left // scale : left // scale + columns]
            below = area * keep
            below >>= 8
            area[:] = below
            area += add


def _rounded(value: float, steps: int) -> float:
    return round(value * steps) / steps


def _shifts(rows: Floats, expression: Expression) -> tuple[Floats, Floats]:
    """Return the shift of each row to the right and down: full for the head, small for the shoulders."""
    share = np.clip((0.98 - rows) / 0.40, 0, 1)
    share = share * share * (3 - 2 * share)
    above_chin = np.clip(0.70 - rows, 0, 0.70)
    lean = expression.lean
    across: Floats = share * np.float32(expression.sway[0] + 0.018 * lean) + np.float32(0.085 * lean) * above_chin
    down: Floats = share * np.float32(expression.sway[1] + 0.014 * lean)
    return across, down


def _copy_rows(target: Bytes, source: Shifted, margin: int, across: Floats, down: Floats) -> None:
    """Fill the target with the source, shifted by so many pixels per row."""
    height, width = target.shape
    right = np.rint(-RIGHT_PHASES * across[:height]).astype(np.int32)
    below = np.rint(-DOWN_PHASES * down[:height]).astype(np.int32)
    changes = np.flatnonzero((np.diff(right) != 0) | (np.diff(below) != 0)) + 1
    start = 0
    for end in [*changes.tolist(), height]:
        columns, right_phase = divmod(int(right[start]), RIGHT_PHASES)
        rows, down_phase = divmod(int(below[start]), DOWN_PHASES)
        plane = source[down_phase][right_phase]
        first_row, first_column = margin + start + rows, margin + columns
        target[start:end] = plane[first_row : first_row + end - start, first_column : first_column + width]
        start = end
