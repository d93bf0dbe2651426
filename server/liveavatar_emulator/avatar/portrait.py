"""The still part of the avatar's frame: background, shoulders, head and hair, without eyes, brows and mouth.

Drawn once per size from smooth shapes, at twice the size in both directions, so that it can be shifted by parts of
a pixel later. Pure.

Points are in units of the frame's height: x from the middle to the right, y from the top down.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Single-precision array; the type cannot express the precision."""
Bytes = NDArray[np.uint8]
Rgb = tuple[float, float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

SKIN: Rgb = (242, 199, 168)
SKIN_LIGHT: Rgb = (253, 224, 201)
SKIN_SHADE: Rgb = (214, 150, 118)
BLUSH: Rgb = (236, 150, 128)
HAIR: Rgb = (66, 45, 40)
HAIR_LIGHT: Rgb = (118, 82, 66)
SWEATER: Rgb = (46, 92, 112)
SWEATER_LIGHT: Rgb = (78, 132, 152)
SKY_TOP: Rgb = (222, 232, 236)
SKY_BOTTOM: Rgb = (158, 184, 198)
GLOW: Rgb = (250, 246, 238)

MARGIN = 0.13
"""Margin drawn beyond each edge, so that a shifted picture still fills the frame."""


RIGHT_PHASES = 4
DOWN_PHASES = 2

Shifted = tuple[tuple[Bytes, ...], ...]
"""A plane at each shift by a part of its pixels: `[down][right]`, in halves down and quarters to the right.

Rows are shifted one by one when the head leans, so a vertical edge shows horizontal steps most.
"""


@dataclass(frozen=True, slots=True)
class Stills:
    """The portrait's three planes, each with a margin of `margin` pixels beyond the frame's edges."""

    luma: Shifted
    blue: Shifted
    red: Shifted
    luma_margin: int
    chroma_margin: int


# -- shapes: distances to an outline, negative inside
# --------------------------------------------------------------------------------------------------------


def ellipse(x: Floats, y: Floats, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
    """Return the distance to an ellipse, exact at the outline and close to exact near it."""
    a, b = radii
    u, v = (x - centre[0]) / a, (y - centre[1]) / b
    length = np.sqrt(u * u + v * v) + 1e-6
    steepness = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-6
    distance: Floats = length * (length - 1) / steepness
    return distance


def stroke(
    x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]
) -> Floats:
    """Return the distance to a straight stroke with round ends of the given radii."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    distance: Floats = np.hypot(x - start[0] - along * dx, y - start[1] - along * dy)
    distance -= radii[0] + (radii[1] - radii[0]) * along
    return distance


def smooth_union(one: Floats, other: Floats, width: float) -> Floats:
    """Return the union of two shapes, with a round transition of this width."""
    share = np.clip(0.5 + 0.5 * (other - one) / width, 0, 1)
    melted: Floats = other + (one - other) * share - width * share * (1 - share)
    return melted


# -- painting
# --------------------------------------------------------------------------------------------------------

Shape = Callable[[Floats, Floats], Floats]


class _Canvas:
    """A picture in red, green and blue planes with a margin of whole pixels on each side."""

    def __init__(self, width: int, height: int, margin: int, unit: float) -> None:
        self.planes = np.empty((3, height + 2 * margin, width + 2 * margin), np.float32)
        self._unit = unit
        self._x = ((np.arange(width + 2 * margin, dtype=np.float32) - margin + 0.5) - width / 2) / unit
        self._y = (np.arange(height + 2 * margin, dtype=np.float32) - margin + 0.5) / unit

    def paint(
        self,
        shape: Shape,
        colour: Rgb,
        box: Box,
        *,
        blur: float = 0.0,
        strength: float = 1.0,
        within: Shape | None = None,
    ) -> None:
        """Paint the inside of a shape, where that is `within` another shape.

        `blur` is the width of the faded edge.
        """
        columns = slice(*np.searchsorted(self._x, (box[0], box[2])))
        rows = slice(*np.searchsorted(self._y, (box[1], box[3])))
        x, y = self._x[None, columns], self._y[rows, None]
        cover = np.clip(0.5 - shape(x, y) / max(blur, 1 / self._unit), 0, 1)
        if blur:
            cover *= cover * (3 - 2 * cover)
        cover *= strength
        if within is not None:
            cover *= np.clip(0.5 - within(x, y) * self._unit, 0, 1)
        for plane, part in zip(self.planes, colour, strict=True):
            area = plane[rows, columns]
            area += cover * (part - area)

    def backdrop(self) -> None:
        """Paint a soft gradient with a glow behind the head."""
        down = np.clip(self._y, 0, 1)[:, None]
        glow = (
            0.75 * np.exp(-((self._x[None, :] / 0.55) ** 2)) * np.exp(-(((self._y[:, None] - 0.38) / 0.45) ** 2))
        )
        for plane, top, bottom, light in zip(self.planes, SKY_TOP, SKY_BOTTOM, GLOW, strict=True):
            sky = top + (bottom - top) * down
            plane[:] = sky + glow * (light - sky)


def _head(x: Floats, y: Floats) -> Floats:
    return smooth_union(ellipse(x, y, (0, 0.395), (0.182, 0.200)), ellipse(x, y, (0, 0.500), (0.148, 0.162)), 0.08)


def _hair_behind(x: Floats, y: Floats) -> Floats:
    crown = ellipse(x, y, (0, 0.370), (0.226, 0.245))
    return smooth_union(crown, ellipse(x, y, (0, 0.520), (0.236, 0.190)), 0.08)


def _face_opening(x: Floats, y: Floats) -> Floats:
    """Return the shape that the hair in front leaves free: a fringe swept to one side."""
    swept = ellipse(x, y, (0.045, 0.490), (0.165, 0.222))
    return smooth_union(swept, ellipse(x, y, (-0.065, 0.520), (0.112, 0.172)), 0.03)


def _hair_in_front(x: Floats, y: Floats) -> Floats:
    cap = smooth_union(ellipse(x, y, (0, 0.360), (0.205, 0.217)), ellipse(x, y, (0, 0.485), (0.207, 0.160)), 0.05)
    return np.maximum(cap, -_face_opening(x, y))


def _shoulders(x: Floats, y: Floats) -> Floats:
    slope = ellipse(x, y, (0, 1.09), (0.50, 0.335))
    return smooth_union(slope, ellipse(x, y, (0, 1.00), (0.26, 0.270)), 0.10)


def _neckline(x: Floats, y: Floats) -> Floats:
    return ellipse(x, y, (0, 0.752), (0.118, 0.054))


def _neck(x: Floats, y: Floats) -> Floats:
    return smooth_union(
        stroke(x, y, (0, 0.56), (0, 0.74), (0.080, 0.084)), ellipse(x, y, (0, 0.790), (0.125, 0.06)), 0.05
    )


def _paint_portrait(canvas: _Canvas) -> None:
    body: Box = (-0.75, 0.62, 0.75, 1.20)
    canvas.backdrop()
    canvas.paint(lambda x, y: _shoulders(x, y + 0.01), (96, 124, 138), body, blur=0.10, strength=0.30)
    _paint_body(canvas, body)
    _paint_face(canvas, (-0.30, 0.08, 0.30, 0.80))


def _paint_body(canvas: _Canvas, box: Box) -> None:
    canvas.paint(_hair_behind, HAIR, (-0.30, 0.08, 0.30, 0.80))
    canvas.paint(
        lambda x, y: ellipse(x, y, (-0.20, 0.48), (0.05, 0.20)),
        HAIR_LIGHT,
        (-0.30, 0.08, 0.30, 0.80),
        blur=0.09,
        strength=0.5,
        within=_hair_behind,
    )
    canvas.paint(_shoulders, SWEATER, box)
    canvas.paint(
        lambda x, y: ellipse(x, y, (-0.24, 0.90), (0.17, 0.10)),
        SWEATER_LIGHT,
        box,
        blur=0.16,
        strength=0.5,
        within=_shoulders,
    )
    canvas.paint(
        lambda x, y: ellipse(x, y, (0.38, 1.02), (0.16, 0.20)),
        (30, 66, 84),
        box,
        blur=0.20,
        strength=0.6,
        within=_shoulders,
    )
    canvas.paint(lambda x, y: ellipse(x, y, (0, 0.762), (0.136, 0.068)), SWEATER_LIGHT, box)
    canvas.paint(_neckline, SKIN_SHADE, box)
    neck_box: Box = (-0.2, 0.5, 0.2, 0.84)
    canvas.paint(
        lambda x, y: np.where(y < 0.752, _neck(x, y), np.maximum(_neck(x, y), _neckline(x, y))), SKIN, neck_box
    )
    canvas.paint(lambda x, y: _head(x, y - 0.030), SKIN_SHADE, neck_box, blur=0.04, strength=0.8, within=_neck)


def _paint_face(canvas: _Canvas, box: Box) -> None:
    # `np.abs(x)` draws a shape and its mirror image: both ears, and in `_shade_face` both cheeks.
    canvas.paint(lambda x, y: ellipse(np.abs(x), y, (0.183, 0.455), (0.024, 0.042)), SKIN_SHADE, box)
    canvas.paint(_head, SKIN, box)
    _shade_face(canvas, box)
    canvas.paint(lambda x, y: _hair_in_front(x, y - 0.018), SKIN_SHADE, box, blur=0.03, strength=0.5, within=_head)
    canvas.paint(_hair_in_front, HAIR, box)
    canvas.paint(
        lambda x, y: np.abs(ellipse(x, y, (0.075, 0.47), (0.260, 0.285))) - 0.010,
        HAIR_LIGHT,
        box,
        blur=0.045,
        strength=0.75,
        within=_hair_in_front,
    )
    canvas.paint(
        lambda x, y: np.abs(ellipse(x, y, (0.10, 0.50), (0.245, 0.265))) - 0.002,
        HAIR_LIGHT,
        box,
        blur=0.012,
        strength=0.45,
        within=_hair_in_front,
    )


def _shade_face(canvas: _Canvas, box: Box) -> None:
    """Shade the face, the cheeks and the nose."""
    canvas.paint(
        lambda x, y: -ellipse(x, y, (-0.020, 0.455), (0.185, 0.215)),
        SKIN_SHADE,
        box,
        blur=0.09,
        strength=0.6,
        within=_head,
    )
    canvas.paint(
        lambda x, y: ellipse(np.abs(x), y, (0.103, 0.515), (0.034, 0.022)),
        BLUSH,
        box,
        blur=0.06,
        strength=0.45,
        within=_head,
    )
    canvas.paint(
        lambda x, y: ellipse(x, y, (0.003, 0.517), (0.024, 0.011)), SKIN_SHADE, box, blur=0.016, strength=0.8
    )
    canvas.paint(
        lambda x, y: ellipse(x, y, (-0.004, 0.490), (0.009, 0.030)), SKIN_LIGHT, box, blur=0.022, strength=0.8
    )


# -- planes
# --------------------------------------------------------------------------------------------------------


def yuv(colour: Rgb) -> tuple[float, float, float]:
    """Return luma, blue and red difference of a colour, in the range of studio video.

    Source: ITU-R BT.601, which decoders assume when a stream does not say otherwise.
    """
    red, green, blue = (part / 255 for part in colour)
    return (
        16 + 65.481 * red + 128.553 * green + 24.966 * blue,
        128 - 37.797 * red - 74.203 * green + 112.0 * blue,
        128 + 112.0 * red - 93.786 * green - 18.214 * blue,
    )


def _plane(canvas: _Canvas, weights: Rgb, offset: float) -> Floats:
    red, green, blue = canvas.planes
    plane: Floats = red * np.float32(weights[0] / 255)
    plane += green * np.float32(weights[1] / 255)
    plane += blue * np.float32(weights[2] / 255)
    plane += np.float32(offset)
    return plane


def _halved(plane: Floats) -> Floats:
    """Return the plane at half the size, each pixel the mean of four."""
    rows = plane[0::2] + plane[1::2]
    columns: Floats = (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)
    return columns


def _shifted(double: Floats) -> Shifted:
    """Return a plane of half this size at each shift.

    Each pixel is the mean over its own area of the double plane.
    """
    rows, columns = double.shape[0] // 2 - 1, double.shape[1] // 2 - 1
    shifts = []
    for below in range(DOWN_PHASES):
        tall = double[below : below + 2 * rows : 2] + double[below + 1 : below + 1 + 2 * rows : 2]
        first, second, third, fourth = (tall[:, skip : skip + 2 * columns : 2] for skip in range(4))
        middle, after = second + third, third + fourth
        phases = (first + second, 0.5 * (first + second + middle), middle, 0.5 * (middle + after))
        shifts.append(tuple((0.25 * phase + 0.5).astype(np.uint8) for phase in phases))
    return tuple(shifts)


@lru_cache(maxsize=4)
def stills(width: int, height: int) -> Stills:
    """Return the portrait for a frame of this size.

    The first call for a size takes up to a second: call this off the event loop.
    """
    chroma_margin = round(MARGIN * height / 2)
    canvas = _Canvas(2 * width, 2 * height, margin=4 * chroma_margin, unit=2.0 * height)
    _paint_portrait(canvas)
    return Stills(
        luma=_shifted(_plane(canvas, (65.481, 128.553, 24.966), 16)),
        blue=_shifted(_halved(_plane(canvas, (-37.797, -74.203, 112.0), 128))),
        red=_shifted(_halved(_plane(canvas, (112.0, -93.786, -18.214), 128))),
        luma_margin=2 * chroma_margin,
        chroma_margin=chroma_margin,
    )
