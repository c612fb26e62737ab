"""Sheets of small faces with captions, drawn with matplotlib, without a display."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

# Names of files and classes are drawn as they are, in every picture: a dollar sign in one is no formula.
matplotlib.rcParams["text.parse_math"] = False

Array = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_DPI = 110
_WRONG = "firebrick"
_GALLERY_COLUMNS = 8
_TITLE = 11  # room for a sheet's title, in pixels of its pictures


class Sheet:
    """A grid of small pictures with captions, drawn as one picture: an axis for each face would take seconds.

    Args:
        columns, rows: of the grid.
        shape: height and width of a picture in pixels.
        above, below, left: room for text, in 48ths of a picture's height.
    """

    def __init__(
        self, columns: int, rows: int, shape: tuple[int, int], above: int, below: int = 0, left: int = 0
    ) -> None:
        self._height, self._width = shape
        self._unit = unit = self._height / 48
        self._step_y = self._height + round(unit * (above + below + 2))
        self._step_x = self._width + round(4 * unit)
        self._above, self._left = round(unit * (above + _TITLE)), round(unit * (left + 2))
        height, width = rows * self._step_y + round(unit * _TITLE), columns * self._step_x + round(unit * left)
        self._canvas = np.ones((height, width, 3))
        self._figure = Figure(figsize=(3 * width / unit / _DPI, 3 * height / unit / _DPI), dpi=_DPI)  # 144 dots a face
        self._axis = self._figure.add_axes((0, 0, 1, 1))
        self._axis.axis("off")

    def _corner(self, row: int, column: int) -> tuple[int, int]:
        return row * self._step_y + self._above, column * self._step_x + self._left

    def add(self, row: int, column: int, pixels: Array, text: str = "", colour: str = "black") -> None:
        """Places a picture, float (height, width, 3) or (height, width, 1), under its caption."""
        top, left = self._corner(row, column)
        self._canvas[top : top + self._height, left : left + self._width] = pixels
        at = left + self._width / 2, top - 1.5 * self._unit
        self._axis.text(*at, text, ha="center", va="bottom", color=colour, fontsize=8.5, linespacing=1.0)

    def write_below(self, row: int, column: int, text: str) -> None:
        """Small print under a picture."""
        top, left = self._corner(row, column)
        self._axis.text(
            left + self._width / 2, top + self._height + 0.5 * self._unit, text, ha="center", va="top", fontsize=6.5
        )

    def write_left(self, row: int, text: str) -> None:
        """The name of a row."""
        top, left = self._corner(row, 0)
        self._axis.text(left - 3 * self._unit, top + self._height / 2, text, ha="right", va="center", fontsize=10)

    def figure(self, title: str) -> Figure:
        """The sheet."""
        height, width = self._canvas.shape[:2]
        self._axis.imshow(self._canvas, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
        self._axis.text(width / 2, 3 * self._unit, title, ha="center", va="top", fontsize=11)
        return self._figure


def gallery(
    images: Images, targets: Labels, probabilities: Array, classes: Sequence[str], title: str, names: Sequence[str] = ()
) -> Figure:
    """A grid of faces with prediction and confidence; wrong ones in red with a cross, and with their label.

    Args:
        images: uint8 (N, 48, 48).
        targets: int64 (N,).
        probabilities: float (N, C).
        classes: names in the order of the columns.
        names: the rows' names, written below the faces.
    """
    rows = max(1, -(-len(images) // _GALLERY_COLUMNS))
    sheet = Sheet(_GALLERY_COLUMNS, rows, (images.shape[1], images.shape[2]), above=13, below=5 if names else 0)
    for position, image in enumerate(images):
        row, column = divmod(position, _GALLERY_COLUMNS)
        text, colour = caption(probabilities[position], int(targets[position]), classes)
        if colour == _WRONG:
            text += f"\nlabel: {classes[targets[position]]}"
        sheet.add(row, column, image[..., None] / 255, text, colour)
        if names:
            sheet.write_below(row, column, names[position])
    return sheet.figure(title)


def caption(probabilities: Array, target: int, classes: Sequence[str]) -> tuple[str, str]:
    """Prediction with confidence, and the colour to write it in; a wrong one has a cross, which all people see."""
    predicted = int(probabilities.argmax())
    text = f"{classes[predicted]} {probabilities[predicted]:.0%}"
    return (text, "black") if predicted == target else (f"✗ {text}", _WRONG)
