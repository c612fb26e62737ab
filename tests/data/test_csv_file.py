import io

import numpy as np
import pytest

from fer.data.csv_file import read_csv
from fer.data.faces import UNSPLIT
from fer.errors import UserError

FER2013_CSV = ("emotion", "pixels", "Usage")
ICML_FACE_DATA_CSV = ("emotion", " Usage", " pixels")
TRAIN_CSV = ("emotion", "pixels")


def read_text(text: str | bytes):
    return read_csv(io.BytesIO(text.encode() if isinstance(text, str) else text), "faces.csv")


def assert_same(found, expected):
    for field in ("images", "labels", "splits", "ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def with_row(text: str, row: int, **changes: str) -> str:
    """`text` with some columns of a data row replaced."""
    lines = text.split("\n")
    fields = dict(zip(lines[0].split(","), lines[row + 1].split(","), strict=True)) | changes
    lines[row + 1] = ",".join(fields.values())
    return "\n".join(lines)


def pixels(*values: object) -> str:
    """2,304 pixels that begin with `values`."""
    return " ".join(map(str, [*values, *[7] * (2304 - len(values))]))


@pytest.mark.parametrize("columns", [FER2013_CSV, ICML_FACE_DATA_CSV])
@pytest.mark.parametrize("count", [1, 256, 600])
def test_reads_what_was_written(some_faces, csv_text, columns, count):
    faces = some_faces(count)
    found = read_text(csv_text(faces, columns))
    assert_same(found, faces)
    assert (found.images.dtype, found.labels.dtype, found.splits.dtype) == (np.uint8, np.int64, np.int8)


def test_a_csv_without_usage_is_unsplit(some_faces, csv_text):
    faces = some_faces(5)
    found = read_text(csv_text(faces, TRAIN_CSV))
    np.testing.assert_array_equal(found.images, faces.images)
    assert found.splits.tolist() == [UNSPLIT] * 5


def test_every_gray_value_in_every_place():
    # Each value stands first, last and between others of all lengths.
    rows = [[value, *range(256), *[0] * 2046, value] for value in range(256)]
    text = "emotion,pixels\n" + "".join(f"0,{' '.join(map(str, row))}\n" for row in rows)
    np.testing.assert_array_equal(read_text(text).images.reshape(256, -1), rows)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="windows line ends"),
        pytest.param(lambda text: "\ufeff" + text, id="byte order mark"),
        pytest.param(lambda text: text.replace("\n", "\n\n") + " \n", id="blank lines"),
        pytest.param(lambda text: text.rstrip("\n"), id="no last line end"),
        pytest.param(lambda text: text.replace(" ", "  "), id="two spaces"),
        pytest.param(lambda text: text.replace(" ", "\t"), id="tabs"),
        pytest.param(lambda text: text.replace(",", ", "), id="space after comma"),
        pytest.param(
            lambda text: "".join('"' + line.replace(",", '","') + '"\n' for line in text.splitlines()), id="quoted"
        ),
        pytest.param(lambda text: text.replace(" 7 ", " 007 "), id="leading zeros"),
        pytest.param(lambda text: text.replace("emotion", "Emotion").replace("Usage", "usage"), id="letter case"),
    ],
)
def test_unusual_but_plain_text(some_faces, csv_text, change):
    faces = some_faces(4)
    assert_same(read_text(change(csv_text(faces))), faces)


@pytest.mark.parametrize("row", [0, 2, 299])
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"pixels": "1 2 3"}, "has 3 pixels, not 48x48 = 2,304"),
        ({"pixels": ""}, "has 0 pixels"),
        ({"pixels": pixels() + " 7"}, "has 2,305 pixels"),
        ({"pixels": pixels(1, 300)}, "has '300' as pixel 1, not a whole number from 0 to 255"),
        ({"pixels": pixels(256)}, "has '256' as pixel 0"),
        ({"pixels": pixels(65536)}, "has '65536' as pixel 0"),
        ({"pixels": pixels(-5)}, "has '-5' as pixel 0"),
        ({"pixels": pixels("7.5")}, "has '7.5' as pixel 0"),
        ({"pixels": pixels("1_0")}, "has '1_0' as pixel 0"),
        ({"pixels": pixels("x" * 100)}, "has 'xxxx"),
        ({"pixels": pixels("nan")}, "has 'nan' as pixel 0"),
        ({"emotion": "8"}, "has the label '8', which is none of 0 angry, 1 disgust"),
        ({"emotion": ""}, "has the label ''"),
        ({"Usage": "Train"}, "has the Usage 'Train', which is none of Training, PublicTest, PrivateTest"),
        ({"Usage": "Training,1"}, "has 4 columns where the header has 3"),
    ],
)
def test_a_bad_row_is_named(some_faces, csv_text, row, changes, fault):
    text = with_row(csv_text(some_faces(300)), row, **changes)
    with pytest.raises(UserError) as error:
        read_text(text)
    assert f"faces.csv, line {row + 2} (row {row}), {fault}" in str(error.value)
    assert "mend or delete the line" in str(error.value)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_a_short_row_does_not_hide_behind_a_long_one(some_faces, csv_text):
    text = csv_text(some_faces(10))
    text = with_row(with_row(text, 3, pixels=pixels().removesuffix(" 7")), 4, pixels=pixels() + " 7")
    with pytest.raises(UserError, match=r"line 5 \(row 3\), has 2,303 pixels"):
        read_text(text)


def test_line_numbers_count_blank_lines(some_faces, csv_text):
    text = with_row(csv_text(some_faces(3)), 1, emotion="9").replace("\n", "\n\n")
    with pytest.raises(UserError, match=r"line 5 \(row 1\)"):
        read_text(text)


def test_a_file_cut_off_in_the_middle_of_a_row(some_faces, csv_text):
    text = csv_text(some_faces(3))
    with pytest.raises(UserError, match=r"line 4 \(row 2\), has 2 columns"):
        read_text(text[:-100])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty or starts with a blank line"),
        (b"emotion,pixels,Usage\n", "has a header but no rows"),
        (f"0,{pixels()},Training\n".encode(), "has no header: put the names of its columns, emotion,pixels,Usage"),
        (f"pixels\n{pixels()}\n".encode(), "Kaggle's test.csv has no labels"),
        (b"Usage,Image name,neutral\nTraining,fer1.png,3\n", "has no column emotion and no column pixels"),
        (b"emotion;pixels;Usage\n", "has semicolons between its columns; save it with commas"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no UTF-8 text"),
        ("emotion,pixels\n".encode("utf-16"), "is no UTF-8 text"),
        (b"emotion\0,pixels\n", "is no UTF-8 text"),
        (bytes(1_000_000), "is no UTF-8 text"),
        ("émotion,pixels\n".encode("latin-1"), "is no UTF-8 text"),
    ],
)
def test_what_is_no_fer2013_csv(content, message):
    with pytest.raises(UserError) as error:
        read_text(content)
    assert message in str(error.value)
    assert str(error.value).startswith("faces.csv ")
    assert len(str(error.value)) < 300
