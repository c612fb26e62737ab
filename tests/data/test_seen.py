"""What a network was trained on is known again."""

import numpy as np

from fer.data.duplicates import digests
from fer.data.seen import Digests, besides, together
from fer.data.seen import known_again as known_among
from fer.data.synthetic import make_faces

FACES = make_faces(40, 0, 0, seed=0).images


def known_again(images: np.ndarray, train: np.ndarray, seen: Digests) -> np.ndarray:
    return known_among(images, besides(seen, train))


def test_faces_are_known_again_on_another_side() -> None:
    seen = digests(FACES[:30])
    assert not known_again(FACES[30:], FACES[:30], seen).any()
    moved = known_again(FACES[20:], FACES[:20], seen)
    assert moved.tolist() == [True] * 10 + [False] * 10
    assert not known_again(FACES, FACES, np.empty(0, np.uint64)).any()
    assert known_again(FACES[:5], FACES[:0], seen).all()
    assert known_again(FACES[:0], FACES, seen).shape == (0,)


def test_a_copy_of_a_training_face_was_not_trained_on() -> None:
    """The fifth face stands in training and in the test rows; then in training twice, once of it a test row now."""
    seen = digests(FACES[:30])
    assert not known_again(FACES[[4, 35]], FACES[:30], seen).any()
    twice = digests(FACES[[*range(30), 4]])
    assert known_again(FACES[[4, 35]], FACES[:30], twice).tolist() == [True, False]


def test_several_networks_are_one_that_has_seen_all() -> None:
    one, two = digests(FACES[[1, 2, 2, 3]]), digests(FACES[[2, 3, 3, 4]])
    expected = digests(FACES[[1, 2, 2, 3, 3, 4]])
    assert together(one, two).tolist() == sorted(expected.tolist())
    assert together(one).tolist() == sorted(one.tolist())
    assert together().tolist() == together(np.empty(0, np.uint64)).tolist() == []
