from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fer.data.augment import Augment, Degrade, mixup
from fer.settings.train import AugmentSettings

DEFAULT = AugmentSettings().model_dump()
OFF: dict[str, Any] = {
    "flip": 0.0,
    "rotation": 0.0,
    "scale": (1.0, 1.0),
    "translate": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "erase": 0.0,
    "erase_area": (0.02, 0.2),
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
    augmented = Augment(**DEFAULT)(same)
    assert len({tuple(face.flatten().tolist()) for face in augmented}) == 16


def test_gray_values_stay_in_range_and_shape_stays(faces: torch.Tensor) -> None:
    augmented = Augment(**{**DEFAULT, "brightness": 0.9, "contrast": 0.9})(faces)
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


def detail(faces: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between neighbouring pixels, of each face."""
    return faces.float().diff(dim=-1).square().mean((1, 2, 3))


class TestDegradation:
    @pytest.fixture
    def sharp(self) -> torch.Tensor:
        noise = torch.rand(400, 1, 49, 49, generator=torch.Generator().manual_seed(0)) * 255
        return torch.nn.functional.avg_pool2d(noise, 2, 1).to(torch.uint8)

    def test_so_many_faces_are_degraded(self, sharp):
        torch.manual_seed(0)
        changed = (Degrade(0.2)(sharp.float()) - sharp.float()).abs().amax((1, 2, 3)) > 0.5
        assert float(changed.float().mean()) == pytest.approx(1 - 0.8**3, abs=0.06)

    def test_blur_and_lower_resolution_take_detail_and_keep_the_mean(self, sharp):
        torch.manual_seed(0)
        augment = Degrade(1.0)
        soft = augment._soften(sharp.float())
        assert (detail(soft) < detail(sharp)).all()
        assert torch.allclose(soft.mean((2, 3)), sharp.float().mean((2, 3)), atol=6)
        flat = torch.full((64, 1, 48, 48), 90.0)
        assert torch.allclose(augment._soften(flat), flat, atol=0.01)

    @pytest.mark.parametrize(("pixels", "size"), [(12, 48), (24, 48), (48, 96)])
    def test_lower_resolution_is_that_of_torchvision(self, sharp, pixels, size, monkeypatch):
        from torchvision.transforms.v2 import functional

        faces = functional.resize(sharp[:8].float(), [size, size])
        # Coarse (0 < 0.5), of `pixels` pixels of the face's own side.
        monkeypatch.setattr(
            "fer.data.augment._uniform",
            lambda like, low, high: torch.full((len(like),), {12.0: pixels * 48 / size}.get(low, 0.0)),
        )
        soft = Degrade(1.0)._soften(faces)
        wanted = functional.resize(functional.resize(faces, [pixels, pixels], antialias=True), [size, size])
        assert float((soft - wanted).abs().max()) < 0.1

    def test_noise_grows_with_the_light(self):
        torch.manual_seed(0)
        augment = Degrade(1.0)
        dark, light = (
            augment._grain(torch.full((300, 1, 48, 48), gray)).std((1, 2, 3)).mean() for gray in (40.0, 160.0)
        )
        assert float(dark) > 8
        assert float(light) > 1.3 * float(dark)

    @pytest.mark.parametrize("size", [48, 50])
    def test_compression_is_that_of_a_jpeg_library(self, sharp, size, monkeypatch):
        faces = sharp[:20, :, :size, :size] if size <= 48 else torch.nn.functional.pad(sharp[:20], [0, 2, 0, 2])
        smooth = torch.nn.functional.avg_pool2d(faces.float(), 5, 1, 2).round()
        for quality in (12, 30, 55):
            monkeypatch.setattr(
                "fer.data.augment._uniform",
                lambda like, low, high, q=quality: torch.full((len(like),), float(q if low else 0)),
            )
            ours = Degrade(1.0)._compress(smooth)
            for face, compressed in zip(smooth[:, 0].numpy().astype(np.uint8), ours[:, 0].numpy(), strict=True):
                encoded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
                decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
                assert np.abs(decoded - compressed)[:40, :40].mean() < 1  # gray value: rounding inside the library


def test_mixup_blends_faces_and_targets_alike() -> None:
    faces = torch.zeros(64, 1, 4, 4)
    faces[32:] = 100
    targets = torch.cat([torch.zeros(32), torch.ones(32)]).long()
    torch.manual_seed(0)
    blended, soft = mixup(faces, targets, 3, alpha=1.0)
    assert torch.allclose(soft.sum(1), torch.ones(64))
    assert torch.allclose(blended[:, 0, 0, 0] / 100, soft[:, 1], atol=1e-5)
    assert int(((soft[:, 1] > 0.05) & (soft[:, 1] < 0.95)).sum()) > 10
