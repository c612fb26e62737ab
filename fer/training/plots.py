"""Pictures of a training run: its data and its progress. Draws with matplotlib, without a display."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer.files import write_whole


def save_samples(
    file: Path,
    originals: npt.NDArray[np.uint8],
    augmented: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    classes: tuple[str, ...],
) -> None:
    """A labelled grid: a row per class, each face beside its augmented copy.

    Args:
        file: PNG to write.
        originals, augmented: uint8 (N, 48, 48).
        targets: int64 (N,), positions in `classes`.
        classes: names.
    """
    columns = max(1, int(np.bincount(targets, minlength=len(classes)).max()))
    figure = Figure(figsize=(1.9 * columns + 0.9, 1.05 * len(classes) + 0.6), dpi=130)
    axes = figure.subplots(len(classes), columns, squeeze=False)
    for row, name in enumerate(classes):
        index = np.flatnonzero(targets == row)
        for column in range(columns):
            axis = axes[row, column]
            axis.axis("off")
            if column < len(index):
                gap = np.full((originals.shape[1], 2), 255, np.uint8)
                pair = np.hstack([originals[index[column]], gap, augmented[index[column]]])
                axis.imshow(pair, cmap="gray", vmin=0, vmax=255)
            if column == 0:
                axis.text(-0.08, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=10)
    figure.suptitle("Training faces: original | augmented", fontsize=11)
    figure.tight_layout(pad=0.3, rect=(0, 0, 1, 0.97))
    _write(figure, file)


def save_training_progress(file: Path, rows: list[dict[str, float]]) -> None:
    """Loss, accuracy, F1, precision, recall and learning rate by epoch.

    Args:
        file: PNG to write.
        rows: of `fer.training.callbacks.History`, at least one.
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
            axis.annotate(
                f"{best[f'val/{metric}']:.3f}",
                (best["epoch"] + 1, best[f"val/{metric}"]),
                textcoords="offset points",
                xytext=(-6, -16),  # below: by the time of the best epoch training is usually above
                ha="right",
            )
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if metric != "lr":
            axis.legend(frameon=False)
    title = "Training progress; the dot is best.ckpt. Training figures are with augmentation and dropout."
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    _write(figure, file)


def _write(figure: Figure, file: Path) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_whole(file, buffer.getbuffer())
