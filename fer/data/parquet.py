"""Reads parquet files of faces, as Hugging Face's `datasets` writes them: a picture and a label in each row.

Takes the names of the files for the splits (`data/train-00000-of-00001.parquet`). Needs pyarrow, the extra `[parquet]`.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from fer.data.container import Container
from fer.data.decode import BATCH, Images, decode
from fer.data.faces import UNSPLIT, Faces
from fer.data.folder import split_of
from fer.data.layouts import emotions_of_labels
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS

_PICTURES = ("image", "img", "img_bytes", "image_bytes", "pixels")
_LABELS = ("label", "labels", "emotion")


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
    label in `label` (or labels, emotion), as a name or a number; rows without one are left out. What numbers stand for
    is said by the names that `datasets` keeps in the file, else by `fer.data.layouts.emotions_of_labels`.

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
    images: list[Images] = []
    labels: list[object] = []
    splits: list[int] = []
    rows: list[str] = []
    for file in sorted(files):
        with container.open(file) as stream:
            content = pyarrow.BufferReader(stream.read())
        try:
            faces, given, numbered = _read(pyarrow.parquet.ParquetFile(content), file, source, size)
        except pyarrow.ArrowException as error:
            raise UserError(f"{source}: {file} is no parquet file, or damaged ({error}); download it again") from error
        images.append(faces)
        labels += given
        splits += [_split_of(file)] * len(given)
        rows += numbered
    if not labels:
        raise UserError(f"{source} holds no rows; download it again")
    codes, form = _codes(labels, splits, source, layout, names, emotions)
    kept = np.array([code is not None for code in codes])
    notes = [] if kept.all() else [f"{source}: left out {int((~kept).sum()):,} rows that are labelled with no emotion"]
    found = Faces(
        images[0] if len(images) == 1 else np.concatenate(images),
        np.array([code or 0 for code in codes], np.int64),
        np.array(splits, np.int8),
        np.array(rows, np.str_),
        form=f"parquet ({form})",
        emotions=tuple(emotions),
    )
    return (found if kept.all() else found.select(kept)), notes


def _read(table: Any, file: str, source: str, size: int) -> tuple[Images, list[object], list[str]]:
    """The faces, labels and rows' names of one `pyarrow.parquet.ParquetFile`."""
    picture, label = _columns(table.schema_arrow.names, f"{source}: {file}")
    known = _names_of_codes(table.schema_arrow.metadata, label)
    labels: list[object] = []
    rows: list[str] = []

    def batches() -> Iterator[Callable[[], Iterator[tuple[int, bytes]]]]:
        for batch in table.iter_batches(BATCH, columns=[picture, label]):
            yield partial(contents, batch.column(0), len(rows))
            for code in batch.column(1).to_pylist():
                if isinstance(code, list | dict):
                    raise UserError(
                        f"{source}: {file}, row {len(labels):,}, has a {type(code).__name__} as its {label}; write "
                        "one name or number there"
                    )
                if isinstance(code, float) and code.is_integer():
                    code = int(code)
                labels.append(known[code] if isinstance(code, int) and 0 <= code < len(known) else code)
            for path in _paths(batch.column(0)):
                rows.append(f"{file}:{len(rows)}" + (f":{path}" if path else ""))

    def contents(pictures: Any, start: int) -> Iterator[tuple[int, bytes]]:
        for row, given in enumerate(pictures.to_pylist(), start):
            content = given.get("bytes") if isinstance(given, dict) else given
            if not isinstance(content, bytes):
                raise UserError(
                    f"{source}: {file}, row {row:,}, holds no picture's bytes but {type(content).__name__}; "
                    "take a copy that has the pictures in it"
                )
            yield row, content

    said = table.metadata.num_rows
    damaged = UserError(f"{source}: {file} does not hold the {said:,} rows that it promises; download it again")
    try:
        faces = np.empty((said, size, size), np.uint8)
    except (MemoryError, ValueError) as error:
        raise damaged from error
    if broken := decode(batches(), faces):
        row = min(broken)
        raise UserError(
            f"{source}: {file}, row {row:,}, is no picture that can be read; download the data again"
        ) from broken[row]
    if len(rows) != len(faces):
        raise damaged
    return faces, labels, rows


def _paths(pictures: Any) -> list[str | None]:
    """What a column of structs says that the pictures were called; None for each where it does not."""
    known = hasattr(pictures, "field") and pictures.type.get_field_index("path") >= 0
    return cast(list[str | None], pictures.field("path").to_pylist()) if known else [None] * len(pictures)


def _columns(columns: Sequence[str], where: str) -> tuple[str, str]:
    """The names of those that hold pictures and labels."""
    picture = next((column for column in _PICTURES if column in columns), None)
    label = next((column for column in _LABELS if column in columns), None)
    if picture is None or label is None:
        raise UserError(
            f"{where} has the columns {', '.join(columns)}; a picture ({', '.join(_PICTURES)}) and a "
            f"label ({', '.join(_LABELS)}) are needed"
        )
    return picture, label


def _split_of(file: str) -> int:
    """By the file's name, "train-00000-of-00001.parquet", or the folder it lies in."""
    folder, _, name = file.rpartition("/")
    found = split_of(re.split("[-.0-9]", name, maxsplit=1)[0])
    return found if found != UNSPLIT else split_of(folder)


def _names_of_codes(metadata: dict[bytes, bytes] | None, column: str) -> list[str]:
    """The class names that `datasets` keeps beside a column of numbers; empty where there are none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _codes(
    labels: list[object],
    splits: list[int],
    source: str,
    layout: str | None,
    names: Sequence[str] | None,
    emotions: Sequence[str],
) -> tuple[list[int | None], str]:
    """Positions in `emotions`, and by what they were found."""
    if all(label == -1 for label in labels):
        raise UserError(f"{source} holds no labels, only -1; take a copy that has them")
    found, form = emotions_of_labels(labels, splits, f"{source}: the labels", layout, names, emotions)
    if all(code is None for code in found):
        example = str(labels[0])[:40]
        raise UserError(f"{source}: its labels are no emotions, such as {example!r}; give another data.path")
    return found, form or "names"
