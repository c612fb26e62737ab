"""What a trained network says about many faces: batches, and views of test-time augmentation.

Below calibration, which fits temperatures by it, and evaluation, which reports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fer.machine import choose_precision
from fer.models.network import EmotionNetwork

_CROP = 44 / 48  # of the side
_BATCH = 128  # larger ones leave the processor's cache: 512 took 1.6 times as long


def _ten_crops(faces: Tensor) -> list[Tensor]:
    """Four corners and the centre, as they are and mirrored (Krizhevsky et al., NIPS 2012)."""
    side = round(_CROP * faces.shape[-1])
    far = faces.shape[-1] - side
    places = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    return _cut(faces, places, side, side)


def _shifts(faces: Tensor) -> list[Tensor]:
    """The face in place and moved by one pixel in four directions, and all of that mirrored.

    Edges are repeated, and nothing is resampled: a network that has learnt from sharp faces is worse on others.
    """
    padded = torch.cat([faces[..., :1, :], faces, faces[..., -1:, :]], dim=-2)  # torch pads no bytes on a GPU
    padded = torch.cat([padded[..., :1], padded, padded[..., -1:]], dim=-1)
    return _cut(padded, [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)], *faces.shape[-2:])


def _cut(faces: Tensor, places: Sequence[tuple[int, int]], height: int, width: int) -> list[Tensor]:
    """What lies at each place, given as top and left, as it is and mirrored."""
    pieces = [faces[..., top : top + height, left : left + width] for top, left in places]
    return [view for piece in pieces for view in (piece, piece.flip(-1))]


# Test-time augmentation: from faces uint8 (N, 1, S, S) to as many sets of N views. The network resizes crops itself.
VIEWS: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "none": lambda faces: [faces],
    "flip": lambda faces: [faces, faces.flip(-1)],
    "tencrop": _ten_crops,
    "shift": _shifts,
}


@dataclass(frozen=True)
class Predictions:
    """What one network says about N faces.

    Attributes:
        logits: float32 (V, N, C), of V views.
    """

    logits: Tensor

    def probabilities(self, temperature: float) -> Tensor:
        """Mean over the views of softmax(logits / temperature), float64 (N, C).

        The temperature is applied to each view and not to their mean, as it was when it was fitted.
        """
        return torch.softmax(self.logits.double() / temperature, dim=2).mean(dim=0)


def predict(network: EmotionNetwork, faces: Tensor, trainer: Mapping[str, Any], tta: str = "none") -> Predictions:
    """Runs a network over faces, in one process.

    Args:
        network: raw faces to logits.
        faces: uint8 (N, 1, S, S), of the size that the network takes.
        trainer: arguments of Lightning's Trainer, of which accelerator and precision are used.
        tta: a key of `VIEWS`.
    """
    accelerator = trainer.get("accelerator", "auto")
    precision = choose_precision(trainer.get("precision", "auto"), accelerator)
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    network = network.to(memory_format=torch.channels_last).eval()
    module = fabric.setup_module(network)
    with torch.inference_mode():
        logits = [
            torch.cat([module(fabric.to_device(batch)).float().cpu() for batch in torch.split(view, _BATCH)])
            for view in VIEWS[tta](faces)
        ]
    return Predictions(torch.stack(logits))
