"""`Faces`: a whole data set, the one form that every reader returns. Knows nothing of file formats or torch."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.labels import ALL_EMOTIONS

SIZE = 48  # FER2013's pixels per side
_CHUNK = 8192  # faces that are held in memory while others are copied from disk to disk; 19 MB

# Codes in `Faces.splits`. UNSPLIT: the source names no split (one folder of classes).
UNSPLIT, TRAIN, VAL, TEST = -1, 0, 1, 2
SPLIT_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}


@dataclass(frozen=True)
class Official:
    """Where faces stand in FER2013, as their pictures tell (see `fer.data.official`).

    Attributes:
        rows: int32 (N,), the row of `fer2013.csv`; -1 where it is not known.
        splits: int8 (N,), TRAIN, VAL or TEST; UNSPLIT where it is not known.
        sure: bool (N,), all pixels are those of a row.
    """

    rows: npt.NDArray[np.int32]
    splits: npt.NDArray[np.int8]
    sure: npt.NDArray[np.bool_]

    def select(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Official":
        """The rows that `index` picks."""
        return Official(self.rows[index], self.splits[index], self.sure[index])


@dataclass(frozen=True)
class Faces:
    """All faces of a data set, row by row in the source's order.

    Attributes:
        images: uint8 (N, S, S), gray values; S is 48 unless the source was read at another size. A `np.memmap` where
            they are too many for the memory.
        labels: int64 (N,), positions in `emotions`.
        splits: int8 (N,), one of UNSPLIT, TRAIN, VAL, TEST.
        ids: str (N,), each face's name in its source: the row number of a CSV, the path inside a folder or archive.
        official: where the faces stand in FER2013; None where the source says so itself, or is another data set.
        persons: str (N,), who is shown; "" where the source does not say it. None: it says it nowhere.
        form: what the source was taken for, in words.
        emotions: `fer.labels.ALL_EMOTIONS`, and others that were looked for besides.
        origins: int16 (N,), which of several sources a row is of; None: there is one.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]
    ids: npt.NDArray[np.str_]
    official: Official | None = None
    persons: npt.NDArray[np.str_] | None = None
    form: str = ""
    emotions: tuple[str, ...] = ALL_EMOTIONS
    origins: npt.NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        count = len(self.images)
        assert self.images.shape == (count, *2 * self.images.shape[1:2])
        assert self.images.dtype == np.uint8
        assert self.labels.shape == self.splits.shape == self.ids.shape == (count,)
        assert count == 0 or 0 <= self.labels.min() <= self.labels.max() < len(self.emotions)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Faces":
        """The rows that `index` picks (positions or mask), in its order. On disk as well, if the images are."""
        return replace(
            self,
            images=_pick(self.images, index),
            labels=self.labels[index],
            splits=self.splits[index],
            ids=self.ids[index],
            official=None if self.official is None else self.official.select(index),
            persons=None if self.persons is None else self.persons[index],
            origins=None if self.origins is None else self.origins[index],
        )


def _pick(images: npt.NDArray[np.uint8], index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    positions = np.asarray(np.flatnonzero(index) if index.dtype == np.bool_ else index, np.intp)
    if not isinstance(images, np.memmap) or len(positions) < _CHUNK:
        return np.asarray(images[positions])
    assert images.filename is not None
    return on_disk([(images, positions)], Path(images.filename).parent)


def on_disk(
    pieces: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]], directory: Path
) -> npt.NDArray[np.uint8]:
    """Rows of arrays, one array after the other, in a file that has no name and goes with the process.

    Args:
        pieces: images uint8 (N, S, S) and the positions that are taken.
        directory: of the cache, because /tmp may itself be memory.
    """
    shape = (sum(len(positions) for _, positions in pieces), *pieces[0][0].shape[1:])
    with tempfile.TemporaryFile(dir=directory) as file:
        found = np.memmap(file, np.uint8, "w+", shape=shape)
        found.filename = str(directory / "faces")
    end = 0
    for images, positions in pieces:
        for start in range(0, len(positions), _CHUNK):
            part = positions[start : start + _CHUNK]
            found[end : end + len(part)] = images[part]
            end += len(part)
    return found
