"""Predictions as a table of pandas, where that is installed."""

import sys

import pytest

from fer.errors import UserError
from fer.inference.prediction import Prediction, to_frame

FACE = Prediction("happy", 0.75, {"happy": 0.6, "sad": 0.4}, (1, 2, 30, 30), 3, 0.9, {"happy": 0.75, "sad": 0.25})
CROP = Prediction("sad", 0.8, {"happy": 0.2, "sad": 0.8})


def test_a_row_per_face():
    pytest.importorskip("pandas", reason="pandas is not installed")
    table = to_frame([FACE, CROP])
    assert list(table.columns) == [
        *("track", "x", "y", "w", "h", "score", "emotion", "confidence"),
        *("probability_happy", "probability_sad", "smoothed_happy", "smoothed_sad"),
    ]
    assert table.emotion.tolist() == ["happy", "sad"]
    assert table.w[0] == 30
    assert table.smoothed_happy.tolist() == [0.75, 0.2]
    assert table.x.isna().tolist() == [False, True]


def test_faces_of_several_pictures_are_numbered():
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert to_frame([[FACE], [], [CROP, CROP]]).picture.tolist() == [0, 2, 2]
    assert to_frame([]).empty


@pytest.mark.parametrize(("predictions", "first"), [([], "track"), ([[], []], "picture")])
def test_no_faces_have_columns(predictions, first):
    pytest.importorskip("pandas", reason="pandas is not installed")
    columns = ["picture", "track", "x", "y", "w", "h", "score", "emotion", "confidence"]
    table = to_frame(predictions)
    assert list(table.columns) == columns[columns.index(first) :]
    assert table.empty


def test_without_pandas_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        to_frame([FACE])
