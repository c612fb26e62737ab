"""Pictures of a training run: its data and its progress. Draws with matplotlib, without a display.

What is called `save_...` writes a PNG to `file`, and returns it.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from fer.files import as_png, write_whole
from fer.models.architecture import OUTSIDE, Row, shown, totals
from fer.sheets import Sheet

# Where the columns of an architecture stand, in inches.
_COLUMNS = {"stage": 2.9, "layers": 4.75, "output": 8.85, "parameters": 10.0, "multiply-adds": 11.2}


def save_samples(
    file: Path,
    originals: npt.NDArray[np.uint8],
    augmented: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
) -> bytes:
    """A labelled grid: a row per class, each face beside its augmented copy.

    Args:
        originals, augmented: uint8 (N, 48, 48).
        targets: int64 (N,), positions in `classes`.
    """
    columns = max(1, int(np.bincount(targets, minlength=len(classes)).max()))
    height, width = originals.shape[1:]
    sheet = Sheet(columns, len(classes), (height, 2 * width + 2), above=2, left=4 + 4 * max(map(len, classes)))
    for row, name in enumerate(classes):
        sheet.write_left(row, name)
        for column, index in enumerate(np.flatnonzero(targets == row)):
            pair = np.hstack([originals[index], np.full((height, 2), 255, np.uint8), augmented[index]])
            sheet.add(row, column, pair[..., None] / 255)
    return _write(sheet.figure("Training faces: original | augmented"), file)


def save_architecture(file: Path, rows: Sequence[Row], title: str) -> bytes:
    """The stages of a network from top to bottom: the wider a box the larger its maps, the higher the more channels.

    `rows` are those of `fer.models.architecture.rows`.
    """
    layers = [textwrap.wrap(row.layers, 44) or [""] for row in rows]
    heights = [
        max(0.42, 0.19 * len(lines) + 0.2, 0.09 * math.log2(max(row.shape[0], 1)) if len(row.shape) == 3 else 0)
        for row, lines in zip(rows, layers, strict=True)
    ]
    total = sum(heights) + 0.22 * len(rows) + 1.3
    figure = Figure(figsize=(11.5, total), dpi=130)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 11.5), ylim=(total, 0))
    axis.axis("off")
    axis.text(0.3, 0.32, title, fontsize=13, weight="bold", va="center")
    stage, layers_at, output, *numbers = _COLUMNS.values()
    for name, x in _COLUMNS.items():
        axis.text(x, 0.72, name, fontsize=9, color="dimgray", ha="left" if x < output else "right", va="center")
    most, side, top = max(row.parameters for row in rows), max(rows[0].shape), 1.0
    for place, (row, lines, height) in enumerate(zip(rows, layers, heights, strict=True)):
        middle = top + height / 2
        if row.stage != OUTSIDE:
            width = 0.5 + 1.9 * (row.shape[-1] / side if len(row.shape) == 3 else 0.0)
            box = FancyBboxPatch(
                (1.5 - width / 2, top),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=matplotlib.colormaps["Blues"](0.08 + 0.62 * row.parameters / max(most, 1)),
                edgecolor="steelblue",
            )
            axis.add_patch(box)
            if place:
                axis.annotate("", (1.5, top), (1.5, top - 0.22), arrowprops={"arrowstyle": "->", "color": "dimgray"})
        axis.text(stage, middle, "\n".join(textwrap.wrap(row.stage, 22)), fontsize=9, weight="bold", va="center")
        axis.text(layers_at, middle, "\n".join(lines), fontsize=9, va="center")
        axis.text(output, middle, shown(row.shape), fontsize=9, ha="right", va="center")
        for x, number in zip(numbers, (row.parameters, row.multiply_adds), strict=True):
            axis.text(x, middle, in_short(number) if number else "", fontsize=9, ha="right", va="center")
        top += height + 0.22
    axis.text(0.3, top + 0.06, "width: side of the maps; height: channels; colour: parameters", fontsize=8, va="center")
    axis.text(output, top + 0.06, "all", fontsize=9, weight="bold", ha="right", va="center")
    for x, number in zip(numbers, totals(rows), strict=True):
        axis.text(x, top + 0.06, in_short(number), fontsize=9, weight="bold", ha="right", va="center")
    return _write(figure, file)


def save_training_progress(file: Path, rows: list[dict[str, float]], stopped_early: bool) -> bytes:
    """Loss, accuracy, F1, precision, recall and learning rate by epoch.

    Args:
        rows: of `fer.training.callbacks.History`, at least one.
        stopped_early: whether the last of them is where early stopping ended the run.
    """
    figure = Figure(figsize=(15, 7), dpi=110)
    axes = figure.subplots(2, 3)
    best = max(rows, key=lambda row: row.get("val/accuracy", float("-inf")))
    panels = (
        *(("loss", "cross-entropy"), ("accuracy", "accuracy"), ("lr", "learning rate")),
        *(("f1", "macro F1"), ("precision", "macro precision"), ("recall", "macro recall")),
    )
    for axis, (metric, label) in zip(axes.flat, panels, strict=True):
        for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
            points = [(row["epoch"] + 1, row[f"{split}/{metric}"]) for row in rows if f"{split}/{metric}" in row]
            if points:
                name = None if metric == "lr" else split
                axis.plot(*zip(*points, strict=True), color=colour, marker=".", label=name)
        if metric not in ("loss", "lr") and f"val/{metric}" in best:
            axis.axvline(best["epoch"] + 1, color="gray", linewidth=0.8, linestyle=":")
            axis.plot(best["epoch"] + 1, best[f"val/{metric}"], "o", color="tab:orange", markersize=7)
            _label(axis, best["epoch"] + 1, best[f"val/{metric}"], rows[0]["epoch"] + 1, rows[-1]["epoch"] + 1)
        if stopped_early:
            axis.axvline(rows[-1]["epoch"] + 1, color="firebrick", linestyle="--", label="stopped early")
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False)
    title = "Training progress; the dot is best.ckpt. Training figures are with augmentation and dropout."
    figure.suptitle(title, fontsize=11)
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.07, top=0.93, wspace=0.2, hspace=0.25)
    return _write(figure, file)


def save_confusion_matrix(file: Path, matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> bytes:
    """Shares of each label's images with their counts, `matrix` (C, C); labels are rows."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side, names = 0.62 * len(classes), 0.09 * max(map(len, classes))
    left, bottom = names + 0.6, 0.75 * names + 0.6
    width, height = left + side + 0.3, bottom + side + 0.4
    figure = Figure(figsize=(width, height), dpi=100)
    axis = figure.add_axes((left / width, bottom / height, side / width, side / height))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        axis.text(
            column,
            row,
            f"{share[row, column]:.0%}\n{counts[row, column]:,}",
            ha="center",
            va="center",
            color="white" if share[row, column] > 0.5 else "black",
            fontsize=7.5,
        )
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(classes)), classes)
    axis.set_xlabel("predicted")
    axis.set_ylabel("label")
    axis.set_title(title, fontsize=10)
    return _write(figure, file)


def _label(axis: Axes, x: float, y: float, first: float, last: float) -> None:
    """Writes a point's value below it, or above where that would lie on the axis, on the side that has more room."""
    bottom, top = axis.get_ylim()
    below = y - bottom > 0.2 * (top - bottom)
    left = x - first > last - x
    axis.annotate(
        f"{y:.3f}",
        (x, y),
        textcoords="offset points",
        xytext=(-6 if left else 6, -16 if below else 8),
        ha="right" if left else "left",
    )


def in_short(number: int) -> str:
    """A number in three digits: 37.7 k, 4.69 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {letter}"
    return str(number)


def _write(figure: Figure, file: Path) -> bytes:
    """Whole or not at all; returns the PNG."""
    png = as_png(figure)
    write_whole(file, png)
    return png
