"""Faces made worse on purpose, as cameras, networks and hands do: FER2013-C, seventeen corruptions at five severities.

The model is ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261), made for small gray faces: severities are in the
units of each corruption's field and of the face's side, so that they mean the same at any stored size. Made in memory;
what is drawn at random is drawn from fixed seeds, face by face, so that everybody corrupts the n-th face alike. Knows
nothing of labels, files or networks.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

SEVERITIES = (1, 2, 3, 4, 5)

_VERSION = 1  # part of the digest: to be raised with every change of what a corruption does to pixels
_BLOCK = 256  # faces that are held as floats at once, and that share a seed; part of what is drawn
_SIDE = 48  # pixels; lengths in pixels are of a face of this size

# Where features lie, in parts of the side from the top (docs/detection.md, "The crop").
_EYES, _MOUTH = 0.39, 0.745

# uint8 faces (N, 1, S, S), the severity's amount and a source of random numbers, to faces of the same shape: uint8, or
# float gray values that are yet to be rounded and clipped.
_Apply = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a face.

    Attributes:
        unit: what `amounts` count.
        amounts: of severities 1 to 5.
        apply: to a block of faces.
    """

    unit: str
    amounts: tuple[float, float, float, float, float]
    apply: _Apply


def corrupt(faces: Tensor, name: str, severity: int) -> Tensor:
    """New faces; the n-th is always the same, however many there are.

    Args:
        faces: uint8 (N, 1, S, S), on the CPU; left as they are.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        uint8 (N, 1, S, S).
    """
    corruption = CORRUPTIONS[name]
    amount = float(corruption.amounts[severity - 1])  # a whole number would make torch multiply in uint8
    result = torch.empty_like(faces)
    for start in range(0, len(faces), _BLOCK):
        block = faces[start : start + _BLOCK]
        # Not of the severity: a face is turned the same way, and covered by the same gray, the worse it gets.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {start}".encode()))
        spoilt = corruption.apply(block, amount, generator)
        result[start : start + _BLOCK] = spoilt.round().clamp(0, 255) if spoilt.is_floating_point() else spoilt
    return result


def digest() -> str:
    """16 hexadecimal digits that change with names, units and severities, and with what a corruption does."""
    content = [[name, corruption.unit, corruption.amounts] for name, corruption in CORRUPTIONS.items()]
    return hashlib.sha256(json.dumps([_VERSION, content]).encode()).hexdigest()[:16]


