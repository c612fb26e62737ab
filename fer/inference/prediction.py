"""What inference says about one face, and one detected face. Knows nothing of torch, OpenCV or files."""

from dataclasses import dataclass

Box = tuple[float, float, float, float]  # x, y, width, height in pixels of the source picture


@dataclass(frozen=True)
class Detection:
    """One face found by a detector.

    Attributes:
        box: the square that the network is shown (see `fer.inference.detectors`), in pixels of the source picture;
            it may reach past the picture's edges.
        score: the detector's confidence in [0, 1]; None when the picture was taken as a face without looking.
    """

    box: Box
    score: float | None


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
        uncertain: whether `confidence` is under the asked-for minimum.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    box: Box | None = None
    track: int | None = None
    score: float | None = None
    smoothed: dict[str, float] | None = None
    uncertain: bool = False
