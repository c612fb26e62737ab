"""The metrics of a report, and how far they would move with other test images: the bootstrap over images.

Every resample draws as many images as there are, with replacement. Knows nothing of networks, files or pictures.
Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993 (percentile interval).
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weight = TypeVar("Weight", np.float32, np.float64)  # of an image: how often it counts

RESAMPLES = 2000
_ENDS = (2.5, 97.5)  # of a 95 % interval
_CELLS = 4_000_000  # resamples times images that are held at once


def measure(probabilities: Array, targets: npt.NDArray[np.int64]) -> dict[str, Array]:
    """The metrics of all images, each counted once.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: int64 (N,).

    Returns:
        By name: a number, for a metric by class (C,) under "per_class/NAME", and "confusion_matrix" (C, C), targets as
        rows. Recall, precision and F1 of what is nowhere are 0; a ranking that needs images of a class and of others is
        NaN without them.
    """
    classes = probabilities.shape[1]
    once = np.ones((1, len(targets)))
    sums = _summands(probabilities, targets, np.float64)
    found = {name: values[0] for name, values in _metrics(once, sums, probabilities, targets).items()}
    for name in ("f1", "precision", "recall"):
        found[f"per_class/{name}"] = np.nan_to_num(found[f"per_class/{name}"])
    return found | {"confusion_matrix": sums[:, : classes * classes].sum(axis=0).reshape(classes, classes)}


def bootstrap(
    probabilities: Array, targets: npt.NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Array]:
    """The metrics of `measure` on resampled images.

    All but the ECE: a sum of absolute values grows under resampling, so that its interval may lie above its estimate.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: int64 (N,).
        resamples: B.
        seed: of the drawing; the same seed draws the same images for every network.

    Returns:
        Values by name: (B,) for a number over all images, (B, C) under "per_class/NAME"; NaN where a resample leaves
        a class without images.
    """
    count = len(targets)
    sums = _summands(probabilities, targets, np.float32)
    blocks = draw(count, resamples, max(1, _CELLS // count), np.random.default_rng(seed))
    parts = [_metrics(weights, sums, probabilities, targets) for weights in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw(count: int, resamples: int, block: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.float32]]:
    """How often each of `count` images is drawn in each resample: (`block`, count) at once, the last block the rest."""
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float32)


def interval95(probabilities: Array, targets: npt.NDArray[np.int64], seed: int = 0) -> dict[str, Any]:
    """95 % percentile intervals of `bootstrap`.

    Returns:
        [low, high] by name, None where there is nothing to rank; "per_class" holds a list of C such pairs by name, None
            for a class without images.
    """
    result: dict[str, Any] = {"per_class": {}}
    for name, values in bootstrap(probabilities, targets, seed=seed).items():
        if values.ndim == 1:
            result[name] = _interval(values)
        else:
            result["per_class"][name.removeprefix("per_class/")] = list(map(_interval, values.T))
    return result


def _interval(values: Array) -> list[float] | None:
    if np.isnan(values).all():
        return None
    ends: list[float] = np.nanpercentile(values, _ENDS).tolist()
    return ends


def _summands(probabilities: Array, targets: npt.NDArray[np.int64], precision: type[Weight]) -> npt.NDArray[Weight]:
    """(N, C * C + 2): what each image adds to the confusion matrix, the loss and the Brier score."""
    count, classes = probabilities.shape
    cell = np.eye(classes * classes, dtype=precision)[targets * classes + probabilities.argmax(axis=1)]
    loss = -np.log(np.maximum(probabilities[np.arange(count), targets], 1e-12))
    brier = ((probabilities - np.eye(classes)[targets]) ** 2).sum(axis=1)
    return np.hstack([cell, loss[:, None], brier[:, None]]).astype(precision)


def _metrics(
    weights: npt.NDArray[Weight],
    summands: npt.NDArray[Weight],
    probabilities: Array,
    targets: npt.NDArray[np.int64],
) -> dict[str, Array]:
    count, classes = probabilities.shape
    sums = (weights @ summands).astype(np.float64)
    matrix = sums[:, : classes * classes].reshape(-1, classes, classes)
    true = np.diagonal(matrix, axis1=1, axis2=2)
    support, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        by_class = {
            "f1": 2 * true / (support + predicted),
            "precision": true / predicted,
            "recall": true / support,
        }
    seen = support + predicted > 0
    result = {"accuracy": true.sum(axis=1) / count}
    for name, values in by_class.items():
        filled = np.nan_to_num(values)  # precision of a class that is never predicted: 0, as scikit-learn has it
        result[name] = (filled * seen).sum(axis=1) / seen.sum(axis=1)
        result[f"weighted_{name}"] = (filled * support).sum(axis=1) / count
        result[f"per_class/{name}"] = np.where(support > 0, filled, np.nan)
    result["balanced_accuracy"] = np.nan_to_num(by_class["recall"]).sum(axis=1) / (support > 0).sum(axis=1)
    result["loss"], result["brier"] = sums[:, -2] / count, sums[:, -1] / count
    ranked = [_ranking(weights, probabilities[:, index], targets == index) for index in range(classes)]
    for position, name in enumerate(("auroc", "average_precision")):
        values = np.stack([pair[position] for pair in ranked], axis=1)
        known = ~np.isnan(values)
        mean = np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        result[name] = np.where(known.any(axis=1), mean, np.nan)
        result[f"per_class/{name}"] = values
    return result


def _ranking(weights: npt.NDArray[Weight], scores: Array, positive: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Area under the ROC curve and average precision of one class against the rest, for each row of weights (B, N)."""
    order = np.argsort(-scores, kind="stable")
    ordered = weights[:, order]
    # Equal scores are one threshold.
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    positives = ordered * positive[order]
    if len(starts) < len(scores):
        positives = np.add.reduceat(positives, starts, axis=1)
        ordered = np.add.reduceat(ordered, starts, axis=1)
    true = np.cumsum(positives, axis=1)  # counts: exact in float32
    called = np.cumsum(ordered, axis=1)
    all_true, everything = true[:, -1].astype(np.float64), called[:, -1].astype(np.float64)
    # Each positive beats the negatives that score lower, and half of those that score alike.
    negatives_at = ordered - positives
    beaten = (everything - all_true)[:, None] - (called - true) + 0.5 * negatives_at
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (positives * beaten).sum(axis=1, dtype=np.float64) / (all_true * (everything - all_true))
        precision = true / np.maximum(called, 1)
        average = (positives * precision).sum(axis=1, dtype=np.float64) / all_true
    known = (all_true > 0) & (all_true < everything)
    return np.where(known, auroc, np.nan), np.where(known, average, np.nan)
