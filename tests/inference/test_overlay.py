"""Drawing: readable on any background and at any size. How it looks was judged by eye; these hold what was found."""

import numpy as np
import pytest

from fer.inference import overlay
from fer.inference.overlay import Annotator, annotate, draw_message, draw_status
from fer.inference.prediction import Prediction
from fer.labels import EMOTION_COLORS, EMOTIONS, GRAY


def face(box: tuple[float, float, float, float] | None, label: str = "happy", **more: object) -> Prediction:
    probabilities = {name: 0.6 if name == label else 0.4 / 6 for name in EMOTIONS}
    return Prediction(label, 0.6, probabilities, box, **more)  # type: ignore[arg-type]


def background(width: int, height: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """WCAG 2.1's contrast ratio of two colours in RGB."""

    def luminance(color: tuple[float, ...]) -> float:
        parts = [part / 255 for part in color]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def color_of(image: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(int(part) for part in image[y, x, ::-1])


def test_every_colour_bears_black_text():
    for color in (*EMOTION_COLORS.values(), GRAY):
        assert contrast(color, overlay.BLACK) > 4.5  # WCAG's AA level


@pytest.mark.parametrize("value", [0, 128, 255])
def test_plates_bear_light_text_on_any_background(value):
    canvas = background(640, 480, value)
    draw_message(canvas, ["a line that is long enough to have a margin"])
    rows, columns = np.nonzero((canvas != value).any(axis=2))
    plate: tuple[int, ...]
    if value == 0:
        plate = (0, 0, 0)
    else:
        plate = color_of(canvas, int(columns.min()), int(rows.min()))
    assert contrast(overlay.WHITE, plate) > 7
    assert contrast(GRAY, plate) > 4.5
    assert canvas.max() == 255  # the text is there


@pytest.mark.parametrize(("width", "height"), [(320, 240), (640, 480), (1920, 1080)])
@pytest.mark.parametrize("value", [0, 255])
def test_box_label_and_chart_are_drawn_in_the_colour_of_the_emotion(width, height, value):
    image = background(width, height, value)
    drawn = annotate(image, [face((0.3 * width, 0.3 * height, 0.4 * height, 0.4 * height), track=4)])
    assert drawn.shape == image.shape
    assert (image == value).all()  # the caller's picture is left alone
    counts = {name: int((drawn == EMOTION_COLORS[name][::-1]).all(axis=2).sum()) for name in EMOTIONS}
    assert max(counts, key=lambda name: counts[name]) == "happy"
    assert min(counts.values()) > 0  # the chart has a bar for every class
    left = round(0.3 * width)
    middle = [color_of(drawn, x, height // 2) for x in range(left - 12, left + 12)]
    assert EMOTION_COLORS["happy"] in middle
    assert overlay.BLACK in middle  # the line's dark edge


def test_bars_are_as_long_as_probabilities():
    drawn = annotate(background(640, 480, 0), [face((200, 100, 150, 150))])

    def bar(name: str) -> int:
        return int((drawn[:, 360:] == EMOTION_COLORS[name][::-1]).all(axis=2).sum(axis=1).max())

    assert bar("happy") / bar("sad") == pytest.approx(0.6 / (0.4 / 6), rel=0.25)


def test_an_uncertain_face_is_gray():
    drawn = annotate(background(640, 480, 0), [face((200, 100, 150, 150), uncertain=True)])
    box = drawn[90:260, 190:360]
    assert (box == GRAY[0]).all(axis=2).sum() > 300
    assert not (box == EMOTION_COLORS["happy"][::-1]).all(axis=2).any()


def test_texts_do_not_cover_other_faces():
    boxes = [(60.0, 150.0, 150.0, 150.0), (230.0, 160.0, 150.0, 150.0), (400.0, 150.0, 150.0, 150.0)]
    drawn = annotate(background(640, 480, 99), [face(box, track=number) for number, box in enumerate(boxes, 1)])
    for x, y, w, h in boxes:
        inner = drawn[round(y) + 6 : round(y + 0.7 * h), round(x) + 6 : round(x + w) - 6]
        assert (inner == 99).all()


def test_labels_of_a_crowd_find_places_between_its_faces():
    """The faces of a photograph of fifteen people on a narrow staircase, some of whom hide others."""
    crowd = (
        (166, 324, 72), (109, 562, 95), (407, 302, 68), (349, 428, 90), (557, 557, 106), (469, 171, 57), (290, 188, 58),
        (288, 654, 86), (466, 256, 58), (228, 405, 79), (446, 122, 51), (278, 121, 51), (277, 258, 59), (458, 363, 80),
        (387, 185, 46),
    )  # fmt: skip
    drawn = annotate(background(853, 1280, 90), [face((x, y, side, side)) for x, y, side in crowd])
    for x, y, side in crowd:
        inside = drawn[y + side // 4 : y + side - 5, x + 5 : x + side - 5, ::-1]  # under the strip, without the edge
        assert (inside == EMOTION_COLORS["happy"]).all(axis=2).mean() < 0.15  # other boxes' edges


@pytest.mark.parametrize("between", [0, 28, 60])
def test_a_chart_in_a_crowd_becomes_a_strip_that_leaves_mouth_and_chin_free(between):
    tops = range(30, 400, 76 + between)
    boxes = [(x, y, 76.0, 76.0) for x in range(2, 600, 80) for y in tops]
    drawn = annotate(background(640, 480, 99), [face(box) for box in boxes])
    x, y, w, h = (round(side) for side in boxes[len(tops) + 1])
    assert (drawn[y + round(0.6 * h) : y + h - 5, x + 5 : x + w - 5] == 99).all()
    # A tip of it, in columns that neither the label nor the box has in that colour.
    around = (drawn[y - 25 : y + h + 40, x + 5 : x + w - 5] == EMOTION_COLORS["sad"][::-1]).all(axis=2)
    assert around.any()
    if between == 60:  # there is room outside
        assert (drawn[y + 5 : y + h - 5, x + 5 : x + w - 5] == 99).all()


def test_a_label_that_is_wider_than_the_picture_is_drawn_as_far_as_it_goes():
    turned = face((10, 200, 40, 40), track=1, uncertain=True, turned=180)
    drawn = annotate(background(60, 400, 90), [turned])
    above = drawn[: 200 * len(drawn) // 400 - 4]
    assert (above == GRAY[0]).all(axis=2).sum() > 1000  # the plate of the label


def chart_of(drawn: np.ndarray) -> tuple[int, int]:
    """Left and top of the bars of the one chart in a picture."""
    rows, columns = np.nonzero((drawn == EMOTION_COLORS["sad"][::-1]).all(axis=2))
    return int(columns.min()), int(rows.min())


def test_a_chart_stays_on_its_side_from_frame_to_frame():
    def one(x: float) -> list[Prediction]:
        return [face((x, 150, 120, 120), track=1)]

    image = background(640, 480, 99)
    follows = Annotator()
    assert chart_of(follows(image, one(300)))[0] > 420
    assert chart_of(follows(image, one(510)))[0] < 510  # no room on the right
    assert chart_of(annotate(image, one(300)))[0] > 420  # where it would be by itself
    assert chart_of(follows(image, one(300)))[0] < 300  # where it was
    assert chart_of(follows(image, one(5)))[0] > 125  # no room on the left
    assert chart_of(follows(image, [face((300, 150, 120, 120), track=2)]))[0] > 420  # another face


def test_a_chart_that_is_not_beside_its_face_is_joined_to_it():
    image = background(200, 600, 99)
    (x, y, w, h) = (10, 40, 180, 180)
    drawn = annotate(image, [face((x, y, w, h))])
    top = chart_of(drawn)[1]
    assert top > y + h  # under the face
    happy = (drawn == EMOTION_COLORS["happy"][::-1]).all(axis=2)
    column = happy[y + h - 4 : top - 20].any(axis=1)
    assert column.all()  # from the box down to the edge of the chart
    beside = annotate(background(640, 480, 99), [face((200, 100, 150, 150))])
    assert (beside[120, 353:358] == 99).all(axis=1).sum() <= 5


@pytest.mark.parametrize(("width", "height"), [(1, 1), (48, 48), (7, 300), (3000, 2), (12000, 30)])
def test_any_size_is_drawn_and_small_ones_are_enlarged_by_a_whole_factor(width, height):
    drawn = annotate(background(width, height, 50), [face(None), face((-5, -5, 20, 20)), face((1e4, 1e4, 5, 5))])
    assert drawn.shape[0] % height == drawn.shape[1] % width == 0
    assert drawn.shape[0] // height == drawn.shape[1] // width
    if (width, height) == (48, 48):
        assert drawn.shape == (240, 240, 3)
    draw_status(drawn, ["29.8 fps", "detect 4 ms"], recording=True)
    draw_message(drawn, ["paused"])


def test_other_classes_than_ours_are_drawn_too():
    drawn = annotate(
        background(640, 480, 0), [Prediction("bored", 0.7, {"bored": 0.7, "keen": 0.3}, (200, 100, 99, 99))]
    )
    assert (drawn == GRAY[0]).any()


def test_the_status_says_that_a_video_is_recorded():
    quiet, recording = background(640, 480, 0), background(640, 480, 0)
    draw_status(quiet, ["30 fps"])
    draw_status(recording, ["30 fps"], recording=True)
    red = overlay.RED[::-1]
    assert not (quiet == red).all(axis=2).any()
    assert (recording == red).all(axis=2).sum() > 20
    assert not recording[:240].any()  # it keeps to its corner
