"""What inference says about one face, and one detected face. Knows nothing of torch, OpenCV or files."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fer.errors import UserError

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the source picture


@dataclass(frozen=True)
class Detection:
    """One face found by a detector.

    Attributes:
        box: the square that the network is shown (see `fer.inference.detectors`), in pixels of the source picture;
            it may reach past the picture's edges.
        score: the detector's confidence in [0, 1]; None when the picture was taken as a face without looking.
        turned: by how many degrees the face is turned clockwise: 0, 90, 180 or 270. Looked at in still pictures.
    """

    box: Box
    score: float | None
    turned: int = 0


@dataclass(frozen=True)
class Prediction:
    """One face's emotion.

    Attributes:
        label: the emotion shown; with smoothing, after smoothing and hysteresis.
        confidence: probability of `label`, in [0, 1].
        probabilities: calibrated probability of every class of the network, by name; this frame alone.
        box: the face's square in the picture; None when the input was already a face crop.
        track: the face's id, the same in every frame of a video; None for faces without time.
        score: the detector's confidence; None when no detector ran.
        smoothed: probabilities averaged over time; equal to `probabilities` when smoothing is off.
        uncertain: whether `confidence` is under the asked-for minimum, or the face had to be turned upright.
        turned: as of `Detection`.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    box: Box | None = None
    track: int | None = None
    score: float | None = None
    smoothed: dict[str, float] | None = None
    uncertain: bool = False
    turned: int = 0


def predicted(
    classes: Sequence[str],
    row: npt.NDArray[np.float32],
    detection: Detection | None = None,
    track: int | None = None,
    smoothed: npt.NDArray[np.float32] | None = None,
    label: int | None = None,
    min_confidence: float = 0.0,
) -> Prediction:
    """What a network's probabilities (C,) say about a face.

    Args:
        classes: of the network.
        row: probabilities of this frame.
        detection: where the face was found; None for a crop.
        track: the face's id.
        smoothed: probabilities over time; None where they are this frame's.
        label: the position of the emotion that is shown; None for the most probable one.
        min_confidence: under which the answer is uncertain.
    """
    shown = row if smoothed is None else smoothed
    best = int(shown.argmax()) if label is None else label
    confidence, turned = float(shown[best]), 0 if detection is None else detection.turned
    return Prediction(
        label=classes[best],
        confidence=confidence,
        probabilities=by_name(classes, row),
        box=None if detection is None else detection.box,
        track=track,
        score=None if detection is None else detection.score,
        smoothed=by_name(classes, shown),
        uncertain=confidence < min_confidence or turned != 0,
        turned=turned,
    )


def by_name(classes: Sequence[str], row: npt.NDArray[np.float32]) -> dict[str, float]:
    """Probabilities (C,) by class name."""
    return dict(zip(classes, row.tolist(), strict=True))


def to_frame(predictions: Sequence[Prediction | Sequence[Prediction]]) -> Any:
    """A `pandas.DataFrame` with a row per face.

    Its columns are those of predictions.csv: track, x, y, w, h, score, emotion, confidence, probability_CLASS and
    smoothed_CLASS; where there is no face, those without a CLASS. The faces of several pictures are numbered by
    picture, from 0, in a first column of that name.

    Args:
        predictions: of one picture, or a list for each of several.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError("to_frame needs pandas: pip install pandas") from error
    rows = []
    for number, one in enumerate(predictions):
        for face in [one] if isinstance(one, Prediction) else one:
            row: dict[str, Any] = {} if isinstance(one, Prediction) else {"picture": number}
            row["track"] = face.track
            row |= zip("xywh", face.box or itertools.repeat(None), strict=False)
            row |= {"score": face.score, "emotion": face.label, "confidence": face.confidence}
            row |= {f"probability_{name}": value for name, value in face.probabilities.items()}
            row |= {f"smoothed_{name}": value for name, value in (face.smoothed or face.probabilities).items()}
            rows.append(row)
    if not rows:  # of no faces, whose classes nobody knows
        columns = ["track", *"xywh", "score", "emotion", "confidence"]
        return pandas.DataFrame({name: [] for name in (["picture", *columns] if predictions else columns)})
    return pandas.DataFrame(rows)
