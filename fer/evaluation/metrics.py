"""Every number of a test report, from probabilities and targets. Knows nothing of networks, files or pictures."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from fer.abstention import risk_coverage
from fer.calibration import ECE_BINS
from fer.evaluation.bootstrap import interval95

WRONG_AT_90 = 0.1  # share of false alarms at a precision of 90 %
FEWEST_CALLS = 10  # of fewer images a precision of 90 % is luck
HEADLINE = ("accuracy", "f1", "precision", "recall")


def compute_metrics(probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of one split, as plain numbers.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: int64 (N,), N > 0.
        classes: names in the order of the columns.

    Returns:
        "accuracy" over all images; "f1", "precision" and "recall" as the mean over classes and as "weighted_...";
        "balanced_accuracy"; "auroc" and "average_precision" one class against the rest, mean over classes; "loss"
        (negative log-likelihood), "brier" (sum over classes), "ece" (15 bins), "confidence" (mean of the highest
        probability); "images"; "interval95" with [low, high] for the numbers before "ece" (see
        `fer.evaluation.bootstrap`); "per_class" with the same by class and the number of images; "confusion_matrix"
        with targets as rows. Means leave out classes that are neither among the targets nor predicted, as
        scikit-learn's do. AUROC and average precision of a class without images are None.
    """
    count = len(classes)
    probabilities = probabilities.double()
    by_average: dict[str, Callable[..., Tensor]] = {
        "f1": multiclass_f1_score,
        "precision": multiclass_precision,
        "recall": multiclass_recall,
    }
    matrix = multiclass_confusion_matrix(probabilities, targets, count)
    present = matrix.sum(dim=1)
    found = interval95(probabilities.numpy(), targets.numpy())
    by_class: dict[str, list[float | None]] = {
        name: score(probabilities, targets, count, average=None).tolist() for name, score in by_average.items()
    }
    for name, ranking in (("auroc", binary_auroc), ("average_precision", binary_average_precision)):
        by_class[name] = [
            float(ranking(probabilities[:, index], (targets == index).long())) if 0 < images < len(targets) else None
            for index, images in enumerate(present.tolist())
        ]
    recall = multiclass_recall(probabilities, targets, count, average=None)
    one_hot = torch.nn.functional.one_hot(targets, count)
    metrics: dict[str, Any] = {
        "images": len(targets),
        "accuracy": float(multiclass_accuracy(probabilities, targets, count, average="micro")),
    }
    for prefix, average in (("", "macro"), ("weighted_", "weighted")):
        for name, score in by_average.items():
            metrics[f"{prefix}{name}"] = float(score(probabilities, targets, count, average=average))
    metrics["balanced_accuracy"] = float(recall[present > 0].mean())
    for name in ("auroc", "average_precision"):
        known = [value for value in by_class[name] if value is not None]
        metrics[name] = sum(known) / len(known) if known else None
    metrics["loss"] = float(torch.nn.functional.nll_loss(probabilities.clamp(min=1e-12).log(), targets))
    metrics["brier"] = float(((probabilities - one_hot) ** 2).sum(dim=1).mean())
    metrics["ece"] = float(multiclass_calibration_error(probabilities, targets, count, n_bins=ECE_BINS))
    metrics["confidence"] = float(probabilities.amax(dim=1).mean())
    class_intervals = found.pop("per_class")
    metrics["interval95"] = found
    metrics["per_class"] = {
        name: {
            "images": int(present[index]),
            **{key: values[index] for key, values in by_class.items()},
            "interval95": {key: values[index] for key, values in class_intervals.items()},
        }
        for index, name in enumerate(classes)
    }
    metrics["confusion_matrix"] = matrix.tolist()
    return metrics


def choose_thresholds(
    probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    """The probabilities from which on a class would be called present, each class against the rest.

    Args:
        probabilities: float (N, C), N > 0.
        targets: int64 (N,).
        classes: names in the order of the columns.

    Returns:
        By class "precision_90", the lowest threshold at which 90 % of at least 10 calls are right, None where none is
        so good; and "best_f1". A class without images has None for both.
    """
    chosen: dict[str, dict[str, float | None]] = {}
    for index, name in enumerate(classes):
        positive = (targets == index).numpy()
        thresholds, share_called, wrong = risk_coverage(probabilities[:, index].double().numpy(), positive)
        called = (share_called * len(positive)).round()
        f1 = 2 * called * (1 - wrong) / (called + positive.sum())
        precise = np.flatnonzero(
            (wrong <= WRONG_AT_90) & (called >= FEWEST_CALLS)
        )  # thresholds fall, so the last one finds the most
        chosen[name] = {
            "precision_90": float(thresholds[precise[-1]]) if len(precise) else None,
            "best_f1": float(thresholds[f1.argmax()]) if positive.any() else None,
        }
    return chosen


def judge_thresholds(
    probabilities: Tensor,
    targets: Tensor,
    classes: tuple[str, ...],
    thresholds: dict[str, dict[str, float | None]],
) -> dict[str, dict[str, dict[str, Any] | None]]:
    """What thresholds of `choose_thresholds` do on a split, perhaps another one.

    Returns:
        By class and kind of threshold: "threshold", "called" (images at or above it), "precision", "f1",
        "true_positive_rate", "false_positive_rate"; a share of nothing is None. None where there is no threshold.
    """
    judged: dict[str, dict[str, dict[str, Any] | None]] = {}
    for index, name in enumerate(classes):
        positive, judged[name] = targets == index, {}
        for kind, threshold in thresholds[name].items():
            if threshold is None:
                judged[name][kind] = None
                continue
            called = probabilities[:, index].double() >= threshold
            true, false = int((called & positive).sum()), int((called & ~positive).sum())
            judged[name][kind] = {
                "threshold": threshold,
                "called": true + false,
                "precision": _share(true, true + false),
                "f1": _share(2 * true, true + false + int(positive.sum())),
                "true_positive_rate": _share(true, int(positive.sum())),
                "false_positive_rate": _share(false, int((~positive).sum())),
            }
    return judged


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
