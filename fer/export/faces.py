"""The faces that an export is calibrated with and checked on. Knows nothing of networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fer.data.datamodule import FER2013DataModule
from fer.data.faces import SIZE, TRAIN, VAL, Faces
from fer.data.folder import resized
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS, resolve_classes
from fer.settings.train import DataSettings

CALIBRATION = 512  # faces; 128 and 1024 gave the same labels but for half a percent (docs/export.md)
_DRAWN = 700


@dataclass(frozen=True)
class ExportFaces:
    """What an export needs to see.

    Attributes:
        calibration: uint8 (K, S, S), training rows, as many of each class as there are, up to `CALIBRATION` in all.
        check: uint8 (N, S, S), validation rows.
        targets: int64 (N,), positions in the network's classes; None for drawn faces that nobody asked for.
        source: what `check` is, in words.
    """

    calibration: npt.NDArray[np.uint8]
    check: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64] | None
    source: str


def labelled(data: str, classes: Sequence[str], size: int = SIZE) -> FER2013DataModule:
    """Faces of these classes, divided as in training: of a copy of FER2013 by its official split.

    Args:
        data: as train.py's data.path, or "synthetic".
        classes: of the network.
        size: pixels per side of the faces, S.

    Raises:
        UserError: the data cannot be read, or hold no face of the classes.
    """
    others = not set(classes) <= set(ALL_EMOTIONS)
    path = None if data == "synthetic" else data
    settings = DataSettings(path=path, download=False, classes=list(classes), other_emotions=others, size=size)
    datamodule = FER2013DataModule(settings, judging=True)
    datamodule.setup()
    return datamodule


def load_faces(data: str | None, classes: Sequence[str], size: int = SIZE) -> ExportFaces:
    """Faces of the network's classes.

    Args:
        data: as train.py's data.path; "synthetic" and None draw faces, which count as labelled only if asked for.
        classes: of the network.
        size: pixels per side of the faces that it takes, S.

    Raises:
        UserError: the data cannot be read, or hold faces of fewer than two of the classes.
    """
    if data is not None:  # a checkpoint of another project has its classes as they were typed
        classes = resolve_classes(classes, other_emotions=True)
    drawn = data is None or data == "synthetic"
    if drawn:
        faces = resized(make_faces(len(EMOTIONS) * CALIBRATION // len(classes), _DRAWN, 0, seed=0), size)
    else:
        faces = labelled(str(data), classes, size).faces
    undrawn = [name for name in classes if name not in EMOTIONS]
    if drawn and undrawn:
        if data is not None:
            raise UserError(f"drawn faces show no {', '.join(undrawn)}; give data=PATH with faces of them")
        classes = EMOTIONS  # nobody asks what these faces show: the answers of two networks are compared
    wanted = [faces.emotions.index(name) for name in classes]
    faces = faces.select(np.isin(faces.labels, wanted))
    train, check = faces.select(faces.splits == TRAIN), faces.select(faces.splits == VAL)
    seen = [name for name, code in zip(classes, wanted, strict=True) if (train.labels == code).any()]
    if not seen:
        raise UserError(f"data={data} has no training rows of {', '.join(classes)}; give faces of these classes")
    if len(seen) < 2:
        raise UserError(
            f"the training rows of data={data} show one class only ({seen[0]}); "
            f"numbers measured on them would not fit the others ({', '.join(set(classes) - set(seen))})"
        )
    if not len(check):
        raise UserError(f"data={data} leaves no validation rows to compare on; give more faces")
    return ExportFaces(
        _stratified(train, wanted),
        check.images,
        None if data is None else np.array([wanted.index(code) for code in check.labels], np.int64),
        f"{len(check):,} drawn faces" if drawn else f"{len(check):,} validation rows",
    )


def _stratified(faces: Faces, codes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """`CALIBRATION` images at most, drawn at random, equally many of each class where there are."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(faces.labels == code)) for code in codes]
    chosen = np.concatenate([order[: CALIBRATION // len(codes)] for order in rows])
    return faces.select(chosen).images
