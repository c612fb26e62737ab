"""Every number of a test report, from probabilities and targets. Knows nothing of networks, files or pictures."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

HEADLINE = ("accuracy", "f1", "precision", "recall")


def compute_metrics(probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of one split, as plain numbers.

    Args:
        probabilities: float (N, C), rows sum to 1.
        targets: int64 (N,).
        classes: names in the order of the columns.

    Returns:
        "accuracy" over all images; "f1", "precision" and "recall" as the mean over classes and as "weighted_...";
        "balanced_accuracy"; "auroc" and "average_precision" one class against the rest, mean over classes;
        "loss" (negative log-likelihood), "brier" (sum over classes), "ece" (15 bins); "images"; "per_class" with the
        same by class and the number of images; "confusion_matrix" with targets as rows. A class without images
        counts as zero in the means, as in torchmetrics.
    """
    count = len(classes)
    by_class = {
        "f1": multiclass_f1_score(probabilities, targets, count, average=None),
        "precision": multiclass_precision(probabilities, targets, count, average=None),
        "recall": multiclass_recall(probabilities, targets, count, average=None),
    }
    present = torch.bincount(targets, minlength=count)
    if (present > 0).all():  # else undefined for the class that is missing
        by_class["auroc"] = multiclass_auroc(probabilities, targets, count, average=None)
        by_class["average_precision"] = multiclass_average_precision(probabilities, targets, count, average=None)
    one_hot = torch.nn.functional.one_hot(targets, count)
    metrics: dict[str, Any] = {
        "images": len(targets),
        "accuracy": float(multiclass_accuracy(probabilities, targets, count, average="micro")),
        **{name: float(values.mean()) for name, values in by_class.items()},
        "weighted_f1": float(multiclass_f1_score(probabilities, targets, count, average="weighted")),
        "weighted_precision": float(multiclass_precision(probabilities, targets, count, average="weighted")),
        "weighted_recall": float(multiclass_recall(probabilities, targets, count, average="weighted")),
        "balanced_accuracy": float(by_class["recall"][present > 0].mean()),
        "loss": float(torch.nn.functional.nll_loss(probabilities.clamp(min=1e-12).log(), targets)),
        "brier": float(((probabilities - one_hot) ** 2).sum(dim=1).mean()),
        "ece": float(multiclass_calibration_error(probabilities, targets, count, n_bins=15)),
    }
    metrics["per_class"] = {
        name: {"images": int(present[index]), **{key: float(values[index]) for key, values in by_class.items()}}
        for index, name in enumerate(classes)
    }
    metrics["confusion_matrix"] = multiclass_confusion_matrix(probabilities, targets, count).tolist()
    return metrics


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of `softmax(logits / temperature)`.

    Args:
        logits: float (N, C) of the validation split.
        targets: int64 (N,).

    Source: Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits.double() / log_temperature.exp(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp().clamp(0.05, 20))
