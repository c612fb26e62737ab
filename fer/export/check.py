"""Whether an exported network still says what its checkpoint says, and what it costs. Knows nothing of formats."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from fer.export.faces import ExportFaces
from fer.inference.predictor import Predictor

# What is refused.
MOST_DIFFERENT = 1e-4  # of fp32, in probability
MOST_LOST = 0.005  # of fewer bits, in accuracy
LEAST_EQUAL = 0.97  # of its labels

_BATCHES = (1, 8)
_SECONDS = 1.0  # of measuring per batch size
_ALONE = 8  # faces that are also shown one by one


@dataclass(frozen=True)
class Comparison:
    """A checkpoint and what was exported of it, side by side; pairs are in this order.

    Attributes:
        largest_difference: of any probability of any face; NaN where one is.
        equal_labels: share of the faces.
        accuracy: shares; None without labels.
        megabytes: sizes of the files.
        milliseconds: median of a call with one thread, by the number of faces.
    """

    largest_difference: float
    equal_labels: float
    accuracy: tuple[float, float] | None
    megabytes: tuple[float, float]
    milliseconds: dict[int, tuple[float, float]]

    def objections(self, precision: str) -> Iterator[str]:
        """Why the file should not be used; nothing when it should. Comparisons are such that NaN is refused.

        Args:
            precision: "fp32", "int8" or "half".
        """
        if precision == "fp32":
            if not self.largest_difference <= MOST_DIFFERENT:
                yield f"its probabilities differ by up to {self.largest_difference:.2g} ({MOST_DIFFERENT:g} is allowed)"
            return
        if not np.isfinite(self.largest_difference):
            yield "some of its probabilities are no numbers"
        if not self.equal_labels >= LEAST_EQUAL:
            yield f"it gives {self.equal_labels:.1%} of the faces the same label ({LEAST_EQUAL:.0%} is asked for)"
        lost = 0.0 if self.accuracy is None else self.accuracy[0] - self.accuracy[1]
        if lost > MOST_LOST + 1e-9:  # two shares never differ by exactly half a point
            yield f"it loses {100 * lost:.2f} points of accuracy ({100 * MOST_LOST:g} are allowed)"


def compare(checkpoint: Predictor, exported: Predictor, faces: ExportFaces, files: tuple[Path, Path]) -> Comparison:
    """Runs both over `faces.check`, together and some one by one, and measures both in turns.

    Args:
        checkpoint: what is right.
        exported: what is to be judged.
        faces: with labels or without.
        files: of the one and of the other, whose sizes are compared.
    """
    expected = checkpoint.probabilities(faces.check)
    found = exported.probabilities(faces.check)
    alone = np.concatenate([exported.probabilities(faces.check[index : index + 1]) for index in range(_ALONE)])
    difference = max(np.abs(found - expected).max(), np.abs(alone - expected[: len(alone)]).max())
    labels = expected.argmax(1), found.argmax(1)
    accuracy = None
    if faces.targets is not None:
        accuracy = float((labels[0] == faces.targets).mean()), float((labels[1] == faces.targets).mean())
    return Comparison(
        float(difference),
        float((labels[0] == labels[1]).mean()),
        accuracy,
        (files[0].stat().st_size / 1e6, files[1].stat().st_size / 1e6),
        {
            batch: _milliseconds((checkpoint, exported), np.resize(faces.check, (batch, *faces.check.shape[1:])))
            for batch in _BATCHES
        },
    )


def table(comparison: Comparison, title: str, names: tuple[str, str], source: str) -> Table:
    """What was found, for the terminal."""
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    shown.add_column(f"on {source}", overflow="fold")
    for name in names:
        shown.add_column(name, justify="right", overflow="fold")
    shown.add_row("largest difference of a probability", "", f"{comparison.largest_difference:.2g}")
    shown.add_row("equal labels", "", f"{comparison.equal_labels:.2%}")
    if comparison.accuracy is not None:
        shown.add_row("accuracy", *(f"{share:.2%}" for share in comparison.accuracy))
    shown.add_row("size", *(f"{size:.1f} MB" for size in comparison.megabytes))
    for batch, pair in comparison.milliseconds.items():
        faces = "1 face" if batch == 1 else f"{batch} faces"
        shown.add_row(f"{faces}, one thread", *(f"{value:.2f} ms" for value in pair))
    return shown


def _milliseconds(predictors: tuple[Predictor, Predictor], faces: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Medians, measured in turns, so that what else the computer does slows both."""
    times: list[list[float]] = []
    for predictor in predictors:
        predictor.probabilities(faces)
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(times) < 5:
        pair = []
        for predictor in predictors:
            start = time.perf_counter()
            predictor.probabilities(faces)
            pair.append(1000 * (time.perf_counter() - start))
        times.append(pair)
    first, second = np.median(times, axis=0).tolist()
    return first, second
