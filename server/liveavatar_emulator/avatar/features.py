"""Eyes, brows and mouth as small transparent sprites. Pure, and cached, since most of them are drawn again soon.

Points are in units of the frame's height, as in the portrait.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from liveavatar_emulator.avatar.portrait import SKIN, SKIN_SHADE, Bytes, Floats, Rgb, ellipse, stroke, yuv

EYE = (0.078, 0.440)
"""The right eye in the frame; the other eye is its mirror image."""
MOUTH = (0.0, 0.587)

PHASES = 4
"""Positions of a sprite between two even pixels, in half pixels."""

_WHITE: Rgb = (250, 247, 244)
_IRIS: Rgb = (86, 118, 92)
_IRIS_RIM: Rgb = (52, 78, 64)
_PUPIL: Rgb = (28, 22, 22)
_LASH: Rgb = (48, 32, 30)
_BROW: Rgb = (78, 54, 47)
_LIP: Rgb = (208, 106, 99)
_LIP_LIGHT: Rgb = (226, 138, 128)
_LIP_DARK: Rgb = (160, 70, 70)
_INSIDE: Rgb = (92, 30, 36)
_TEETH: Rgb = (248, 243, 236)
_TONGUE: Rgb = (206, 100, 104)


@dataclass(frozen=True, slots=True)
class Sprite:
    """A transparent picture: the background times `keep` / 256, plus `add`.

    `left` and `top` are the position of its corner, in pixels from the even pixel at or before its centre.
    """

    left: int
    top: int
    keep: tuple[NDArray[np.uint16], NDArray[np.uint16]]
    """Factors of luma and of both chromas."""
    add: tuple[Bytes, Bytes, Bytes]


class _Sheet:
    """A sprite under construction. x and y are the portrait's coordinates of its pixels."""

    def __init__(
        self,
        height: int,
        centre: tuple[float, float],
        radii: tuple[float, float],
        phase: tuple[int, int],
        tilt: float,
    ) -> None:
        self._unit = float(height)
        across, down = (2 * (int(radius * height / 2) + 2) for radius in radii)
        self.left, self.top = -across, -down
        columns = (np.arange(2 * across, dtype=np.float32) + 0.5 - across - phase[0] / 2) / height
        rows = (np.arange(2 * down, dtype=np.float32) + 0.5 - down - phase[1] / 2) / height
        x, y = columns[None, :], rows[:, None]
        self.x: Floats = centre[0] + x - tilt * y
        self.y: Floats = centre[1] + y + tilt * x
        self._keep = np.ones(self.x.shape, np.float32)
        self._keep_half = np.ones((down, across), np.float32)
        self._layers = [np.zeros_like(self._keep), np.zeros_like(self._keep_half), np.zeros_like(self._keep_half)]

    def cover(self, distance: Floats, blur: float = 0.0) -> Floats:
        """Return the part of each pixel that lies inside a shape."""
        covered: Floats = np.clip(0.5 - distance / np.float32(max(blur, 1 / self._unit)), 0, 1)
        return covered

    def lay(self, cover: Floats, colour: Rgb) -> None:
        """Paint a colour over the covered parts."""
        half = cover[::2] + cover[1::2]
        half = (half[:, ::2] + half[:, 1::2]) * np.float32(0.25)
        self._keep *= 1 - cover
        self._keep_half *= 1 - half
        for number, (share, part) in enumerate(zip((cover, half, half), yuv(colour), strict=True)):
            self._layers[number] += share * (np.float32(part) - self._layers[number])

    def sprite(self) -> Sprite:
        """Return the finished sprite."""
        keep = tuple((256 * part + 0.5).astype(np.uint16) for part in (self._keep, self._keep_half))
        luma, blue, red = ((layer + 0.5).astype(np.uint8) for layer in self._layers)
        return Sprite(self.left, self.top, (keep[0], keep[1]), (luma, blue, red))


