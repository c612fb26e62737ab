"""CUDA graphs: what a step does to the device is recorded once, and replayed without the host launching each kernel.

Most kernels of a step are so small that the device waits for the host (docs/training.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor

from fer.classifier import EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.errors import UserError, first_line

T = TypeVar("T")
Function = Callable[..., T]
Record = Callable[[Function[Any], tuple[Tensor, ...]], Function[Any]]

_WARM_UP = 3  # calls before the recording: libraries choose their kernels and take their memory in the first ones


class Recorded(Generic[T]):
    """A function of tensors that is recorded when it is called for the fourth time, and replayed from then on.

    One recording for each set of shapes. What a replay returns is overwritten by the next one.

    Args:
        function: from tensors to tensors; it does the same for the same shapes and the same `key`, and never waits for
            the device.
        key: what else decides what it does.
        record: makes the recording of a function with the tensors that it is called with, and returns what replays it.
    """

    def __init__(self, function: Function[T], key: Callable[[], object], record: Record) -> None:
        self._function = function
        self._key = key
        self._record = record
        self._calls: Counter[object] = Counter()
        self._replays: dict[object, Function[T]] = {}

    def __call__(self, *given: Tensor) -> T:
        """What the function returns for these tensors."""
        key = (self._key(), *((tensor.shape, tensor.dtype) for tensor in given))
        if key in self._replays:
            return self._replays[key](*given)
        self._calls[key] += 1
        if self._calls[key] <= _WARM_UP:
            return self._function(*given)
        self._replays[key] = self._record(self._function, given)
        return self._replays[key](*given)


def on_cuda(function: Function[T], given: tuple[Tensor, ...]) -> Function[T]:
    """Records a function as a CUDA graph: nothing is computed until it is replayed.

    Random numbers are drawn anew in each replay, from where the device's generator stands, as the function would.

    Raises:
        UserError: the function does what cannot be recorded.
    """
    own = [tensor.clone() for tensor in given]
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            results = function(*own)
    except RuntimeError as error:
        # What the function itself ran into is the context of what the end of a broken recording raises.
        raise UserError(
            f"graphs=true: a step cannot be recorded ({first_line(error.__context__ or error)}); leave graphs at false"
        ) from error

    def replay(*given: Tensor) -> T:
        for mine, tensor in zip(own, given, strict=True):
            mine.copy_(tensor)
        graph.replay()
        return results

    return replay


def record_steps(classifier: EmotionClassifier, datamodule: FER2013DataModule, record: Record = on_cuda) -> None:
    """Lets a training record its steps (forward, losses, counts and gradients), and what makes their batches."""
    classifier.recorded = Recorded(classifier.gradients, lambda: classifier.network.training_size, record)
    if datamodule.changes():  # an empty recording is a mistake for CUDA
        datamodule.recorded = Recorded(datamodule.augmented, lambda: None, record)


def obstacle(trainer: L.Trainer) -> str | None:
    """Why the steps of a trainer cannot be recorded; None where they can."""
    precision, profiler = trainer.precision_plugin, getattr(trainer, "profiler", None)
    reasons = {
        "there is no CUDA device": trainer.strategy.root_device.type != "cuda",
        "several processes share the work": trainer.world_size > 1,
        "gradients are accumulated": trainer.accumulate_grad_batches != 1,
        "float16 scales its losses": isinstance(precision, MixedPrecision) and precision.scaler is not None,
        "anomalies are looked for": trainer._detect_anomaly,
        "a profiler watches": not isinstance(profiler, PassThroughProfiler),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
