"""`Faces`: a whole data set in memory, the one form that every reader returns. Knows nothing of files or torch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer.labels import ALL_EMOTIONS

SIZE = 48  # FER2013's pixels per side

# Codes in `Faces.splits`. UNSPLIT: the source names no split (one folder of classes).
UNSPLIT, TRAIN, VAL, TEST = -1, 0, 1, 2
SPLIT_NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}


@dataclass(frozen=True)
class Faces:
    """All faces of a data set, row by row in the source's order.

    Attributes:
        images: uint8 (N, 48, 48), gray values.
        labels: int64 (N,), positions in `fer.labels.ALL_EMOTIONS`.
        splits: int8 (N,), one of UNSPLIT, TRAIN, VAL, TEST.
        rows: str (N,), each row's name in its source: the row number of a CSV, the path inside a folder or archive.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]
    rows: npt.NDArray[np.str_]

    def __post_init__(self) -> None:
        count = len(self.images)
        assert self.images.shape == (count, SIZE, SIZE)
        assert self.images.dtype == np.uint8
        assert self.labels.shape == self.splits.shape == self.rows.shape == (count,)
        assert count == 0 or 0 <= self.labels.min() <= self.labels.max() < len(ALL_EMOTIONS)

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Faces":
        """The rows that `index` picks (positions or mask), in its order."""
        return Faces(self.images[index], self.labels[index], self.splits[index], self.rows[index])
