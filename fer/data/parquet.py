"""Reads parquet files of faces, as Hugging Face's `datasets` writes them: a picture and a label in each row.

Takes the names of the files for the splits (`data/train-00000-of-00001.parquet`). Needs pyarrow, the extra `[parquet]`.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fer.data.container import Container
from fer.data.decode import face_of
from fer.data.faces import TRAIN, UNSPLIT, Faces
from fer.data.folder import split_of_folder
from fer.data.layouts import emotions_of_codes
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, emotion_from_spelling

_PICTURES = ("image", "img", "img_bytes", "image_bytes", "pixels")
_LABELS = ("label", "labels", "emotion")
_BATCH = 1024  # rows whose bytes are in memory at once


def is_parquet(name: str) -> bool:
    """Whether a file called `name` is taken for parquet."""
    return name.lower().endswith(".parquet")


def read_parquet(
    container: Container,
    files: Sequence[str],
    source: str,
    size: int,
    layout: str | None = None,
    names: Sequence[str] | None = None,
    emotions: Sequence[str] = ALL_EMOTIONS,
) -> tuple[Faces, list[str]]:
    """All faces of the files, in the order of their names and rows, and what the user should be told.

    The picture is in a column `image` (or img, img_bytes), as encoded bytes or as a struct of `bytes` and `path`; the
    label in `label` (or labels, emotion), as a name or a number. What numbers stand for is said by the names that
    `datasets` keeps in the file, else by `fer.data.layouts.emotions_of_codes`.

    Args:
        container: where the files lie.
        files: their names in it.
        source: what messages call it.
        size: pixels per side of the faces.
        layout, names, emotions: as `fer.data.layouts.find` has them.

    Raises:
        UserError: pyarrow is missing; a file is damaged or holds something else; labels that nobody explains.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{source} is parquet, and pyarrow is not installed: pip install 'fer-lightning[parquet]', or convert it"
        ) from error
    images: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
    labels: list[str | int] = []
    splits: list[int] = []
    rows: list[str] = []
    for file in sorted(files):
        split, first = _split_of(file), len(rows)
        with container.open(file) as stream:
            content = pyarrow.BufferReader(stream.read())
        try:
            table = pyarrow.parquet.ParquetFile(content)
            columns = table.schema_arrow.names
            picture = next((column for column in _PICTURES if column in columns), None)
            label = next((column for column in _LABELS if column in columns), None)
            if picture is None or label is None:
                raise UserError(
                    f"{source}: {file} has the columns {', '.join(columns)}; a picture ({', '.join(_PICTURES)}) and a "
                    f"label ({', '.join(_LABELS)}) are needed"
                )
            known = _names_of_codes(table.schema_arrow.metadata, label)
            for batch in table.iter_batches(_BATCH, columns=[picture, label]):
                pictures, given = batch.column(0).to_pylist(), batch.column(1).to_pylist()
                for number, (one, value) in enumerate(zip(pictures, given, strict=True), start=len(rows) - first):
                    images.append(_face(one, f"{source}: {file}, row {number:,}", size))
                    labels.append(known[value] if known and isinstance(value, int) and value < len(known) else value)
                    rows.append(_row_name(one, file, number))
                splits += [split] * len(given)
        except pyarrow.ArrowException as error:
            raise UserError(f"{source}: {file} is no parquet file, or damaged ({error}); download it again") from error
    if not labels:
        raise UserError(f"{source} holds no rows; download it again")
    codes, form = _codes(labels, splits, source, layout, names, emotions)
    kept = np.array([code is not None for code in codes])
    notes = [] if kept.all() else [f"{source}: left out {int((~kept).sum()):,} rows that are labelled with no emotion"]
    faces = Faces(
        np.stack(images),
        np.array([-1 if code is None else code for code in codes], np.int64).clip(min=0),
        np.array(splits, np.int8),
        np.array(rows, np.str_),
        form=f"parquet ({form})",
        emotions=tuple(emotions),
    )
    return (faces if kept.all() else faces.select(kept)), notes


def _split_of(file: str) -> int:
    """By the file's name, "train-00000-of-00001.parquet", or the folder it lies in."""
    stem = PurePosixPath(file).stem
    found = split_of_folder(re.split("[-.0-9]", stem, maxsplit=1)[0])
    return found if found != UNSPLIT else split_of_folder(str(PurePosixPath(file).parent))


def _names_of_codes(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """The class names that `datasets` keeps beside a column of numbers; empty where there are none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _face(picture: Any, where: str, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(content, bytes):
        kind = type(content).__name__
        raise UserError(f"{where}, holds no picture's bytes but {kind}; take a copy that has the pictures in it")
    try:
        return face_of(content, size)
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise UserError(f"{where}, is no picture that can be read; download the data again") from error


def _row_name(picture: Any, file: str, number: int) -> str:
    path = picture.get("path") if isinstance(picture, dict) else None
    return f"{file}:{number}" + (f":{path}" if path else "")


def _codes(
    labels: list[str | int],
    splits: list[int],
    source: str,
    layout: str | None,
    names: Sequence[str] | None,
    emotions: Sequence[str],
) -> tuple[list[int | None], str]:
    """Positions in `emotions`, and by what they were found."""
    if all(isinstance(label, int) for label in labels):
        numbers = [int(label) for label in labels]
        train = Counter(number for number, split in zip(numbers, splits, strict=True) if split == TRAIN)
        table, form = emotions_of_codes(Counter(numbers), train, f"{source}: the labels", layout, names, emotions)
        return [table[number] for number in numbers], form
    found = [emotion_from_spelling(str(label), emotions) for label in labels]
    if not any(found):
        example = str(labels[0])[:40]
        raise UserError(f"{source}: its labels are no emotions, such as {example!r}; give another data.path")
    return [None if emotion is None else emotions.index(emotion) for emotion in found], "names"
