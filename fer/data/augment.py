"""Augmentation of whole batches in plain torch, with different parameters for every face.

Knows nothing of files, labels' names or networks. torchvision's v2 transforms draw one set of parameters per call, so
a batch would be transformed alike; kornia does it per sample at more than twice the time.
"""

import math

import torch
from torch import Tensor, nn

# The quantisation table of luminance of the JPEG standard (ITU-T T.81, table K.1), at quality 50.
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


class Augment(nn.Module):
    """Flip, rotation, scale, translation, brightness, contrast and random erasing, drawn anew for every face.

    `fer.settings.train.AugmentSettings` has the defaults.

    Args:
        flip: probability of a mirror image.
        rotation: largest angle in degrees, to either side.
        scale: smallest and largest zoom; above 1 the face is drawn larger.
        translate: largest shift, as a fraction of the side, along each axis.
        brightness: largest change of gray value, as a fraction of 255.
        contrast: largest change of contrast, as a fraction.
        erase: probability that a rectangle is painted over (Zhong et al., arXiv 1708.04896).
        erase_area: smallest and largest area of that rectangle, as a fraction of the face.
    """

    def __init__(
        self,
        flip: float,
        rotation: float,
        scale: tuple[float, float],
        translate: float,
        brightness: float,
        contrast: float,
        erase: float,
        erase_area: tuple[float, float],
    ) -> None:
        super().__init__()
        self.flip = flip
        self.rotation = math.radians(rotation)
        self.scale = tuple(scale)
        self.translate = translate
        self.brightness = brightness
        self.contrast = contrast
        self.erase = erase
        self.erase_area = tuple(erase_area)

    @torch.no_grad()
    def forward(self, faces: Tensor) -> Tensor:
        """uint8 faces (B, 1, H, W) to float32 faces of the same shape, gray values 0 to 255, on the same device."""
        pixels = self._move(faces.float())
        pixels = self._light(pixels)
        return self._erase(pixels)

    def _move(self, pixels: Tensor) -> Tensor:
        """One affine resampling per face; what comes in from outside repeats the border.

        Bicubic, because bilinear resampling blurs: it takes a third of the differences between neighbouring pixels
        (squared), bicubic a sixth, and a network that never saw a sharp face in training is worse on those of the test.
        """
        angle = _uniform(pixels, -self.rotation, self.rotation)
        zoom = 1 / _uniform(pixels, *self.scale)  # the matrix maps output to input coordinates
        mirror = 1 - 2 * (_uniform(pixels, 0, 1) < self.flip).float()
        cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        shift_x, shift_y = (_uniform(pixels, -2 * self.translate, 2 * self.translate) for _ in "xy")
        rows = [
            torch.stack([cosine * mirror, -sine, shift_x], dim=1),
            torch.stack([sine * mirror, cosine, shift_y], dim=1),
        ]
        grid = nn.functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
        moved = nn.functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return moved.clamp_(0, 255)  # bicubic weights may be negative

    def _light(self, pixels: Tensor) -> Tensor:
        gain = _uniform(pixels, 1 - self.contrast, 1 + self.contrast).view(-1, 1, 1, 1)
        offset = 255 * _uniform(pixels, -self.brightness, self.brightness).view(-1, 1, 1, 1)
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        return ((pixels - mean) * gain + mean + offset).clamp_(0, 255)

    def _erase(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        area = _uniform(pixels, *self.erase_area) * height * width
        aspect = torch.exp(_uniform(pixels, -math.log(3), math.log(3)))
        box_height = torch.sqrt(area * aspect).clamp_(max=height)
        box_width = torch.sqrt(area / aspect).clamp_(max=width)
        top = _uniform(pixels, 0, 1) * (height - box_height)
        left = _uniform(pixels, 0, 1) * (width - box_width)
        y = torch.arange(height, device=pixels.device) + 0.5
        x = torch.arange(width, device=pixels.device) + 0.5
        inside_y = (y >= top[:, None]) & (y < (top + box_height)[:, None])
        inside_x = (x >= left[:, None]) & (x < (left + box_width)[:, None])
        chosen = _uniform(pixels, 0, 1) < self.erase
        inside = (inside_y[:, :, None] & inside_x[:, None, :] & chosen[:, None, None]).unsqueeze(1)
        paint = _uniform(pixels, 0, 255).view(-1, 1, 1, 1)
        return torch.where(inside, paint, pixels)


class Degrade(nn.Module):
    """What a bad camera does: blur or lower resolution, noise, JPEG, drawn anew for every face.

    Args:
        probability: of each of the three steps.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self._table = torch.tensor(_QUANTISATION, dtype=torch.float32)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Float32 faces (B, 1, S, S), gray values 0 to 255, to others of the same shape, on the same device."""
        pixels = self._soften(pixels)
        pixels = self._grain(pixels)
        return self._compress(pixels)

    def _chosen(self, pixels: Tensor) -> Tensor:
        """The faces that a step happens to, bool (B,)."""
        return _uniform(pixels, 0, 1) < self.probability

    def _soften(self, pixels: Tensor) -> Tensor:
        """Half of the chosen are blurred (sigma up to 2 pixels of 48), half reduced (to 12 to 36 pixels) and enlarged.

        Both are separable and linear: each face is multiplied from either side by one matrix (S, S) of its own.
        """
        size = pixels.shape[-1]
        centres = torch.arange(size, device=pixels.device) + 0.5
        between = centres[:, None] - centres
        sigma = _uniform(pixels, 0.4, 2.0).view(-1, 1, 1) * size / 48
        blurred = torch.softmax(-(between**2) / (2 * sigma**2), dim=2)
        # Triangles as wide as a large pixel, to reduce and to enlarge again: the bilinear filter of torchvision.
        pitch = 48 / _uniform(pixels, 12.0, 36.0).view(-1, 1, 1)
        large = centres[None, :, None] * pitch
        triangles = (1 - (centres - large).abs() / pitch).clamp(min=0) * (large < size)  # (B, large pixel, pixel)
        reduce = triangles / triangles.sum(dim=2, keepdim=True).clamp(min=1e-6)
        enlarge = (triangles / triangles.sum(dim=1, keepdim=True).clamp(min=1e-6)).transpose(1, 2)
        coarse = (_uniform(pixels, 0, 1) < 0.5).view(-1, 1, 1)
        soft = torch.where(coarse, enlarge @ reduce, blurred)
        sharp = torch.eye(size, device=pixels.device)
        matrix = torch.where(self._chosen(pixels).view(-1, 1, 1), soft, sharp).unsqueeze(1)
        return matrix @ pixels @ matrix.transpose(2, 3)

    def _grain(self, pixels: Tensor) -> Tensor:
        """Noise of a sensor: a variance that is constant, and one that grows with the light (Foi et al. 2008)."""
        constant = _uniform(pixels, 0, 0.05).view(-1, 1, 1, 1) ** 2
        by_light = _uniform(pixels, 0, 0.02).view(-1, 1, 1, 1)  # of 50 photons for a white pixel at most
        deviation = 255 * torch.sqrt(constant + by_light * pixels.clamp(0, 255) / 255)
        noisy = (pixels + deviation * torch.randn_like(pixels)).clamp_(0, 255)
        return torch.where(self._chosen(pixels).view(-1, 1, 1, 1), noisy, pixels)

    def _compress(self, pixels: Tensor) -> Tensor:
        """JPEG of quality 10 to 60 but for its lossless part: the cosine transform of 8x8 blocks, rounded."""
        height, width = pixels.shape[-2:]
        padded = nn.functional.pad(pixels, [0, -width % 8, 0, -height % 8], mode="replicate")
        blocks = (padded - 128).unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 1, rows, columns, 8, 8)
        step = torch.arange(8, device=pixels.device)
        cosines = torch.cos(math.pi / 8 * step[:, None] * (step + 0.5)) / 2
        cosines[0] /= math.sqrt(2)
        quality = _uniform(pixels, 10, 60).view(-1, 1, 1)
        percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)  # libjpeg's meaning of quality
        self._table = self._table.to(pixels.device)  # once: to copy it is to wait for the device
        table = torch.floor((self._table * percent + 50) / 100).clamp(1, 255)[:, None, None, None]
        rounded = torch.round(cosines @ blocks @ cosines.T / table) * table
        decoded = (cosines.T @ rounded @ cosines + 128).clamp_(0, 255)
        rows = decoded.transpose(3, 4).reshape(padded.shape)
        return torch.where(self._chosen(pixels).view(-1, 1, 1, 1), rows[..., :height, :width], pixels)


