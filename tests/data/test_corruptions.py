"""Corruptions do what they say, the same everywhere, and more with every severity."""

import pytest
import torch

from fer.data import corruptions
from fer.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer.data.synthetic import make_faces

MEAN_CHANGE = {
    "gaussian_noise": 12.09,
    "shot_noise": 18.77,
    "defocus": 8.19,
    "motion_blur": 9.47,
    "resolution": 11.64,
    "jpeg": 3.16,
    "brighter": 79.66,
    "darker": 107.79,
    "contrast": 38.35,
    "shade": 44.97,
    "rotation": 25.98,
    "smaller": 17.52,
    "larger": 19.36,
    "shift": 24.82,
    "eyes_covered": 10.56,
    "mouth_covered": 8.71,
    "lower_half_covered": 22.04,
}
EVERY = pytest.mark.parametrize("name", CORRUPTIONS)


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return torch.from_numpy(make_faces(train=270, val=0, test=0, seed=0).images).unsqueeze(1)


@EVERY
def test_every_severity_changes_more_and_leaves_the_callers_faces_alone(name: str, faces: torch.Tensor) -> None:
    before = faces.clone()
    changes = []
    for severity in SEVERITIES:
        spoilt = corrupt(faces, name, severity)
        assert spoilt.shape == faces.shape
        assert spoilt.dtype == torch.uint8
        changes.append(float((spoilt.float() - faces.float()).abs().mean()))
    assert torch.equal(faces, before)
    assert changes[0] > 1
    assert changes == sorted(changes)
    assert changes[4] > 1.2 * changes[0]


@EVERY
def test_the_nth_face_is_always_the_same(name: str, faces: torch.Tensor) -> None:
    whole = corrupt(faces, name, 3)
    assert torch.equal(whole, corrupt(faces, name, 3))
    for count in (0, 7, 261):  # more than a block of 256, too
        assert torch.equal(corrupt(faces[:count], name, 3), whole[:count])


@EVERY
def test_other_sizes(name: str, faces: torch.Tensor) -> None:
    large = torch.nn.functional.interpolate(faces[:8].float(), (96, 96), mode="bilinear").to(torch.uint8)
    spoilt = corrupt(large, name, 5)
    assert spoilt.shape == (8, 1, 96, 96)
    assert not torch.equal(spoilt, large)


def test_faces_of_a_batch_are_spoilt_in_ways_of_their_own(faces: torch.Tensor) -> None:
    same = faces[:1].expand(16, 1, 48, 48)
    drawn = {"gaussian_noise", "shot_noise", "motion_blur", "shade", "shift", "eyes_covered"}
    for name in drawn:
        assert len(torch.unique(corrupt(same, name, 4), dim=0)) == 16, name
    for name in ("defocus", "jpeg", "smaller"):
        assert len(torch.unique(corrupt(same, name, 4), dim=0)) == 1, name


def test_framings_move_a_dot_where_they_should() -> None:
    dot = torch.zeros(64, 1, 48, 48, dtype=torch.uint8)
    dot[:, :, 23:25, 34:36] = 255  # 11 pixels right of the middle
    grid = torch.arange(48) + 0.5 - 24

    def place(spoilt: torch.Tensor) -> torch.Tensor:
        light = spoilt[:, 0].float()
        x, y = (light.sum(1) * grid).sum(1), (light.sum(2) * grid).sum(1)
        return torch.stack([x, y], dim=1) / light.sum((1, 2))[:, None]

    torch.testing.assert_close(place(corrupt(dot, "smaller", 5))[0], torch.tensor([11 * 26 / 48, 0]), atol=0.2, rtol=0)
    torch.testing.assert_close(place(corrupt(dot, "larger", 5))[0], torch.tensor([11 * 1.3, 0]), atol=0.2, rtol=0)
    turned = place(corrupt(dot, "rotation", 4))
    assert set(torch.round(turned[:, 1]).tolist()) == {-8, 8}  # 45 degrees, to either side
    shifts = (place(corrupt(dot, "shift", 1)) - place(dot)).norm(dim=1)
    torch.testing.assert_close(shifts, torch.full((64,), 3.84), atol=0.2, rtol=0)


def test_noise_has_the_deviation_that_it_names() -> None:
    gray = torch.full((32, 1, 48, 48), 128, dtype=torch.uint8)
    noisy = corrupt(gray, "gaussian_noise", 2).float()
    assert float(noisy.std()) == pytest.approx(0.04 * 255, rel=0.02)
    counted = corrupt(gray, "shot_noise", 1).float()
    assert float(counted.mean()) == pytest.approx(128, abs=1)
    assert float(counted.std()) == pytest.approx(255 / 250 * (250 * 128 / 255) ** 0.5, rel=0.03)


def test_what_is_done_to_pixels_belongs_to_the_version() -> None:
    """When this fails, raise `_VERSION` of fer/data/corruptions.py: what was measured before cannot be compared."""
    ramp = torch.arange(48) * 5.0
    face = (ramp[:, None] + ramp[None, :]) / 2 + 20 * torch.sin(ramp)[:, None]
    faces = face.clamp(0, 255).to(torch.uint8).expand(64, 1, 48, 48)
    found = {
        name: float((corrupt(faces, name, 3).float() - faces.float()).abs().mean()) for name in corruptions.CORRUPTIONS
    }
    assert found == pytest.approx(MEAN_CHANGE, rel=0.02)


def test_the_digest_tells_definitions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned value changes only together with the corruptions: results under another one cannot be compared."""
    assert corruptions.digest() == "20c48649fbf44151"
    before = corruptions.digest()
    changed = corruptions.Corruption("JPEG quality", (40, 25, 15, 10, 6), CORRUPTIONS["jpeg"].apply)
    monkeypatch.setitem(corruptions.CORRUPTIONS, "jpeg", changed)
    assert corruptions.digest() != before
