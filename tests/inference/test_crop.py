"""Crops: where they are cut, and what is beyond the picture's edge."""

import cv2
import numpy as np
import pytest

from fer.inference.crop import SIZE, crop_faces, square

RNG = np.random.default_rng(0)


def gray_picture(height: int, width: int) -> np.ndarray:
    """Smooth enough to be compared after resizing."""
    noise = RNG.integers(0, 256, (height // 8, width // 8), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_square_of_48_pixels_is_copied_as_it_is():
    picture = gray_picture(96, 128)
    (face,) = crop_faces(picture, [(30, 20, 48, 48)])
    np.testing.assert_array_equal(face, picture[20:68, 30:78])


def test_a_larger_square_is_the_area_average():
    picture = gray_picture(192, 192)
    (face,) = crop_faces(picture, [(16, 32, 144, 144)])
    averages = picture[32:176, 16:160].reshape(48, 3, 48, 3).mean(axis=(1, 3))
    assert np.abs(face - averages).max() <= 1


def test_a_picture_in_colour_gives_its_gray_values():
    picture = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    (face,) = crop_faces(picture, [(5, 6, 48, 48)])
    np.testing.assert_array_equal(face, cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[6:54, 5:53])


def test_past_the_edges_the_nearest_pixels_go_on():
    picture = gray_picture(64, 64)
    (face,) = crop_faces(picture, [(-24, 40, 48, 48)])
    np.testing.assert_array_equal(face[:24, 24:], picture[40:64, :24])
    np.testing.assert_array_equal(face[:24, :24], np.repeat(picture[40:64, :1], 24, axis=1))
    np.testing.assert_array_equal(face[24:, 24:], np.repeat(picture[-1:, :24], 24, axis=0))


def test_nothing_is_squeezed_at_the_edge():
    """A disc at the corner of the picture stays round."""
    picture = np.zeros((200, 200), np.uint8)
    cv2.circle(picture, (40, 60), 30, 255, -1)
    (face,) = crop_faces(picture, [(-20, 0, 120, 120)])
    rows, columns = np.nonzero(face > 127)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.2, 0.2, 0.3, 0.3), (-500, -500, 40, 40), (-50, -50, 900, 900)])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (50, 60, 3), (50, 60)])
def test_any_square_of_any_picture_gives_a_face(box, shape):
    faces = crop_faces(np.full(shape, 77, np.uint8), [box])
    assert faces.shape == (1, SIZE, SIZE)
    assert faces.dtype == np.uint8
    np.testing.assert_allclose(faces, 77, atol=1)


def test_no_squares_give_no_faces():
    assert crop_faces(np.zeros((5, 5, 3), np.uint8), []).shape == (0, SIZE, SIZE)


def test_square_has_its_centre_in_the_middle():
    assert square(10, 20, 6) == (7, 17, 6, 6)