def _uniform(like: Tensor, low: float, high: float) -> Tensor:
    """A number for each face, (B,)."""
    return torch.empty(len(like), device=like.device).uniform_(low, high)


def mixup(faces: Tensor, targets: Tensor, num_classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Every face blended with another of the batch, its target likewise (Zhang et al., arXiv 1710.09412).

    Args:
        faces: float (B, 1, H, W).
        targets: int64 (B,), or float (B, num_classes) when they are distributions already.
        num_classes: width of the new targets.
        alpha: of the Beta distribution that the weights are drawn from, above 0.

    Returns:
        Faces as before, and targets as float (B, num_classes).
    """
    # Drawn where the faces are: to copy something to a device is to wait for it, as is to check an argument there. Not
    # on Apple's GPUs, which cannot draw them.
    parameter = torch.full((), alpha, device="cpu" if faces.device.type == "mps" else faces.device)
    weight = torch.distributions.Beta(parameter, parameter, validate_args=False).sample((len(faces),)).to(faces.device)
    partner = torch.randperm(len(faces), device=faces.device)
    targets = as_distributions(targets, num_classes)
    blended = torch.lerp(faces[partner], faces, weight.view(-1, 1, 1, 1))
    return blended, torch.lerp(targets[partner], targets, weight.view(-1, 1))


def as_distributions(targets: Tensor, num_classes: int) -> Tensor:
    """Targets int64 (B,) as float (B, num_classes), 1 for the class; others as they are."""
    if targets.ndim == 2:
        return targets
    return torch.zeros(len(targets), num_classes, device=targets.device).scatter_(1, targets.unsqueeze(1), 1.0)
