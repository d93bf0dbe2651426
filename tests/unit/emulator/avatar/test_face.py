"""The drawn face: what an expression changes in the picture, and that nothing else does."""

import numpy as np
import pytest

from liveavatar_emulator.avatar import features
from liveavatar_emulator.avatar.face import SIZES, Expression, Face

WIDTH, HEIGHT = SIZES["low"]
CENTRE = WIDTH // 2


@pytest.fixture(scope="module")
def face() -> Face:
    return Face(WIDTH, HEIGHT)


def luma(face: Face, **expression: object) -> np.ndarray:
    face.draw(Expression(**expression))
    return face.luma.astype(int)


def around(place: tuple[float, float], radius: float) -> tuple[slice, slice]:
    x, y, size = CENTRE + place[0] * HEIGHT, place[1] * HEIGHT, radius * HEIGHT
    return slice(int(y - size), int(y + size)), slice(int(x - size), int(x + size))


MOUTH = around(features.MOUTH, 0.075)
EYE = around(features.EYE, 0.035)
OTHER_EYE = around((-features.EYE[0], features.EYE[1]), 0.035)


def test_a_picture_is_three_whole_planes(face):
    picture = face.draw(Expression())
    assert len(picture) == WIDTH * HEIGHT * 3 // 2
    assert face.luma.min() >= 16
    assert face.luma.max() <= 240
    assert 90 < face.blue.min() < face.red.max() < 190


def test_the_same_expression_gives_the_same_picture(face):
    expression = Expression(mouth=0.4, eyelids=0.3, lean=0.5, sway=(0.003, 0.001))
    first = bytes(face.draw(expression))
    face.draw(Expression(mouth=1, eyelids=1, lean=1))
    assert bytes(face.draw(expression)) == first
    assert bytes(Face(WIDTH, HEIGHT).draw(expression)) == first


def test_the_mouth_opens_further_with_every_step_and_nothing_else_moves(face):
    closed = luma(face)
    dark = [int((luma(face, mouth=opening)[MOUTH] < 90).sum()) for opening in (0, 0.25, 0.5, 0.75, 1)]
    assert dark == sorted(set(dark)), f"dark pixels in the mouth: {dark}"
    changed = luma(face, mouth=1) != closed
    changed[MOUTH] = False
    assert not changed.any()


def test_the_corners_of_the_mouth_follow_the_sound(face):
    narrow, wide = (luma(face, mouth=0.4, spread=spread) != luma(face) for spread in (0.0, 1.0))
    assert np.ptp(np.flatnonzero(wide.any(axis=0))) > np.ptp(np.flatnonzero(narrow.any(axis=0)))


def test_a_blink_closes_both_eyes(face):
    open_eyes, shut = luma(face), luma(face, eyelids=1)
    for eye in (EYE, OTHER_EYE):
        # White and pupil give way to skin.
        assert (open_eyes[eye] > 220).sum() > 10
        assert (shut[eye] > 220).sum() == 0
        assert open_eyes[eye].min() < 50


def test_the_eyes_look_where_they_are_told(face):
    def pupil(gaze: tuple[float, float]) -> float:
        # Lashes do not move, so whatever else is dark there is the pupil.
        return float(np.nonzero(luma(face, gaze=gaze)[EYE] < 60)[1].mean())

    assert pupil((-1, 0)) < pupil((0, 0)) < pupil((1, 0))


def test_listening_moves_and_tilts_the_head_and_leaves_the_shoulders(face):
    upright, leaning = luma(face), luma(face, lean=1.0)
    hair = slice(int(0.2 * HEIGHT), int(0.3 * HEIGHT))
    assert np.nonzero(leaning[hair] < 80)[1].mean() - np.nonzero(upright[hair] < 80)[1].mean() > 0.02 * HEIGHT
    assert (
        np.nonzero(leaning[EYE[0], : CENTRE + 10] < 60)[0].mean()
        > np.nonzero(leaning[EYE[0], CENTRE + 30 :] < 60)[0].mean()
    )
    assert (upright[-4:] == leaning[-4:]).all()


def test_sway_moves_smoothly_also_by_less_than_a_pixel(face):
    edge = slice(int(0.3 * HEIGHT), int(0.4 * HEIGHT))
    weights = [
        float(luma(face, sway=(shift / HEIGHT, 0.0))[edge, : CENTRE - 40].sum())
        for shift in (0, 0.25, 0.5, 0.75, 1)
    ]
    steps = np.diff(weights)
    assert (steps > 0).all(), "the dark hair moves away to the right"
    assert steps.max() < 2.5 * steps.min()


# The largest takes seconds to prepare, and differs in nothing.
@pytest.mark.parametrize("quality", ["high", "medium", "low"])
def test_every_quality_fits_its_frame_even_at_the_ends_of_every_movement(quality):
    face = Face(*SIZES[quality])
    for lean in (0.0, 1.0):
        for sway in (-0.012, 0.012):
            face.draw(Expression(mouth=1, lean=lean, sway=(sway, sway), gaze=(1, 1), brows=1))
    assert face.luma.shape == (SIZES[quality][1], SIZES[quality][0])


def test_edges_are_smooth(face):
    row = luma(face)[int(0.42 * HEIGHT)]
    outside, hair = row[10], 60
    between = [value for value in row[: CENTRE - 40] if hair + 15 < value < outside - 60]
    assert between, "no pixel between hair and background: the outline is jagged"