@lru_cache(maxsize=256)
def eye(  # noqa: PLR0917 - the cache is quicker with them in order
    height: int,
    phase: tuple[int, int],
    side: int,
    eyelids: float,
    gaze: tuple[float, float],
    brows: float,
    tilt: float,
) -> Sprite:
    """Return one eye with its brow for a frame of this height; `side` is 1 for the right eye in the frame."""
    sheet = _Sheet(height, (side * EYE[0], EYE[1] - 0.022), (0.056, 0.056), phase, tilt)
    x, y = sheet.x * side - EYE[0], sheet.y
    middle = EYE[1]
    cover, lay = sheet.cover, sheet.lay
    lay(cover(ellipse(x, y, (0, middle + 0.001), (0.041, 0.030)), blur=0.024) * np.float32(0.40), SKIN_SHADE)
    white = cover(ellipse(x, y, (0, middle), (0.0335, 0.0225)))
    # The upper lid covers the eye along a curve, and the lower lid rises a little to meet it.
    lid = middle - 0.0182 + 0.0302 * eyelids + 6.0 * (1 - 1.25 * eyelids) * x * x
    below_lid = cover(lid - y)
    seen = white * below_lid * cover(y - (middle + 0.022 - 0.008 * eyelids))
    lay(seen, _WHITE)
    iris_x, iris_y = x - side * 0.009 * gaze[0], y - 0.006 * gaze[1]
    lay(seen * cover(ellipse(iris_x, iris_y, (0, middle), (0.0180, 0.0180))), _IRIS_RIM)
    lay(seen * cover(ellipse(iris_x, iris_y, (0, middle + 0.001), (0.0155, 0.0155)), blur=0.004), _IRIS)
    lay(seen * cover(ellipse(iris_x, iris_y, (0, middle), (0.0088, 0.0088))), _PUPIL)
    # The light comes from the same side for both eyes.
    lay(seen * cover(ellipse(iris_x * side, iris_y, (-0.006, middle - 0.007), (0.0042, 0.0042))), _WHITE)
    lay(seen * cover(y - (lid + 0.006), blur=0.010) * np.float32(0.30), SKIN_SHADE)
    lay(white * (1 - below_lid), SKIN)
    inside = ellipse(x, y, (0, middle), (0.0370, 0.0260))
    lash = np.maximum(np.abs(y - np.minimum(lid, middle + 0.0125)) - (0.0046 - 1.2 * x * x), inside)
    lay(cover(lash), _LASH)
    rise = 0.014 * brows
    inner = stroke(x, y, (-0.030, 0.389 - rise), (0.002, 0.381 - rise), (0.0060, 0.0056))
    outer = stroke(x, y, (0.002, 0.381 - rise), (0.037, 0.391 - 0.7 * rise), (0.0056, 0.0024))
    lay(cover(np.minimum(inner, outer), blur=0.003), _BROW)
    return sheet.sprite()


@lru_cache(maxsize=512)
def mouth(height: int, phase: tuple[int, int], opening: float, spread: float, tilt: float) -> Sprite:
    """Return the mouth: two lips, with teeth and tongue between them as far as it is open."""
    sheet = _Sheet(height, (MOUTH[0], MOUTH[1] + 0.010), (0.072, 0.052), phase, tilt)
    wide = 0.046 + 0.014 * spread - 0.010 * opening
    gap = 0.042 * opening * (1.2 - 0.5 * spread)
    x, y = (sheet.x - MOUTH[0]) / np.float32(wide), sheet.y - MOUTH[1]
    arch = np.clip(1 - x * x, 0, 1)
    ends = (np.abs(x) - 1) * np.float32(wide)
    cover, lay = sheet.cover, sheet.lay
    # A closed mouth smiles: its corners lie above its middle.
    smile = (0.0115 - 0.006 * opening) * arch - 0.003
    upper = smile - 0.25 * gap * np.sqrt(arch)
    lower = smile + 0.75 * gap * np.sqrt(arch)
    bow = 0.0095 * arch * (1 - 0.25 * np.exp(-((x / 0.22) ** 2)))
    lay(
        cover(ellipse(sheet.x, sheet.y, (0, MOUTH[1] + 0.030 + 0.75 * gap), (0.026, 0.005)), blur=0.012) * 0.5,
        SKIN_SHADE,
    )
    lay(cover(np.maximum(np.maximum(upper - bow - y, y - lower - 0.0135 * arch), ends)), _LIP)
    lay(
        cover(np.abs(y - lower - 0.006) - 0.001 * arch, blur=0.007) * cover(np.abs(x) - 0.45, blur=0.4) * 0.8,
        _LIP_LIGHT,
    )
    line = np.maximum(np.abs(y - (upper + lower) / 2) - 0.0017 * arch - 0.0006, ends)
    lay(cover(line), _LIP_DARK)
    if gap > 0:
        inside = cover(np.maximum(np.maximum(upper - y, y - lower), ends + 0.001))
        lay(inside, _INSIDE)
        teeth = y - upper - np.minimum(0.0105, 0.5 * gap) * np.sqrt(arch)
        lay(inside * cover(teeth) * cover(np.abs(x) - 0.86, blur=0.1), _TEETH)
        tongue = ellipse(sheet.x, y, (0, 0.66 * gap + 0.018), (0.55 * wide, 0.020))
        lay(inside * cover(tongue, blur=0.004), _TONGUE)
    return sheet.sprite()
