"""What trained networks say about faces: one network or several, one view of a face or several.

Knows nothing of metrics, pictures or files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor

from fer.classifier import EmotionClassifier
from fer.data.loader import FaceLoader
from fer.models.network import EmotionNetwork
from fer.training.run import choose_precision

_CROP = 44  # of 48 pixels
_BATCH = 128  # larger ones leave the processor's cache: 512 took 1.6 times as long


def _none(faces: Tensor) -> list[Tensor]:
    return [faces]


def _flip(faces: Tensor) -> list[Tensor]:
    return [faces, faces.flip(-1)]


def _ten_crops(faces: Tensor) -> list[Tensor]:
    """Four corners and the centre, as they are and mirrored (Krizhevsky et al., NIPS 2012)."""
    far = faces.shape[-1] - _CROP
    places = [(0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)]
    crops = [faces[..., top : top + _CROP, left : left + _CROP] for top, left in places]
    return [view for crop in crops for view in (crop, crop.flip(-1))]


# Test-time augmentation: from faces uint8 (N, 1, 48, 48) to as many sets of N views. The network resizes crops itself.
VIEWS: dict[str, Callable[[Tensor], list[Tensor]]] = {"none": _none, "flip": _flip, "tencrop": _ten_crops}


@dataclass(frozen=True)
class Predictions:
    """What one network says about N faces.

    Attributes:
        logits: float32 (V, N, C), of V views.
    """

    logits: Tensor

    def probabilities(self, temperature: float) -> Tensor:
        """Mean over the views of softmax(logits / temperature), float64 (N, C).

        The temperature is applied to each view and not to their mean, because it was fitted on single views: each
        is calibrated by it, and no second temperature is needed that inference would not know.
        """
        return torch.softmax(self.logits.double() / temperature, dim=2).mean(dim=0)


def predict(cfg: DictConfig, network: EmotionNetwork, faces: Tensor, tta: str = "none") -> Predictions:
    """Runs `network` over faces with the accelerator and precision of `cfg.trainer`, in one process.

    Args:
        cfg: a `TrainConfig`.
        network: raw faces to logits.
        faces: uint8 (N, 1, 48, 48).
        tta: a key of `VIEWS`.
    """
    accelerator = cfg.trainer.get("accelerator", "auto")
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=choose_precision(cfg.trainer.get("precision", "auto"), accelerator),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=True,
    )
    classifier = EmotionClassifier(network)
    nothing = torch.zeros(len(faces), dtype=torch.int64)  # the loader wants targets
    logits = []
    for view in VIEWS[tta](faces):
        batches: Any = trainer.predict(classifier, FaceLoader(view, nothing, _BATCH))
        logits.append(torch.cat([batch for batch, _ in batches]).cpu())
    return Predictions(torch.stack(logits))
