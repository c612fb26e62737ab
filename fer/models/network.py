"""`EmotionNetwork`: from raw uint8 faces to logits, preprocessing included, and the plain data that describes one.

Used alike by training, evaluation, live inference and export, so that they cannot disagree. Knows nothing of data
sets, losses or Lightning.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fer.labels import is_class_name
from fer.models import create

FORMAT = 2  # of NetworkSpec as stored in a checkpoint; 1 had one temperature and nothing else of what 2 has
LARGEST = 1024  # pixels per side of a face


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that is needed to build the network again; plain numbers, strings, lists and dicts.

    Attributes:
        name: see `fer.models.create`.
        classes: class names in the order of the logits.
        image_size: pixels per side to which faces are resized before the backbone.
        stem_stride: see `fer.models.create`.
        kwargs: further arguments of the backbone.
        mean: mean gray value of the training faces, in [0, 1].
        std: standard deviation of the same.
        standardise: every face is brought to mean 0 and deviation 1 by its own pixels; `mean` and `std` are not used.
            The network need not learn then that light does not matter.
        size: pixels per side at which the training faces were stored.
        temperatures: logits are divided by one before the softmax, by kind of averaging over views ("none", "flip");
            fitted on the validation split.
        thresholds: confidences above which as large a share of the answers was right as the key says ("0.9").
    """

    name: str
    classes: tuple[str, ...]
    image_size: int = 48
    stem_stride: int | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    mean: float = 0.5
    std: float = 0.25
    standardise: bool = False
    size: int = 48
    temperatures: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """That of single views; 1 where none was fitted."""
        return self.temperature_of("none")

    def temperature_of(self, averaging: str) -> float:
        """That of a kind of averaging; of one for which none was fitted, that of single views.

        "shift" has the one of "flip", which it is with small changes: its own would take ten passes to fit.
        """
        fitted = "flip" if averaging == "shift" else averaging
        return self.temperatures.get(fitted, self.temperatures.get("none", 1.0))

    def to_dict(self) -> dict[str, Any]:
        """A dict of plain data, with the format number."""
        return {"format": FORMAT, **asdict(self), "classes": list(self.classes)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "NetworkSpec":
        """The reverse of `to_dict`.

        Raises:
            ValueError: another format number, or fields missing, unknown or of another type.
        """
        data = dict(data)
        written = data.pop("format", None)
        if written not in (1, FORMAT):
            raise ValueError("it was written by another version of this project")
        if written == 1:
            data["temperatures"] = {"none": data.pop("temperature", 1.0)}
        try:
            spec = NetworkSpec(**{**data, "classes": tuple(data["classes"])})
        except (KeyError, TypeError) as error:
            raise ValueError("its description of the network is incomplete") from error
        spec._check()
        return spec

    def _check(self) -> None:
        """Raises ValueError for a field of another type or out of its range: a file may say anything."""
        plain = isinstance(self.name, str) and all(map(is_class_name, self.classes))
        if not plain or not 2 <= len(set(self.classes)) == len(self.classes):
            raise ValueError("its description of the network is not plain text, or its classes are not distinct")
        if not isinstance(self.kwargs, dict) or not all(isinstance(key, str) for key in self.kwargs):
            raise ValueError("the arguments of its network are no names with values")
        if self.stem_stride is not None and not _whole(self.stem_stride, 1, 16):
            raise ValueError(f"the stem stride of its network is {self.stem_stride!r}")
        numbers_fit = (
            _whole(self.image_size, 1, LARGEST)
            and _real(self.mean, 0, 1)
            and _real(self.std, 1e-6, 1)
            and isinstance(self.standardise, bool)
            and _whole(self.size, 16, LARGEST)
            and _reals(self.temperatures, 1e-6, 1e6)
            and _reals(self.thresholds, 0, 1)
        )
        if not numbers_fit:
            raise ValueError("a number in its description of the network is none, or out of range")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _reals(values: Any, low: float, high: float) -> bool:
    return isinstance(values, dict) and all(
        isinstance(key, str) and _real(value, low, high) for key, value in values.items()
    )


def _real(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


class EmotionNetwork(nn.Module):
    """Resize, normalise, backbone.

    Args:
        spec: what to build.
        pretrained: whether the backbone starts from ImageNet weights; never set when a checkpoint is loaded.
        backbone: one that is there already; None builds the one that `spec` names.
    """

    def __init__(self, spec: NetworkSpec, pretrained: bool = False, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.training_size = spec.image_size  # in train mode; see fer.training.callbacks.ProgressiveResizing
        self.backbone = backbone or create(
            spec.name, len(spec.classes), spec.image_size, pretrained, spec.stem_stride, spec.kwargs
        )

    def forward(self, faces: Tensor) -> Tensor:
        """Logits float (B, C), in the order of `spec.classes`.

        Args:
            faces: gray values 0 to 255, (B, 1, H, W); uint8 as they are stored, or float after augmentation.
        """
        spec = self.spec
        size = self.training_size if self.training else spec.image_size
        pixels = faces.float()
        if pixels.shape[-2:] != (size, size):
            pixels = nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        if spec.standardise:
            pixels = pixels - pixels.mean(dim=(2, 3), keepdim=True)
            deviation = pixels.square().mean(dim=(2, 3), keepdim=True).sqrt()
            pixels = pixels / deviation.clamp(min=1.0)  # a blank face has none
        else:
            pixels = (pixels - 255 * spec.mean) / (255 * spec.std)
        logits: Tensor = self.backbone(pixels)
        return logits

    @torch.inference_mode()
    def probabilities(self, faces: Tensor) -> Tensor:
        """Calibrated class probabilities, float32 (B, C); `faces` as for `forward`."""
        return torch.softmax(self(faces).float() / self.spec.temperature, dim=1)
