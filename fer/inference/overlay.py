"""Draws predictions, running figures and messages into a picture, to be read on any background and at any size.

Every length follows from the picture's size. A label is black on its emotion's colour, other text is light on a
translucent dark plate, and lines have a black edge.
Knows nothing of windows or networks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fer.inference.pictures import BGRImage, Picture, to_picture
from fer.inference.prediction import Prediction
from fer.labels import GRAY, Color, emotion_color

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
RED: Color = (239, 71, 58)
_TRACK: Color = (110, 110, 110)

_PLATE_OPACITY = 0.72  # leaves a white background at 71 of 255, on which gray text is read easily
_SMALLEST = 240  # pixels of the short side under which a picture is enlarged before text is drawn into it
_LARGEST_AFTER = 1920  # and the long side is not enlarged past this

_Rect = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom excluded


@dataclass(frozen=True)
class _Face:
    prediction: Prediction
    rect: _Rect
    color: Color
    font: int  # pixels


def annotate(picture: Picture, predictions: Sequence[Prediction]) -> BGRImage:
    """A copy of the picture with every face's box, id, label, confidence and class probabilities.

    Args:
        picture: as of `fer.inference.pictures.to_picture`, as a `Predictor` takes it; left as it is.
        predictions: of this picture; one without a box stands for the whole picture.

    Returns:
        uint8 BGR, of the same size, or enlarged by a whole factor when it is too small to write into.

    Raises:
        UserError: `picture` is none, or cannot be read.
    """
    return Annotator()(picture, predictions)


class Annotator:
    """`annotate` for the frames of one video: the chart of a track stays on its side while there is room."""

    def __init__(self) -> None:
        self._sides: dict[int | None, int] = {}  # of the charts, by track: positions in what `_corners` gives

    def __call__(self, picture: Picture, predictions: Sequence[Prediction]) -> BGRImage:
        """As `annotate`."""
        canvas, factor = _canvas(to_picture(picture))
        faces = [_face(prediction, canvas, factor) for prediction in predictions]
        # Large faces choose the places of their texts first; in a video old ones do, so that texts do not jump about.
        faces.sort(key=lambda face: face.prediction.track or face.rect[0] - face.rect[2])
        for face in faces:
            _draw_box(canvas, face)
        taken = [face.rect for face in faces]
        labels: list[_Rect | None] = []
        for face in faces:
            labels.append(_place_of_label(canvas, face, taken))
            taken.append(labels[-1] or face.rect)
        charts = []
        without = []
        for face in faces:
            track = face.prediction.track
            chart = _place_of_chart(canvas, face, taken, self._sides.get(track))
            if chart is None:
                without.append(face)
                continue
            place, font, side = chart
            if track is not None:
                self._sides[track] = side
            charts.append((face, place, font))
            taken.append(place)
            _draw_link(canvas, face, place)
        for face, label in zip(faces, labels, strict=True):
            if label is not None:
                _draw_label(canvas, face, label)
        for face, place, font in charts:
            _draw_chart(canvas, face, place, font)
        for face in without:
            taken.append(_draw_strip(canvas, face, taken))
        return canvas


def mirrored(image: BGRImage, predictions: Sequence[Prediction]) -> tuple[BGRImage, list[Prediction]]:
    """A picture, uint8 (H, W, 3), and its predictions as a mirror shows them; to be annotated afterwards."""
    width = image.shape[1]
    turned = []
    for prediction in predictions:
        if prediction.box is not None:
            x, y, w, h = prediction.box
            prediction = replace(prediction, box=(width - x - w, y, w, h))
        turned.append(prediction)
    return np.ascontiguousarray(image[:, ::-1]), turned


def draw_status(canvas: BGRImage, lines: Sequence[str], recording: bool = False) -> None:
    """Writes figures and messages into the lower left corner of `canvas`; a red dot says that a video is recorded."""
    font = _fitting_font(canvas, lines, 0.8)
    height = _block_size(lines, font)[1]
    _draw_text_block(canvas, lines, font, (0, canvas.shape[0] - height), recording)


def draw_message(canvas: BGRImage, lines: Sequence[str]) -> None:
    """Writes lines into the middle of `canvas`, over whatever is there: the keys."""
    font = _fitting_font(canvas, lines, 1.0)
    width, height = _block_size(lines, font)
    _draw_text_block(canvas, lines, font, ((canvas.shape[1] - width) // 2, (canvas.shape[0] - height) // 2))


def _canvas(image: BGRImage) -> tuple[BGRImage, int]:
    height, width = image.shape[:2]
    factor = max(1, min(-(-_SMALLEST // min(height, width)), _LARGEST_AFTER // max(height, width)))
    if factor == 1:
        return image.copy(), 1
    size = (factor * width, factor * height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8), factor


def _face(prediction: Prediction, canvas: BGRImage, factor: int) -> _Face:
    height, width = canvas.shape[:2]
    line = _line_width(canvas)
    if prediction.box is None:
        rect = (line, line, width - line, height - line)
    else:
        x, y, w, h = (factor * value for value in prediction.box)
        left, top = max(line, round(x)), max(line, round(y))
        right, bottom = min(width - line, round(x + w)), min(height - line, round(y + h))
        rect = (left, top, max(left + 1, right), max(top + 1, bottom))
    size = _font_size(canvas)
    font = max(9, round(min(size, max(0.6 * size, 0.16 * (rect[2] - rect[0])))))
    return _Face(prediction, rect, GRAY if prediction.uncertain else emotion_color(prediction.label), font)


def _draw_box(canvas: BGRImage, face: _Face) -> None:
    left, top, right, bottom = face.rect
    line = _line_width(canvas)
    for color, thickness in ((BLACK, line + 2), (face.color, line)):
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color[::-1], thickness, cv2.LINE_8)


def _label(prediction: Prediction) -> str:
    said = f"{prediction.label} {prediction.confidence:.0%}"
    why = f", turned by {prediction.turned} deg" if prediction.turned else ""
    text = f"uncertain{why} ({said})" if prediction.uncertain else said
    return text if prediction.track is None else f"#{prediction.track} {text}"


def _place_of_label(canvas: BGRImage, face: _Face, taken: list[_Rect]) -> _Rect | None:
    """Over the box, under it, inside or beside it: where it covers least of other faces and labels, and of its own."""
    width, height = _block_size([_label(face.prediction)], face.font)
    edge = _line_width(canvas) // 2 + 1
    left, top, right, bottom = face.rect
    # At the box's left or right edge, or past it by up to half of the box or of the label.
    past = min(width, right - left) // 2
    first, last = left - edge, right + edge - width
    lefts = (first, last, *np.linspace(left - width + past, right - past, 7).round().astype(int).tolist())
    tops = (top - height - edge, bottom + edge, top + edge, bottom - height - edge)
    corners = [(max(0, min(x, canvas.shape[1] - width)), y) for y in tops for x in lefts]
    beside = [x for x in (right + edge, left - edge - width) if 0 <= x <= canvas.shape[1] - width]
    corners += [(x, y) for x in beside for y in (top, bottom - height)]
    places = [(x, y, x + width, y + height) for x, y in corners if 0 <= y <= canvas.shape[0] - height]

    def covered(place: _Rect) -> int:
        return sum(_overlap(place, other) * (1 if other is face.rect else 2) for other in taken)

    return min(places, key=covered, default=None)


def _draw_label(canvas: BGRImage, face: _Face, place: _Rect) -> None:
    cv2.rectangle(canvas, place[:2], (place[2] - 1, place[3] - 1), face.color[::-1], cv2.FILLED)
    corner = (place[0] + _pad(face.font), place[1] + _pad(face.font) // 2)
    _draw_text(canvas, _label(face.prediction), face.font, corner, BLACK)


def _chart_size(face: _Face, font: int) -> tuple[int, int]:
    names = face.prediction.probabilities
    width = max(_text_width(name, font) for name in names) + 4 * font + 3 * _pad(font)
    return width, len(names) * _row_height(font) + _pad(font)


def _place_of_chart(
    canvas: BGRImage, face: _Face, taken: list[_Rect], before: int | None
) -> tuple[_Rect, int, int] | None:
    """Where the chart goes, its font, and its side: beside, under or over the face, with a small font if that helps.

    Where that would cover other faces or texts, it may reach over the edge of its own box, or, in a face that fills
    the picture, lie in the box's upper corner, where the hair is. None when even that has no room.

    Args:
        canvas: is not drawn into.
        face: whose chart.
        taken: what it must not cover.
        before: the side that it had in the frame before, and keeps with any font and reach that it has room for.
    """
    sizes = [(font, *_chart_size(face, font)) for font in _chart_fonts(face)]
    sides: list[int] = [*range(_SIDES)]
    for wanted in [sides] if before is None else [[before], sides]:
        for reach in (0.0, 0.25):
            for font, width, height in sizes:
                corners = _corners(canvas, face, width, height)
                for side in wanted:
                    x, y = corners[side]
                    if side == _INSIDE:
                        left, top, right, bottom = face.rect
                        own = width * height if width * height < 0.2 * (right - left) * (bottom - top) else 0
                        if not reach or font != sizes[-1][0]:
                            continue
                    else:
                        own = int(reach * width * height)
                        if reach:
                            x = max(0, min(x, canvas.shape[1] - width))
                            y = max(0, min(y, canvas.shape[0] - height))
                    place = (x, y, x + width, y + height)
                    if _is_free(canvas, face, place, taken) and _overlap(place, face.rect) <= own:
                        return place, font, side
    return None


_INSIDE = 7  # of the corners: in the face's own box
_SIDES = 8


def _corners(canvas: BGRImage, face: _Face, width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Upper left corners of the places that a chart of this size may have, the best first."""
    left, top, right, bottom = face.rect
    gap = _line_width(canvas) + 2
    return (
        (right + gap, top),
        (left - gap - width, top),
        (left, bottom + gap),
        (right - width, bottom + gap),
        (right + gap, bottom - height),
        (left - gap - width, bottom - height),
        (left, top - 3 * gap - _row_height(face.font) - height),
        (right - gap - width, top + gap),
    )


