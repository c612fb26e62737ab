"""Is one set of runs better than another, or is it noise? Paired tests over the same images.

Knows nothing of networks, settings or tables.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.evaluation.bootstrap import draw

RESAMPLES = 4000
_BLOCK = 250  # resamples that are held at once


@dataclass(frozen=True)
class Answers:
    """What one run said about the images of a split, in the order of their ids.

    Attributes:
        ids: str (N,), unique.
        targets: int64 (N,), positions in `classes`.
        predicted: int64 (N,), positions in `classes`.
        probabilities: float (N, C).
        classes: names.
    """

    ids: npt.NDArray[np.str_]
    targets: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    classes: tuple[str, ...]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which predictions are right (N,)."""
        correct: npt.NDArray[np.bool_] = self.predicted == self.targets
        return correct

    @staticmethod
    def join(parts: "Sequence[Answers]") -> "Answers":
        """The answers about several sets of images, such as folds."""
        ids = np.concatenate([part.ids for part in parts])
        order = np.argsort(ids)
        return Answers(
            ids[order],
            np.concatenate([part.targets for part in parts])[order],
            np.concatenate([part.predicted for part in parts])[order],
            np.concatenate([part.probabilities for part in parts])[order],
            parts[0].classes,
        )


@dataclass(frozen=True)
class Comparison:
    """Row A against row B on one split.

    Attributes:
        sentence: all of it in words.
        difference: of the mean accuracies, A minus B; None when they were not judged on the same images.
        low, high: its 95 % interval.
        p_value: of McNemar's exact test for two single runs; None for several.
        noise: whether nothing speaks against both being equally good; None as `difference`.
    """

    sentence: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    noise: bool | None = None


def read_answers(file: Path, split: str) -> Answers:
    """The answers about one split in a run's predictions.csv."""
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.reader(stream)
        classes = tuple(next(reader)[4:])
        lines = sorted((line for line in reader if line[0] == split), key=lambda line: line[1])
    return Answers(
        np.array([line[1] for line in lines], np.str_),
        np.array([classes.index(line[2]) for line in lines], np.int64),
        np.array([classes.index(line[3]) for line in lines], np.int64),
        np.array([line[4:] for line in lines], np.float64).reshape(len(lines), len(classes)),
        classes,
    )


def compare(split: str, name_a: str, a: Sequence[Answers], name_b: str, b: Sequence[Answers]) -> Comparison:
    """Compares two rows of a table by the images that all their runs were judged on.

    Two single runs: McNemar's exact test (Q. McNemar, Psychometrika 12, 1947; T. Dietterich, Neural Computation 10,
    1998), and the interval of a paired bootstrap over images. Several runs: Student's interval, in whose variance the
    spread between seeds counts, too.

    Args:
        split: for the sentence.
        name_a, name_b: for the sentence.
        a, b: one entry per run.
    """
    if not all(_same_images(other, a[0]) for other in [*a[1:], *b]):
        return Comparison(
            f"{split}: {name_a} and {name_b} cannot be compared, they were not judged on the same images and classes."
        )
    right_a, right_b = (np.stack([answers.right for answers in side]) for side in (a, b))
    difference = float(right_a.mean() - right_b.mean())
    single = len(a) == len(b) == 1
    low, high = _interval_of_images(right_a[0], right_b[0]) if single else _interval_of_runs(right_a, right_b)
    p_value = None
    words = (
        f"{split}: '{name_a}' {right_a.mean():.4f} against '{name_b}' {right_b.mean():.4f}, "
        f"difference {difference:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}] "
    )
    if single:
        only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        p_value = mcnemar(only_a, only_b)
        words += f"(paired bootstrap over images), McNemar p = {p_value:.2g} "
        words += f"({only_a} images only the first has right, {only_b} only the second)"
        noise = p_value >= 0.05
    else:
        words += "(over images and runs)"
        noise = low <= 0 <= high
    verdict = "The difference cannot be told from noise." if noise else "The difference is more than noise."
    return Comparison(f"{words}. {verdict}", difference, low, high, p_value, noise)


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that two classifiers are equally good, by the images that only one of them has right."""
    count = only_a + only_b
    tail = sum(math.comb(count, k) for k in range(min(only_a, only_b) + 1))
    return float(min(1.0, 2 * tail / 2**count))


def _same_images(one: Answers, two: Answers) -> bool:
    same = np.array_equal(one.ids, two.ids) and np.array_equal(one.targets, two.targets)
    return same and one.classes == two.classes


def _interval_of_images(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference of two runs' accuracies, (N,) each, by a bootstrap over images."""
    rng = np.random.default_rng(0)
    gain = right_a.astype(np.float32) - right_b.astype(np.float32)
    differences = [weights @ gain / len(gain) for weights in draw(len(gain), RESAMPLES, _BLOCK, rng)]
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5])
    return float(low), float(high)


def _interval_of_runs(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference of mean accuracies; (runs, N) each.

    Its variance has two parts: that over images, of each image's mean over the runs, which holds what chance does to
    one image in one run; and that between runs, as far as it is more than this. To draw images and runs in a bootstrap
    would count the chance of one image in one run three times (Owen, Annals of Applied Statistics 1, 2007).
    """
    count = right_a.shape[1]
    parts = [(float((right_a.mean(axis=0) - right_b.mean(axis=0)).var(ddof=1)) / count, count - 1)]
    for right in (right_a, right_b):
        runs = len(right)
        if runs > 1:
            by_chance = float(right.var(axis=0, ddof=1).mean()) / count
            parts.append((max(0.0, float(right.mean(axis=1).var(ddof=1)) - by_chance) / runs, runs - 1))
    variance = sum(part for part, _ in parts)
    centre = float(right_a.mean() - right_b.mean())
    if variance == 0:
        return centre, centre
    # Satterthwaite's degrees of freedom; the quantile of Student's distribution by drawing from it.
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    reach = float(np.percentile(np.abs(np.random.default_rng(0).standard_t(freedom, 200_000)), 95)) * math.sqrt(
        variance
    )
    return centre - reach, centre + reach
