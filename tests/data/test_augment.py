import pytest
import torch

from fer.data.augment import Augment, mixup

OFF = {
    "flip": 0.0,
    "rotation": 0.0,
    "scale": (1.0, 1.0),
    "translate": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "erase": 0.0,
}


@pytest.fixture
def faces() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    smooth = torch.rand(32, 1, 6, 6, generator=generator)
    return (torch.nn.functional.interpolate(smooth, (48, 48), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def test_all_strengths_at_zero_leave_the_faces_as_they_are(faces: torch.Tensor) -> None:
    assert torch.allclose(Augment(**OFF)(faces), faces.float(), atol=0.01)


def test_flip_mirrors(faces: torch.Tensor) -> None:
    assert torch.allclose(Augment(**{**OFF, "flip": 1.0})(faces), faces.float().flip(-1), atol=0.01)
    mirrored = (Augment(**{**OFF, "flip": 0.5})(faces) - faces.float().flip(-1)).abs().amax((1, 2, 3)) < 0.01
    assert 5 < int(mirrored.sum()) < 27


def test_every_face_gets_parameters_of_its_own() -> None:
    same = torch.full((16, 1, 48, 48), 100, dtype=torch.uint8)
    same[:, :, 10:20, 10:30] = 200
    augmented = Augment()(same)
    assert len({tuple(face.flatten().tolist()) for face in augmented}) == 16


def test_gray_values_stay_in_range_and_shape_stays(faces: torch.Tensor) -> None:
    augmented = Augment(brightness=0.9, contrast=0.9)(faces)
    assert augmented.shape == faces.shape
    assert augmented.dtype == torch.float32
    assert float(augmented.min()) >= 0
    assert float(augmented.max()) <= 255


def test_translation_moves_by_at_most_its_strength() -> None:
    dot = torch.zeros(200, 1, 48, 48, dtype=torch.uint8)
    dot[:, :, 23:25, 23:25] = 255
    moved = Augment(**{**OFF, "translate": 0.1})(dot)
    grid = torch.arange(48) + 0.5
    x = (moved.sum((1, 2)) * grid).sum(1) / moved.sum((1, 2, 3))
    assert float((x - 24).abs().max()) <= 4.8 + 0.1
    assert float((x - 24).abs().max()) > 3.8


def test_moved_faces_stay_sharp() -> None:
    noise = torch.rand(64, 1, 49, 49, generator=torch.Generator().manual_seed(0)) * 255
    detailed = torch.nn.functional.avg_pool2d(noise, 2, 1).to(torch.uint8)  # as detailed as photographs of this size
    torch.manual_seed(0)
    moved = Augment(**{**OFF, "translate": 0.02})(detailed)
    before, after = (float(faces.float().diff(dim=-1).square().mean()) for faces in (detailed, moved))
    assert after > 0.8 * before  # bilinear: 0.54


def test_rotation_turns_by_at_most_its_strength() -> None:
    bar = torch.zeros(200, 1, 48, 48, dtype=torch.uint8)
    bar[:, :, 23:25, 34:38] = 255  # a spot to the right of the centre
    turned = Augment(**{**OFF, "rotation": 20.0})(bar)
    grid = torch.arange(48) + 0.5 - 24
    total = turned.sum((1, 2, 3))
    y = (turned.sum((1, 3)) * grid).sum(1) / total
    x = (turned.sum((1, 2)) * grid).sum(1) / total
    angle = torch.rad2deg(torch.atan2(y, x))
    assert float(angle.abs().max()) <= 21
    assert float(angle.max()) > 15
    assert float(angle.min()) < -15


def test_erasing_paints_one_rectangle_of_the_asked_area() -> None:
    black = torch.zeros(300, 1, 48, 48, dtype=torch.uint8)
    erased = Augment(**{**OFF, "erase": 1.0, "erase_area": (0.1, 0.2)})(black) > 0
    share = erased.float().mean((1, 2, 3))
    assert float(share.max()) < 0.25
    assert 0.1 < float(share.mean()) < 0.2
    # A rectangle: its pixels are its rows times its columns.
    boxes = erased.any(-1).sum((1, 2)) * erased.any(-2).sum((1, 2))
    assert torch.equal(boxes, erased.sum((1, 2, 3)))


def test_mixup_blends_faces_and_targets_alike() -> None:
    faces = torch.zeros(64, 1, 4, 4)
    faces[32:] = 100
    targets = torch.cat([torch.zeros(32), torch.ones(32)]).long()
    torch.manual_seed(0)
    blended, soft = mixup(faces, targets, 3, alpha=1.0)
    assert torch.allclose(soft.sum(1), torch.ones(64))
    assert torch.allclose(blended[:, 0, 0, 0] / 100, soft[:, 1], atol=1e-5)
    assert int(((soft[:, 1] > 0.05) & (soft[:, 1] < 0.95)).sum()) > 10
