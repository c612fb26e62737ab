"""Copies are found: exact, mirrored and slightly changed ones; different faces are not."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from fer.data.duplicates import find_copies, group_copies
from fer.data.synthetic import make_faces

Images = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def faces() -> Images:
    return make_faces(300, 0, 0, seed=3).images


def clipped(pixels: npt.NDArray[np.floating]) -> Images:
    gray: Images = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return gray


def recompressed(face: Images) -> Images:
    decoded = cv2.imdecode(cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded.astype(np.uint8)


def test_different_faces_are_no_copies(faces: Images) -> None:
    assert len(find_copies(faces[:150], faces[150:])) == 0
    assert len(find_copies(faces[:0], faces)) == len(find_copies(faces, faces[:0])) == 0


@pytest.mark.parametrize("mirror", [False, True])
def test_exact_copies_are_found_mirrored_or_not(faces: Images, mirror: bool) -> None:
    others = faces[100:200, :, ::-1] if mirror else faces[100:200]
    copies = find_copies(faces, others)
    assert copies.first.tolist() == list(range(100, 200))
    assert copies.second.tolist() == list(range(100))
    assert copies.exact.all()
    assert (copies.mirrored == mirror).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda face: clipped(face + np.random.default_rng(0).normal(0, 4, face.shape)),
        lambda face: clipped(0.7 * face + 40),
        lambda face: cv2.GaussianBlur(face, (3, 3), 0),
        lambda face: cv2.resize(face[1:47, 1:47], (48, 48), interpolation=cv2.INTER_LINEAR),
        recompressed,
        lambda face: clipped(face[:, ::-1] * 0.9),
    ],
    ids=["noise", "brightness", "blur", "crop", "jpeg", "mirrored and darker"],
)
def test_slightly_changed_copies_are_found(faces: Images, change: Callable[[Images], Images]) -> None:
    planted = np.stack([change(face) for face in faces[:50]])
    copies = find_copies(planted, faces)
    found = set(zip(copies.first.tolist(), copies.second.tolist(), strict=True))
    assert len(found) >= 42  # of 50; cutting a pixel off each side hides a few
    assert all(i == j for i, j in found)
    assert not copies.exact.any()


def test_blank_faces_are_copies_of_equal_blank_faces_only() -> None:
    blank = np.stack([np.full((48, 48), gray, np.uint8) for gray in (0, 255, 0)])
    copies = find_copies(blank[:1], blank)
    assert copies.second.tolist() == [0, 2]
    assert not copies.mirrored.any()


def test_copies_of_copies_form_one_group(faces: Images) -> None:
    noisy = clipped(faces[7] + np.random.default_rng(0).normal(0, 4, (48, 48)))
    images = np.stack([*faces[:10], faces[7, :, ::-1], noisy, faces[3]])
    assert group_copies(images).tolist() == [*range(10), 7, 7, 3]


def test_one_set_given_twice_gives_every_pair_in_both_orders(faces: Images) -> None:
    images = np.stack([*faces[:20], faces[7, :, ::-1], faces[3], clipped(0.9 * faces[3] + 5)])
    one_set, two_sets = find_copies(images, images), find_copies(images, images.copy())
    pairs = list(zip(one_set.first.tolist(), one_set.second.tolist(), one_set.mirrored.tolist(), strict=True))
    assert pairs == list(
        zip(two_sets.first.tolist(), two_sets.second.tolist(), two_sets.mirrored.tolist(), strict=True)
    )
    assert (7, 20, True) in pairs
    assert (20, 7, True) in pairs
