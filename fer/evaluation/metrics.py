"""Every number of a test report, from probabilities and targets. Knows nothing of networks, files or pictures."""

from typing import Any

import numpy as np
from torch import Tensor

from fer.abstention import answers, risk_coverage
from fer.calibration import calibration_error
from fer.evaluation.bootstrap import interval95, measure

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
    given, true = probabilities.double().numpy(), targets.numpy()
    found, intervals = measure(given, true), interval95(given, true)
    matrix = found.pop("confusion_matrix").astype(int)
    class_intervals = intervals.pop("per_class")
    by_class = {name: found.pop(f"per_class/{name}") for name in class_intervals}
    return {
        "images": len(true),
        **{name: None if np.isnan(value) else float(value) for name, value in found.items()},
        "ece": calibration_error(*answers(given, true)),
        "confidence": float(given.max(axis=1).mean()),
        "interval95": intervals,
        "per_class": {
            name: {
                "images": int(matrix[index].sum()),
                **{key: None if np.isnan(values[index]) else float(values[index]) for key, values in by_class.items()},
                "interval95": {key: values[index] for key, values in class_intervals.items()},
            }
            for index, name in enumerate(classes)
        },
        "confusion_matrix": matrix.tolist(),
    }


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
        # Thresholds fall, so the last one finds the most.
        precise = np.flatnonzero((wrong <= WRONG_AT_90) & (called >= FEWEST_CALLS))
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
