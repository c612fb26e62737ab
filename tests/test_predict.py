"""The views of test-time augmentation."""

import pytest
import torch

from fer.models.network import NetworkSpec
from fer.predict import VIEWS


def test_shifts_move_by_whole_pixels_repeat_the_edge_and_are_closed_under_mirroring() -> None:
    faces = torch.arange(2 * 5 * 6, dtype=torch.uint8).view(2, 1, 5, 6)
    views = VIEWS["shift"](faces)
    assert torch.equal(views[0], faces)
    up, left = [1, 2, 3, 4, 4], [1, 2, 3, 4, 5, 5]
    down, right = [0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4]
    expected = [faces, faces[..., up, :], faces[..., down, :], faces[..., left], faces[..., right]]
    expected += [view.flip(-1) for view in expected]
    assert len(views) == len(expected)
    for view in expected:
        assert sum(torch.equal(view, found) for found in views) == 1
        assert sum(torch.equal(view.flip(-1), found) for found in views) == 1
    assert {view.dtype for view in views} == {torch.uint8}


@pytest.mark.parametrize(("size", "side"), [(16, 15), (48, 44), (64, 59), (224, 205)])
def test_ten_crops_are_the_same_share_of_a_face_of_any_size(size: int, side: int) -> None:
    faces = torch.arange(size * size).view(1, 1, size, size)
    views = VIEWS["tencrop"](faces)
    assert [tuple(view.shape) for view in views] == [(1, 1, side, side)] * 10
    assert set(torch.cat(views).flatten().tolist()) == set(range(size * size))
    assert views[6][0, 0, -1, -1] == size * size - 1


def test_shifts_have_the_temperature_of_flip() -> None:
    both = NetworkSpec("net", ("happy", "sad"), temperatures={"none": 1.5, "flip": 1.2})
    assert both.temperature_of("shift") == both.temperature_of("flip") == 1.2
    assert both.temperature_of("tencrop") == 1.5
    assert NetworkSpec("net", ("happy", "sad"), temperatures={"none": 1.5}).temperature_of("shift") == 1.5