def _uniform(faces: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One number for each face, (N, 1, 1, 1). A second call would draw by the number of faces."""
    return (low + (high - low) * torch.rand(len(faces), generator=generator)).view(-1, 1, 1, 1)


def _places(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the pixels in parts of the side: y (S, 1) from the top, x (1, S) from the left."""
    size = faces.shape[-1]
    centres = (torch.arange(size) + 0.5) / size
    return centres[:, None], centres[None, :]


def _gaussian_noise(faces: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return faces + 255 * deviation * torch.randn(faces.shape, generator=generator)


def _shot_noise(faces: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    return torch.poisson(faces * (photons / 255), generator) * (255 / photons)


def _defocus(faces: Tensor, sigma: float, _: torch.Generator) -> Tensor:
    sigma = sigma * faces.shape[-1] / _SIDE
    side = 2 * math.ceil(3 * sigma) + 1
    blurred: Tensor = functional.gaussian_blur(faces, [side, side], [sigma, sigma])
    return blurred


def _motion_blur(faces: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """The mean over points of a line through each pixel, in a direction of the face's own."""
    length = length * faces.shape[-1] / _SIDE
    angle = _uniform(faces, 0, math.pi, generator).flatten()
    points = torch.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * math.ceil(length) + 1)
    x, y = torch.cos(angle)[:, None] * points, torch.sin(angle)[:, None] * points  # (N, P)
    reach = math.ceil(length / 2)
    cells = torch.arange(-reach, reach + 1)
    # Each point is shared out bilinearly among the four pixels around it.
    weight_x = (1 - (x[..., None] - cells).abs()).clamp(min=0)
    weight_y = (1 - (y[..., None] - cells).abs()).clamp(min=0)
    kernels = torch.einsum("npy,npx->nyx", weight_y, weight_x) / len(points)
    padded = nn.functional.pad(faces.float(), [reach] * 4, mode="replicate")
    return nn.functional.conv2d(padded.transpose(0, 1), kernels[:, None], groups=len(faces)).transpose(0, 1)


def _resolution(faces: Tensor, pixels: float, _: torch.Generator) -> Tensor:
    size = list(faces.shape[-2:])
    small = functional.resize(faces, [int(pixels), int(pixels)], antialias=True)
    large: Tensor = functional.resize(small, size)
    return large


def _jpeg(faces: Tensor, quality: float, _: torch.Generator) -> Tensor:
    """By OpenCV: torchvision's own codec is deprecated since 0.29."""
    result = torch.empty_like(faces)
    for face, target in zip(faces[:, 0].numpy(), result[:, 0].numpy(), strict=True):
        encoded = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
        target[:] = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    return result


def _brightness(faces: Tensor, factor: float, _: torch.Generator) -> Tensor:
    lit: Tensor = functional.adjust_brightness(faces, factor)
    return lit


def _contrast(faces: Tensor, factor: float, _: torch.Generator) -> Tensor:
    flat: Tensor = functional.adjust_contrast(faces, factor)
    return flat


def _shade(faces: Tensor, light: float, generator: torch.Generator) -> Tensor:
    """A shadow with a soft edge over one side of the face, from a direction of the face's own."""
    angle = _uniform(faces, 0, 2 * math.pi, generator)
    y, x = _places(faces)
    distance = (x - 0.5) * torch.cos(angle) + (y - 0.5) * torch.sin(angle)
    return faces * (light + (1 - light) * torch.sigmoid(distance / 0.05))


def _move(faces: Tensor, turn: Tensor, zoom: float, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Turned (radians), enlarged and shifted (in parts of the side); what comes in from outside repeats the border."""
    cosine, sine = torch.cos(turn.flatten()) / zoom, torch.sin(turn.flatten()) / zoom
    rows = [
        torch.stack([cosine, -sine, -2 * shift_x.flatten()], dim=1),
        torch.stack([sine, cosine, -2 * shift_y.flatten()], dim=1),
    ]
    grid = nn.functional.affine_grid(torch.stack(rows, dim=1), list(faces.shape), align_corners=False)
    return nn.functional.grid_sample(faces.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)


def _rotation(faces: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    side = _uniform(faces, -1, 1, generator).sign()
    nowhere = torch.zeros(len(faces))
    return _move(faces, math.radians(degrees) * side, 1, nowhere, nowhere)


def _smaller(faces: Tensor, share: float, _: torch.Generator) -> Tensor:
    size = faces.shape[-1]
    border = round(size * (1 - share) / 2)
    small = functional.resize(faces, [size - 2 * border] * 2, antialias=True)
    return nn.functional.pad(small.float(), [border] * 4, mode="replicate")


def _larger(faces: Tensor, share: float, _: torch.Generator) -> Tensor:
    nowhere = torch.zeros(len(faces))
    return _move(faces, nowhere, share, nowhere, nowhere)


def _shift(faces: Tensor, share: float, generator: torch.Generator) -> Tensor:
    angle = _uniform(faces, 0, 2 * math.pi, generator)
    return _move(faces, torch.zeros(len(faces)), 1, share * torch.cos(angle), share * torch.sin(angle))


def _cover(faces: Tensor, top: float, bottom: float, width: float, generator: torch.Generator) -> Tensor:
    """An upright rectangle in the middle, between two heights in parts of the side, in one gray for each face."""
    y, x = _places(faces)
    inside = (y >= top) & (y < bottom) & ((x - 0.5).abs() < width / 2)
    return torch.where(inside, _uniform(faces, 0, 255, generator), faces.float())


def _cover_eyes(faces: Tensor, height: float, generator: torch.Generator) -> Tensor:
    return _cover(faces, _EYES - height / 2, _EYES + height / 2, 0.8, generator)


def _cover_mouth(faces: Tensor, height: float, generator: torch.Generator) -> Tensor:
    return _cover(faces, _MOUTH - height / 2, _MOUTH + height / 2, 0.6, generator)


def _cover_lower(faces: Tensor, height: float, generator: torch.Generator) -> Tensor:
    return _cover(faces, 1 - height, 1, 0.8, generator)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("standard deviation, share of white", (0.02, 0.04, 0.06, 0.08, 0.1), _gaussian_noise),
    "shot_noise": Corruption("photons of a white pixel", (250, 100, 50, 30, 15), _shot_noise),
    "defocus": Corruption("Gaussian blur, sigma in pixels of 48", (0.5, 0.8, 1.1, 1.5, 2), _defocus),
    "motion_blur": Corruption("length in pixels of 48", (3, 5, 7, 9, 11), _motion_blur),
    "resolution": Corruption("pixels per side", (32, 24, 16, 12, 8), _resolution),
    "jpeg": Corruption("JPEG quality", (40, 25, 15, 10, 5), _jpeg),
    "brighter": Corruption("times as bright, clipped at white", (1.2, 1.5, 1.9, 2.4, 3), _brightness),
    "darker": Corruption("times as bright, in whole gray values", (0.3, 0.15, 0.08, 0.04, 0.02), _brightness),
    "contrast": Corruption("share of the contrast, in whole gray values", (0.3, 0.15, 0.08, 0.04, 0.02), _contrast),
    "shade": Corruption("light left in the shadow of one side", (0.6, 0.4, 0.25, 0.15, 0.08), _shade),
    "rotation": Corruption("degrees to either side", (10, 20, 30, 45, 60), _rotation),
    "smaller": Corruption("share of its usual size", (0.9, 0.8, 0.7, 0.625, 0.55), _smaller),
    "larger": Corruption("times its usual size", (1.06, 1.12, 1.18, 1.24, 1.3), _larger),
    "shift": Corruption("share of the side, in any direction", (0.08, 0.15, 0.22, 0.28, 0.34), _shift),
    "eyes_covered": Corruption("height of the bar, share of the side", (0.08, 0.13, 0.18, 0.23, 0.28), _cover_eyes),
    "mouth_covered": Corruption("height of the bar, share of the side", (0.1, 0.16, 0.22, 0.28, 0.34), _cover_mouth),
    "lower_half_covered": Corruption(
        "height of the mask, share of the side", (0.25, 0.32, 0.39, 0.46, 0.53), _cover_lower
    ),
}