def _is_free(canvas: BGRImage, face: _Face, place: _Rect, taken: list[_Rect]) -> bool:
    """Whether a place lies in the picture, and on nothing but the face itself."""
    left, top, right, bottom = place
    inside = left >= 0 and top >= 0 and right <= canvas.shape[1] and bottom <= canvas.shape[0]
    return inside and not any(_overlap(place, other) for other in taken if other is not face.rect)


def _draw_link(canvas: BGRImage, face: _Face, place: _Rect) -> None:
    """Joins a chart that is not beside its face to it: by a line, and by an edge in the face's colour."""
    left, top, right, bottom = face.rect
    if (place[1] < bottom and top < place[3]) or _overlap(place, face.rect):
        return
    line = _line_width(canvas)
    x = (max(left, place[0]) + min(right, place[2])) // 2
    ends = ((x, bottom), (x, place[1])) if place[1] >= bottom else ((x, top), (x, place[3]))
    cv2.line(canvas, *ends, face.color[::-1], 2 * line)
    cv2.rectangle(canvas, place[:2], (place[2] - 1, place[3] - 1), face.color[::-1], 2 * line)


def _draw_chart(canvas: BGRImage, face: _Face, place: _Rect, font: int) -> None:
    """A row per class: its name and a bar as long as its probability."""
    left, top, right, _ = place
    _draw_plate(canvas, place)
    pad, row = _pad(font), _row_height(font)
    probabilities = face.prediction.smoothed or face.prediction.probabilities
    names = max(_text_width(name, font) for name in probabilities)
    start, end = left + names + 2 * pad, right - pad
    for number, (name, probability) in enumerate(probabilities.items()):
        y = top + pad // 2 + number * row
        shown = name == face.prediction.label
        _draw_text(canvas, name, font, (left + pad, y), WHITE if shown else GRAY)
        middle = y + row // 2
        cv2.line(canvas, (start, middle), (end - 1, middle), _TRACK[::-1], max(1, row // 20))  # a probability of 1
        tip = start + max(1, round(probability * (end - start)))
        corners = (start, y + row // 5), (tip - 1, y + row - row // 5 - 1)
        cv2.rectangle(canvas, *corners, emotion_color(name)[::-1], cv2.FILLED)


def _draw_strip(canvas: BGRImage, face: _Face, taken: list[_Rect]) -> _Rect:
    """Where a chart has no room: a column per class, in the colours of the classes; returns its place.

    It lies under or over the box, or else in the box at its top: mouth and chin say most about an expression.
    """
    left, top, right, bottom = face.rect
    line = _line_width(canvas) + 2
    left, right = left + line, right - line
    probabilities = face.prediction.smoothed or face.prediction.probabilities
    column = (right - left) // len(probabilities)
    height = min((bottom - top) // 5, 2 * _row_height(face.font))
    if column < 3 or height < 6:
        return face.rect
    width = column * len(probabilities)
    label = _row_height(face.font) + _pad(face.font)
    outside = (bottom + line, top - line - height, bottom + line + label, top - line - label - height)
    places = [(left, y, left + width, y + height) for y in (*outside, top + line, top + line + label)]

    def covers_little(place: _Rect) -> bool:
        return 4 * sum(_overlap(place, other) for other in taken if other is not face.rect) < width * height

    free = [place for place in places[: len(outside)] if _is_free(canvas, face, place, taken)]
    place = next(iter([*free, *filter(covers_little, places[len(outside) :])]), places[len(outside)])
    bottom = place[3]
    _draw_plate(canvas, place)
    for number, (name, probability) in enumerate(probabilities.items()):
        x = left + number * column
        tall = max(1, round(probability * (height - 1)))
        cv2.rectangle(canvas, (x, bottom - tall), (x + column - 2, bottom - 1), emotion_color(name)[::-1], cv2.FILLED)
    return place


def _draw_text_block(
    canvas: BGRImage, lines: Sequence[str], font: int, corner: tuple[int, int], dot: bool = False
) -> None:
    width, height = _block_size(lines, font)
    row, pad = _row_height(font), _pad(font)
    left, top = corner
    _draw_plate(canvas, (left, top, left + width + (row if dot else 0), top + height))
    for number, line in enumerate(lines):
        _draw_text(canvas, line, font, (left + pad, top + pad // 2 + number * row), WHITE)
    if dot:
        center = (left + width + row // 2 - pad // 2, top + pad // 2 + row // 2)
        cv2.circle(canvas, center, max(2, row // 3), RED[::-1], cv2.FILLED, cv2.LINE_AA)


def _draw_plate(canvas: BGRImage, rect: _Rect) -> None:
    left, top, right, bottom = rect
    region = canvas[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if region.size:
        cv2.convertScaleAbs(region, dst=region, alpha=1 - _PLATE_OPACITY)


def _draw_text(canvas: BGRImage, text: str, font: int, corner: tuple[int, int], color: Color) -> None:
    left, top = corner
    if left < 0 or top < 0:
        return
    mask = _text_mask(text, font)
    region = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    opacity = mask[: region.shape[0], : region.shape[1], None]
    ink = np.array(color[::-1], np.float32)
    region[:] = (region + (ink - region) * opacity + 0.5).astype(np.uint8)


@lru_cache(maxsize=1024)
def _text_mask(text: str, font: int) -> npt.NDArray[np.float32]:
    """Opacity in [0, 1] of a line of text, one row high."""
    image = Image.new("L", (_text_width(text, font) + 1, _row_height(font)))
    ImageDraw.Draw(image).text((0, _row_height(font) / 2), text, fill=255, font=_font(font), anchor="lm")
    return np.asarray(image, np.float32) / np.float32(255)


@lru_cache(maxsize=1024)
def _text_width(text: str, font: int) -> int:
    return int(np.ceil(_font(font).getlength(text)))


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # every Pillow wheel has FreeType
    return font


def _block_size(lines: Sequence[str], font: int) -> tuple[int, int]:
    width = max(_text_width(line, font) for line in lines) + 2 * _pad(font)
    return width, len(lines) * _row_height(font) + _pad(font)


def _font_size(canvas: BGRImage) -> int:
    """Text height in pixels: legible at 320 x 240; above full HD, which viewers scale down, in proportion."""
    short = _short_side(canvas)
    return round(max(12 * math.sqrt(short / 240), short / 44))


def _fitting_font(canvas: BGRImage, lines: Sequence[str], scale: float) -> int:
    """`scale` times the usual font, or smaller where a line would be too wide."""
    font = max(9, round(scale * _font_size(canvas)))
    while font > 9 and _block_size(lines, font)[0] > 0.9 * canvas.shape[1]:
        font -= 1
    return font


def _short_side(canvas: BGRImage) -> int:
    return int(min(canvas.shape[:2]))


def _chart_fonts(face: _Face) -> tuple[int, int]:
    return max(9, round(0.85 * face.font)), max(9, round(0.68 * face.font))


def _row_height(font: int) -> int:
    return round(1.25 * font)


def _pad(font: int) -> int:
    return max(3, round(0.4 * font))


def _line_width(canvas: BGRImage) -> int:
    return max(1, round(_short_side(canvas) / 300))


def _overlap(a: _Rect, b: _Rect) -> int:
    """Pixels that two rectangles share."""
    if a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]:
        return 0
    return (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
