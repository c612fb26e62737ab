"""Augmentation of whole batches in plain torch, with different parameters for every face.

Knows nothing of files, labels' names or networks. torchvision's v2 transforms draw one set of parameters per call, so
a batch would be transformed alike; kornia does it per sample at more than twice the time.
"""

import math

import torch
from torch import Tensor, nn


class Augment(nn.Module):
    """Flip, rotation, scale, translation, brightness, contrast and random erasing, drawn anew for every face.

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
        flip: float = 0.5,
        rotation: float = 10.0,
        scale: tuple[float, float] = (0.9, 1.15),
        translate: float = 0.08,
        brightness: float = 0.1,
        contrast: float = 0.1,
        erase: float = 0.4,
        erase_area: tuple[float, float] = (0.02, 0.2),
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

    def _uniform(self, like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(len(like), device=like.device).uniform_(low, high)

    def _move(self, pixels: Tensor) -> Tensor:
        """One affine resampling per face; what comes in from outside repeats the border.

        Bicubic, because bilinear resampling blurs: it takes a third of the differences between neighbouring pixels
        (squared), bicubic a sixth, and a network that never saw a sharp face in training is worse on those of the test.
        """
        angle = self._uniform(pixels, -self.rotation, self.rotation)
        zoom = 1 / self._uniform(pixels, *self.scale)  # the matrix maps output to input coordinates
        mirror = 1 - 2 * (self._uniform(pixels, 0, 1) < self.flip).float()
        cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        shift_x, shift_y = (self._uniform(pixels, -2 * self.translate, 2 * self.translate) for _ in "xy")
        rows = [
            torch.stack([cosine * mirror, -sine, shift_x], dim=1),
            torch.stack([sine * mirror, cosine, shift_y], dim=1),
        ]
        grid = nn.functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
        moved = nn.functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return moved.clamp_(0, 255)  # bicubic weights may be negative

    def _light(self, pixels: Tensor) -> Tensor:
        gain = self._uniform(pixels, 1 - self.contrast, 1 + self.contrast).view(-1, 1, 1, 1)
        offset = 255 * self._uniform(pixels, -self.brightness, self.brightness).view(-1, 1, 1, 1)
        mean = pixels.mean(dim=(2, 3), keepdim=True)
        return ((pixels - mean) * gain + mean + offset).clamp_(0, 255)

    def _erase(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        area = self._uniform(pixels, *self.erase_area) * height * width
        aspect = torch.exp(self._uniform(pixels, -math.log(3), math.log(3)))
        box_height = torch.sqrt(area * aspect).clamp_(max=height)
        box_width = torch.sqrt(area / aspect).clamp_(max=width)
        top = self._uniform(pixels, 0, 1) * (height - box_height)
        left = self._uniform(pixels, 0, 1) * (width - box_width)
        y = torch.arange(height, device=pixels.device) + 0.5
        x = torch.arange(width, device=pixels.device) + 0.5
        inside_y = (y >= top[:, None]) & (y < (top + box_height)[:, None])
        inside_x = (x >= left[:, None]) & (x < (left + box_width)[:, None])
        chosen = self._uniform(pixels, 0, 1) < self.erase
        inside = (inside_y[:, :, None] & inside_x[:, None, :] & chosen[:, None, None]).unsqueeze(1)
        paint = self._uniform(pixels, 0, 255).view(-1, 1, 1, 1)
        return torch.where(inside, paint, pixels)


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
    weight = torch.distributions.Beta(alpha, alpha).sample((len(faces),)).to(faces.device)
    partner = torch.randperm(len(faces), device=faces.device)
    if targets.ndim == 1:
        targets = nn.functional.one_hot(targets, num_classes).float()
    blended = torch.lerp(faces[partner], faces, weight.view(-1, 1, 1, 1))
    return blended, torch.lerp(targets[partner], targets, weight.view(-1, 1))
