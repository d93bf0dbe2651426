"""Shapes and planes of the portrait."""

import numpy as np
import pytest

from liveavatar_emulator.avatar.portrait import (
    DOWN_PHASES,
    RIGHT_PHASES,
    ellipse,
    smooth_union,
    stills,
    stroke,
    yuv,
)


def at(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x], np.float32), np.array([y], np.float32)


@pytest.mark.parametrize(("x", "inside"), [(0.0, True), (0.9, True), (1.1, False)])
def test_distances_are_negative_inside(x, inside):
    assert (ellipse(*at(x, 0), (0, 0), (1, 1))[0] < 0) is np.bool_(inside)
    assert (stroke(*at(x, 0), (0, -1), (0, 1), (1, 1))[0] < 0) is np.bool_(inside)


def test_a_smooth_union_contains_both_shapes():
    one, other = np.float32(-0.5), np.float32(0.5)
    assert smooth_union(one, other, 0.1) <= min(one, other)
    assert smooth_union(one, one, 0.1) < one


def test_colours_are_in_the_range_of_studio_video():
    assert yuv((0, 0, 0)) == (16, 128, 128)
    assert yuv((255, 255, 255)) == pytest.approx((235, 128, 128), abs=0.1)


def test_stills_have_every_shift_and_a_margin():
    drawn = stills(64, 36)
    assert (len(drawn.luma), len(drawn.luma[0])) == (DOWN_PHASES, RIGHT_PHASES)
    assert drawn.luma[0][0].shape[0] >= 36 + drawn.luma_margin
