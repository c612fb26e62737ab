"""Small files as Hugging Face's `datasets` writes them: huggingface.co/docs/hub/datasets-image, "Parquet format"."""

import builtins
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fer.data import layouts, reader
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL
from fer.data.reader import read
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow, the extra [parquet], is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra [parquet], is not installed")

SPELT = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


def noise(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def encoded(seed: int, side: int = 48) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(seed, side)).save(file, "png")
    return file.getvalue()


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None, label: str = "label") -> Path:
    """A file with these columns, and with class names as `datasets` keeps them."""
    table = pyarrow.table(columns)
    if names is not None:
        features = {label: {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def pictures(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": encoded(start + i), "path": f"{start + i}.png"} for i in range(count)]


def message(path: Path, **how: object) -> str:
    with pytest.raises(UserError) as error:
        read(path, **how)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_splits_by_file_and_classes_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = [*reversed(SPELT), "contempt"]  # of nobody's
    for start, part in enumerate(("train", "validation", "test")):
        columns = {"image": pictures(8, 8 * start), "label": list(range(8))}
        write(tmp_path / "data" / f"{part}-00000-of-00001.parquet", columns, order)
    with caplog.at_level(logging.INFO):
        faces = read(tmp_path)
    assert [ALL_EMOTIONS[label] for label in faces.labels[:8]] == [*reversed(EMOTIONS), "contempt"]
    assert faces.splits.tolist() == [TEST] * 8 + [TRAIN] * 8 + [VAL] * 8  # in the order of the files' names
    for row, image in zip(faces.ids, faces.images, strict=True):
        np.testing.assert_array_equal(image, noise(int(row.rpartition(":")[2].removesuffix(".png"))))
    assert f"{tmp_path}: parquet (names): train 8 (angry 1, disgust 1" in caplog.text
    assert (read(tmp_path).images == faces.images).all()  # from the cache


def test_plain_bytes_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", {"img_bytes": [encoded(i) for i in range(6)], "labels": [0, 0, 1, 2, 2, 2]})
    found = message(path)
    assert "the labels are called 0, 1, 2, and nothing says which emotion is which" in found
    assert "data.layout=fer2013 (0 angry, 1 disgust" in found
    assert read(path, layout="fer2013").labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert read(path, names=["sad", "happy", "angry"]).labels.tolist() == [4, 4, 3, 0, 0, 0]
    monkeypatch.setattr(layouts, "FINGERPRINTS", {(2, 1, 3): "fer2013"})
    faces = read(path)
    assert faces.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert set(faces.splits) == {UNSPLIT}
    assert faces.form == "parquet (FER2013)"


def test_rows_without_a_label_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`datasets` writes -1 for them."""
    write(tmp_path / "train.parquet", {"image": pictures(3), "label": [0, -1, 6]}, SPELT)
    faces = read(tmp_path)
    assert [ALL_EMOTIONS[label] for label in faces.labels] == ["angry", "neutral"]
    assert "left out 1 rows that are labelled with no emotion" in caplog.text
    write(tmp_path / "train.parquet", {"image": pictures(2), "label": [-1, -1]}, SPELT)
    with pytest.raises(UserError, match="holds no labels, only -1"):
        read(tmp_path / "train.parquet")


@pytest.mark.parametrize("none", [-1, None])
@pytest.mark.parametrize("kind", [int, float, str])
@pytest.mark.parametrize("how", [{"layout": "fer2013"}, {"names": EMOTIONS}, {}])
def test_numbers_of_any_type_without_those_that_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, none: object, kind: type, how: dict[str, object]
) -> None:
    labels = [none if none is None else kind(none), *(kind(code) for code in (6, 0, 1, 2, 3, 4, 5))]
    known = None if how or kind is str else SPELT
    if known is None and not how:
        labels[1:] = SPELT[-1:] + SPELT[:-1]
    path = write(tmp_path / "train.parquet", {"image": pictures(8), "label": labels}, known)
    assert read(path, **how).labels.tolist() == [6, 0, 1, 2, 3, 4, 5]  # type: ignore[arg-type]
    assert "left out 1 rows that are labelled with no emotion" in caplog.text


@pytest.mark.parametrize(("label", "kind"), [([1, 2], "list"), ({"id": 1}, "dict")])
def test_a_label_of_several_parts_is_refused(tmp_path: Path, label: object, kind: str) -> None:
    path = write(tmp_path / "x.parquet", {"image": pictures(1), "label": [label]})
    assert f"x.parquet, row 0, has a {kind} as its label; write one name or number" in message(path)


def test_names_as_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"image": pictures(4), "emotion": ["Joy", "sadness", "boredom", "calm"]}
    faces = read(write(tmp_path / "train.parquet", columns))
    assert [ALL_EMOTIONS[label] for label in faces.labels] == ["happy", "sad", "neutral"]
    assert [row.rpartition(":")[2] for row in faces.ids] == ["0.png", "1.png", "3.png"]
    assert "left out 1 rows that are labelled with no emotion" in caplog.text


def test_a_parquet_of_something_else(tmp_path: Path) -> None:
    path = write(tmp_path / "text.parquet", {"text": ["I am happy"], "label": [1]})
    assert "text.parquet has the columns text, label; a picture (image, img" in message(path)
    path = write(tmp_path / "cats.parquet", {"image": pictures(2), "label": ["cat", "dog"]})
    assert "its labels are no emotions, such as 'cat'" in message(path)
    path = write(tmp_path / "links.parquet", {"image": ["http://a/1.png"], "label": ["happy"]})
    assert "links.parquet, row 0, holds no picture's bytes but str" in message(path)
    path = write(tmp_path / "broken.parquet", {"image": [b"no picture"], "label": ["happy"]})
    assert "broken.parquet, row 0, is no picture that can be read" in message(path)
    path = write(
        tmp_path / "none.parquet", {"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], "i8")}
    )
    assert "holds no rows" in message(path)
    whole = (tmp_path / "cats.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cut.parquet is no parquet file, or damaged" in message(tmp_path / "cut.parquet")


@pytest.mark.parametrize("rows", [3, 10**14])  # a row of 2,304 bytes: more than there is memory
def test_a_file_that_promises_more_rows_than_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    write(tmp_path / "two.parquet", {"image": pictures(2), "label": ["happy", "sad"]})

    promised = {"metadata": SimpleNamespace(num_rows=rows, num_row_groups=1)}
    monkeypatch.setattr(parquet, "ParquetFile", type("Promising", (parquet.ParquetFile,), promised))
    with pytest.raises(UserError, match=f"two.parquet does not hold the {rows:,} rows that it promises"):
        read(tmp_path / "two.parquet")


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "two.parquet", {"image": pictures(2), "label": ["happy", "sad"]})
    parse = reader._parse
    parsed: list[Path] = []

    def counted(source: Path, *given: Any) -> Any:
        parsed.append(source)
        return parse(source, *given)

    monkeypatch.setattr(reader, "_parse", counted)
    assert len(read(path)) == len(read(path)) == 2
    assert parsed == [path]
    write(path, {"image": pictures(3), "label": ["happy", "sad", "fear"]})
    assert len(read(path)) == 3
    assert parsed == [path, path]


def test_a_large_file_is_hashed_in_pieces_and_a_files_neighbours_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "data" / "two.parquet", {"image": pictures(2), "label": ["happy", "sad"]})
    monkeypatch.setattr("fer.data.container._MOST_BYTES", 1000)
    assert path.stat().st_size > 1000
    assert len(read(path.parent)) == len(read(path.parent)) == 2
    monkeypatch.delattr("os.walk")
    assert len(read(path)) == len(read(path)) == 2


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.parquet", {"image": pictures(1), "label": ["happy"]})
    original: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "pip install 'fer-lightning[parquet]'" in message(path)
