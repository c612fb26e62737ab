"""Temperatures and minimum confidences, fitted on validation rows, and how far confidences are from the truth.

Sources: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599; that a perfectly calibrated network
has an error above 0 on few rows, and how large a one: Kumar et al., Verified Uncertainty Calibration, arXiv 1909.10155.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer.abstention import answers, halves, thresholds
from fer.checkpoint import SPEC_KEY, network_of, read_checkpoint, write_checkpoint
from fer.models.network import EmotionNetwork
from fer.predict import Predictions, predict

ECE_BINS = 15
AVERAGING = ("none", "flip")  # kinds of averaging over views that get a temperature
_DRAWS = 200  # of right and wrong answers from confidences


def calibrate(checkpoint: Path, faces: Tensor, targets: Tensor, trainer: Mapping[str, Any]) -> None:
    """Fits temperatures and minimum confidences, and writes them into the checkpoint; without rows nothing.

    Args:
        checkpoint: the file.
        faces: validation rows, uint8 (N, 1, S, S).
        targets: int64 (N,).
        trainer: arguments of Lightning's Trainer, of which accelerator and precision are used.

    Raises:
        UserError: the checkpoint cannot be read.
        OSError: it cannot be written; it is untouched then.
    """
    if len(targets):
        content = read_checkpoint(checkpoint)
        content[SPEC_KEY] |= fit(network_of(checkpoint, content), faces, targets, trainer)
        write_checkpoint(content, checkpoint)


def fit(
    network: EmotionNetwork, faces: Tensor, targets: Tensor, trainer: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """ "temperatures" and "thresholds", as a `NetworkSpec` has them; arguments as for `calibrate`."""
    found = {tta: predict(network, faces, trainer, tta) for tta in AVERAGING}
    temperatures = {tta: fit_temperature(of_views.logits, targets) for tta, of_views in found.items()}
    single = found["none"].probabilities(temperatures["none"])
    return {"temperatures": temperatures, "thresholds": thresholds(single.numpy(), targets.numpy())}


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of the mean over views of `softmax(logits / T)`.

    Args:
        logits: float (V, N, C) of V views of the validation split.
        targets: int64 (N,).
    """
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        of_views = nn.functional.log_softmax(logits.double() / log_temperature.exp(), dim=2)
        loss = nn.functional.nll_loss(torch.logsumexp(of_views, dim=0) - math.log(len(logits)), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp().clamp(0.05, 20))


def calibration_error(confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error over 15 bins of equal width; both (N,), N > 0."""
    bins = np.ceil(confidence * ECE_BINS)  # a bin holds its upper end
    gaps = np.bincount(bins.astype(np.int64), right - confidence, ECE_BINS + 1)
    return float(np.abs(gaps).sum() / len(right))


def error_of_perfect_calibration(confidence: npt.NDArray[np.float64]) -> float:
    """The mean calibration error of as many answers, each right as often as its confidence says: (N,), N > 0."""
    rng = np.random.default_rng(0)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(_DRAWS))
    return float(np.mean([calibration_error(confidence, right) for right in drawn]))


def measure_calibration(probabilities: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> dict[str, float]:
    """ "ece" of a split, and "ece_expected", what a perfectly calibrated network would have with its confidences.

    Args:
        probabilities: (N, C), N > 0.
        targets: (N,).
    """
    confidence, right = answers(probabilities, targets)
    return {"ece": calibration_error(confidence, right), "ece_expected": error_of_perfect_calibration(confidence)}


def measure_on_halves(predictions: Predictions, targets: Tensor) -> dict[str, float]:
    """The same where the temperature is fitted on one half and judged on the other: means over 20 random divisions.

    On the rows that it was fitted on, a temperature looks better than it is.

    Args:
        predictions: of the N validation rows, N > 1.
        targets: int64 (N,).
    """
    found = []
    for fitted, judged in (map(torch.from_numpy, pair) for pair in halves(len(targets))):
        temperature = fit_temperature(predictions.logits[:, fitted], targets[fitted])
        probabilities = Predictions(predictions.logits[:, judged]).probabilities(temperature)
        found.append(measure_calibration(probabilities.numpy(), targets[judged].numpy()))
    return {key: float(np.mean([each[key] for each in found])) for key in found[0]}
