"""Sprites of eyes and mouth."""

import numpy as np

from liveavatar_emulator.avatar.features import eye, mouth

HEIGHT = 360


def covered(sprite) -> int:
    return int(np.count_nonzero(sprite.keep[0] < 256))


def test_sprites_are_drawn_once_and_have_half_size_chroma():
    sprite = mouth(HEIGHT, (0, 0), 0.5, 0.5, 0.0)
    assert mouth(HEIGHT, (0, 0), 0.5, 0.5, 0.0) is sprite
    rows, columns = sprite.keep[0].shape
    assert sprite.keep[1].shape == (rows // 2, columns // 2)


def test_an_open_mouth_covers_more_than_a_closed_one():
    assert covered(mouth(HEIGHT, (0, 0), 1.0, 0.5, 0.0)) > covered(mouth(HEIGHT, (0, 0), 0.0, 0.5, 0.0))


def test_a_closed_eye_shows_no_white():
    brightest = [eye(HEIGHT, (0, 0), 1, eyelids, (0, 0), 0.0, 0.0).add[0].max() for eyelids in (0.0, 1.0)]
    assert brightest[0] > brightest[1]
