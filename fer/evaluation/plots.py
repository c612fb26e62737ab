"""Pictures of a test report. Draws with matplotlib, without a display; knows nothing of networks or files' meaning."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure


def confusion_matrix(matrix: list[list[int]], classes: tuple[str, ...], title: str) -> Figure:
    """Counts, coloured by the share of their row (the recall of the class on the diagonal)."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.85 * len(classes) + 2.2
    figure = Figure(figsize=(side + 0.6, side), dpi=120)
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            colour = "white" if share[row, column] > 0.5 else "black"
            text = f"{counts[row, column]}\n{share[row, column]:.0%}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8.5)
    axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set_xlabel("predicted")
    axis.set_ylabel("label")
    axis.set_title(title, fontsize=11)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the row")
    figure.tight_layout()
    return figure


def sample_predictions(
    images: npt.NDArray[np.uint8],
    targets: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
    classes: tuple[str, ...],
    title: str,
) -> Figure:
    """A grid of faces with label, prediction and confidence; wrong ones in red.

    Args:
        images: uint8 (N, 48, 48).
        targets: int64 (N,).
        probabilities: float (N, C).
        classes: names in the order of the columns.
        title: of the picture.
    """
    columns = 8
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.45 * columns, 1.75 * rows + 0.5), dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, target, row in zip(axes.flat, images, targets, probabilities, strict=False):
        predicted = int(row.argmax())
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        right = predicted == target
        text = f"{classes[predicted]} {row[predicted]:.0%}" + ("" if right else f"\nlabel: {classes[target]}")
        axis.set_title(text, fontsize=8.5, color="black" if right else "firebrick", pad=3, va="bottom")
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    return figure
