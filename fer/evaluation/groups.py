"""For whom a network works how well: accuracy and recall by groups of people. Knows nothing of networks or files."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fer.abstention import wilson

FEWEST = 100  # rows; the accuracy of fewer is known to no better than 10 points, and no gap is read from it


def measure_groups(
    predicted: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    groupings: Mapping[str, npt.NDArray[np.str_]],
) -> dict[str, Any]:
    """Accuracy and recall of each group, and the largest gap between two.

    Args:
        predicted, targets: (N,), positions in `classes`.
        groupings: by name, the group of each row, (N,); "" is none.

    Returns:
        Plain data for metrics.json, by grouping: "groups", each with "images", "accuracy", "interval95" and "recall" by
        class ("images", "recall", "interval95"; None where the class is not there); "without", the rows in no group;
        "few", the groups with under 100 rows; "largest_gap" of the accuracies of the others, with "better", "worse",
        "accuracy" (the difference) and "interval95", or None for fewer than two groups. Intervals are Wilson's, that of
        the gap Newcombe's; it does not correct for the pair having been picked among several.
    """
    return {name: _measure(predicted, targets, classes, groups) for name, groups in groupings.items()}


def _measure(
    predicted: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    groups: npt.NDArray[np.str_],
) -> dict[str, Any]:
    right = predicted == targets
    found = {}
    for group in sorted(set(groups.tolist()) - {""}):
        member = groups == group
        found[group] = {
            **_share(right[member], "accuracy"),
            "recall": {name: _share(right[member & (targets == code)], "recall") for code, name in enumerate(classes)},
        }
    enough = [group for group, own in found.items() if own["images"] >= FEWEST]
    gaps = [_gap(found, *pair) for pair in itertools.permutations(enough, 2)]
    return {
        "groups": found,
        "without": int((groups == "").sum()),
        "few": [group for group in found if group not in enough],
        "largest_gap": max(gaps, key=lambda gap: gap["accuracy"], default=None),
    }


def _share(right: npt.NDArray[np.bool_], name: str) -> dict[str, Any]:
    if len(right) == 0:
        return {"images": 0, name: None, "interval95": None}
    return {"images": len(right), name: float(right.mean()), "interval95": wilson(int(right.sum()), len(right))}


def _gap(found: Mapping[str, Any], better: str, worse: str) -> dict[str, Any]:
    """Source: R. G. Newcombe, Statistics in Medicine 17, 1998, method 10."""
    (one, two) = (found[group]["accuracy"] for group in (better, worse))
    (low_one, high_one), (low_two, high_two) = (found[group]["interval95"] for group in (better, worse))
    return {
        "better": better,
        "worse": worse,
        "accuracy": one - two,
        "interval95": [
            one - two - math.hypot(one - low_one, high_two - two),
            one - two + math.hypot(high_one - one, two - low_two),
        ],
    }
