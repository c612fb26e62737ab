"""When a network should rather say nothing: how often it is right where it is sure, and how sure it has to be.

A network that answers only from a minimum confidence on covers a part of the faces, and is wrong on a part of those.
Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, arXiv 1705.08500. Knows nothing of
networks, files or pictures.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]

ACCURACIES = (0.8, 0.9, 0.95)  # shares of right answers that a minimum confidence is sought for
_FEWEST = 30  # answers; fewer say too little about the share of right ones
_CURVE = np.linspace(0.05, 1, 20)  # coverages at which metrics.json has the risk


def answers(probabilities: Array, targets: npt.NDArray[np.int64]) -> tuple[Array, Right]:
    """The confidence of each answer and whether it is right, (N,), from probabilities (N, C) and targets (N,)."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets


def risk_coverage(confidence: Array, right: Right) -> tuple[Array, Array, Array]:
    """What each minimum confidence does, the highest first.

    Args:
        confidence: (N,), N > 0.
        right: (N,).

    Returns:
        The minimum confidences, which are the K different values of `confidence`; the share of faces that get an
        answer, the coverage; and the share of wrong ones among those answers, the risk. Each (K,).
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal confidences are answered together
    count = np.arange(1, len(ordered) + 1)
    wrong = np.cumsum(~right[order])
    return ordered[last], count[last] / len(ordered), wrong[last] / count[last]


def area(confidence: Array, right: Right) -> float:
    """The area under the risk-coverage curve: mean risk over the coverages 1/N, 2/N, ... 1; lower is better.

    Of equal confidences the order is random, and the mean over all orders is taken.
    """
    _, coverage, risk = risk_coverage(confidence, right)
    count = len(confidence)
    answered = np.arange(1, count + 1)
    wrong = np.interp(answered, np.append(0, coverage * count), np.append(0, risk * coverage * count))
    return float((wrong / answered).mean())


def threshold(confidence: Array, right: Right, accuracy: float) -> float | None:
    """The minimum confidence with which most faces get an answer while a share `accuracy` of the answers is right.

    It lies midway to the next confidence below, and is 0 where all answers together are right often enough. None where
    no minimum that leaves at least 30 answers reaches `accuracy`.
    """
    confidences, coverage, risk = risk_coverage(confidence, right)
    enough = (risk <= 1 - accuracy + 1e-12) & (coverage * len(confidence) >= _FEWEST - 0.5)
    if not enough.any():
        return None
    last = int(np.flatnonzero(enough)[-1])
    return 0.0 if last == len(confidences) - 1 else float(confidences[last : last + 2].mean())


def thresholds(probabilities: Array, targets: npt.NDArray[np.int64]) -> dict[str, float]:
    """The minimum confidence for each of `ACCURACIES` that can be reached, {"0.8": ..., "0.9": ..., "0.95": ...}.

    Args:
        probabilities: float (N, C) of the validation split, calibrated, and of single views as inference has them.
        targets: int64 (N,).
    """
    found = {str(accuracy): threshold(*answers(probabilities, targets), accuracy) for accuracy in ACCURACIES}
    return {accuracy: value for accuracy, value in found.items() if value is not None}


def measure_abstention(confidence: Array, right: Right, fitted_on: tuple[Array, Right] | None = None) -> dict[str, Any]:
    """The risk-coverage curve of a split, and what minimum confidences do on rows that they were not fitted on.

    Args:
        confidence, right: of the split's answers, each (N,).
        fitted_on: the same of the validation split, for a test split. None for the validation split itself: what is
            fitted on one half of it is judged on the other, over 20 random divisions.

    Returns:
        Plain data for metrics.json: "area"; "coverage" and "risk" (20 points of the curve); "thresholds" for each of
        `ACCURACIES`: None where it is not reached, else "confidence", fitted on the whole validation split, and what it
        does on other rows: "accuracy", "coverage" (None where nothing is answered) and "interval95" of both. Of a test
        split these are Wilson intervals, of halves the spread of 95 % of the divisions.
    """
    _, coverage, risk = risk_coverage(confidence, right)
    fit_confidence, fit_right = fitted_on or (confidence, right)
    found: dict[str, Any] = {}
    for accuracy in ACCURACIES:
        minimum = threshold(fit_confidence, fit_right, accuracy)
        if minimum is None:
            found[str(accuracy)] = None
            continue
        judged = _on_halves(confidence, right, accuracy) if fitted_on is None else _judge(confidence, right, minimum)
        found[str(accuracy)] = {"confidence": minimum, **judged}
    return {
        "area": area(confidence, right),
        "coverage": _CURVE.round(2).tolist(),
        "risk": np.interp(_CURVE, coverage, risk).tolist(),
        "thresholds": found,
    }


def _judge(confidence: Array, right: Right, minimum: float) -> dict[str, Any]:
    answered = confidence >= minimum
    count = int(answered.sum())
    return {
        "accuracy": float(right[answered].mean()) if count else None,
        "coverage": float(answered.mean()),
        "interval95": {
            "accuracy": wilson(int(right[answered].sum()), count) if count else None,
            "coverage": wilson(count, len(confidence)),
        },
    }


def _on_halves(confidence: Array, right: Right, accuracy: float) -> dict[str, Any]:
    accuracies, coverages = [], []
    for fit, judge in halves(len(confidence)):
        minimum = threshold(confidence[fit], right[fit], accuracy)
        answered = confidence[judge] >= (np.inf if minimum is None else minimum)
        coverages.append(answered.mean())
        if answered.any():
            accuracies.append(right[judge][answered].mean())
    return {
        "accuracy": float(np.mean(accuracies)) if accuracies else None,
        "coverage": float(np.mean(coverages)),
        "interval95": {
            "accuracy": np.percentile(accuracies, [2.5, 97.5]).tolist() if accuracies else None,
            "coverage": np.percentile(coverages, [2.5, 97.5]).tolist(),
        },
    }


def halves(count: int) -> Iterator[list[npt.NDArray[np.int64]]]:
    """The positions of `count` rows in two halves, in 20 random divisions that are always the same."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield np.array_split(rng.permutation(count), 2)


def wilson(successes: int, count: int) -> list[float]:
    """The 95 % interval of a share, [low, high]; `count` > 0. Source: E. B. Wilson, JASA 22 (158), 1927."""
    z = 1.959964
    share = successes / count
    middle = share + z * z / (2 * count)
    reach = z * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    return [(middle - reach) / (1 + z * z / count), (middle + reach) / (1 + z * z / count)]
