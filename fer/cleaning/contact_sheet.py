"""Contact sheets: many faces on one picture, to look through. Knows nothing of why they are shown."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 14, 8
_SIDE = 96  # of a face, twice FER2013's
_LINE = 12  # height of a line of text
_CELL_WIDTH, _CELL_HEIGHT = _SIDE + 10, _SIDE + 3 * _LINE + 10
_HEAD = 26
_BLACK, _RED, _GRAY = (0, 0, 0), (178, 34, 34), (150, 150, 150)


@dataclass(frozen=True)
class Cell:
    """One face on a sheet.

    Attributes:
        image: uint8 (S, S).
        lines: at most three lines of about 18 letters.
        marked: whether they are red.
    """

    image: npt.NDArray[np.uint8]
    lines: Sequence[str]
    marked: bool = False


def draw_sheets(groups: Sequence[Sequence[Cell]], title: str) -> list[bytes]:
    """PNG files with all cells in order. A frame holds the cells of a group together; a group of one has none.

    Args:
        groups: cells that belong together.
        title: of every sheet.
    """
    pages: list[list[tuple[int, int, Sequence[Cell]]]] = [[]]  # row, column and cells of each strip
    row = column = 0
    for group in groups:
        for start in range(0, len(group), COLUMNS):
            strip = group[start : start + COLUMNS]
            if column + len(strip) > COLUMNS:
                row, column = row + 1, 0
            if row == ROWS:
                pages.append([])
                row = 0
            pages[-1].append((row, column, strip))
            column += len(strip)
    return [_draw(page, f"{title}, sheet {number} of {len(pages)}") for number, page in enumerate(pages, start=1)]


def _draw(page: Sequence[tuple[int, int, Sequence[Cell]]], title: str) -> bytes:
    rows = 1 + max(row for row, _, _ in page)
    sheet = Image.new("RGB", (COLUMNS * _CELL_WIDTH + 8, rows * _CELL_HEIGHT + _HEAD + 4), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 5), title, _BLACK, ImageFont.load_default(15))
    font = ImageFont.load_default(11)
    for row, column, strip in page:
        left, top = 4 + column * _CELL_WIDTH, _HEAD + row * _CELL_HEIGHT
        if len(strip) > 1:
            frame = (left + 1, top + 1, left + len(strip) * _CELL_WIDTH - 2, top + _CELL_HEIGHT - 2)
            draw.rectangle(frame, outline=_GRAY)
        for number, cell in enumerate(strip):
            x, y = left + number * _CELL_WIDTH + 5, top + 5
            larger = cell.image.shape[0] > _SIDE
            way = Image.Resampling.BICUBIC if larger else Image.Resampling.NEAREST
            sheet.paste(Image.fromarray(cell.image).resize((_SIDE, _SIDE), way), (x, y))
            for line, text in enumerate(cell.lines):
                draw.text((x, y + _SIDE + 1 + line * _LINE), text, _RED if cell.marked else _BLACK, font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
