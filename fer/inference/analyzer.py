"""`FaceAnalyzer`: detector, tracker, network and smoothing in one call per frame. Imports no torch."""

import math
import time as clock
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.inference.crop import crop_faces
from fer.inference.detectors import BGRImage, Detector
from fer.inference.prediction import Box, Prediction
from fer.inference.predictor import Predictor, by_name
from fer.inference.smoothing import Smoother
from fer.inference.tracking import Tracker


class FaceAnalyzer:
    """What every face in view shows, frame after frame, or in one still picture.

    Args:
        predictor: classifies the faces, those of a frame in one batch.
        detector: finds them.
        detect_every: frames from one detection to the next; between them faces stay where they were found. After one
            that found an unsure new face, or missed a known one, the next frame is searched too.
        smoothing: time constant in seconds of the probabilities shown; 0 turns smoothing and hysteresis off.
        min_confidence: a label with less probability is marked as uncertain.

    Attributes:
        timings: milliseconds of the last call per stage: "detect" (0 where nothing was searched), "crop", "classify".

    Raises:
        UserError: an argument outside its range.
    """

    def __init__(
        self,
        predictor: Predictor,
        detector: Detector,
        detect_every: int = 1,
        smoothing: float = 0.4,
        min_confidence: float = 0.0,
    ) -> None:
        if detect_every < 1:
            raise UserError(f"detect_every={detect_every} must be at least 1")
        if not (0 <= smoothing < math.inf):
            raise UserError(f"smoothing={smoothing} must be a number of seconds; 0 turns it off")
        if not 0 <= min_confidence <= 1:
            raise UserError(f"min_confidence={min_confidence} must be between 0 and 1")
        self._predictor = predictor
        self._detector = detector
        self._detect_every = detect_every
        self._smoothing = smoothing
        self._min_confidence = min_confidence
        self.timings = {"detect": 0.0, "crop": 0.0, "classify": 0.0}
        self.reset()

    def reset(self) -> None:
        """Forgets all faces; ids start at 1 again. For use between two videos."""
        self._tracker = Tracker()
        self._smoothers: dict[int, Smoother] = {}
        self._since_detection = self._detect_every
        self._time = -math.inf

    def __call__(self, image: BGRImage, time: float | None = None) -> list[Prediction]:
        """The faces of a frame.

        Args:
            image: uint8 (H, W, 3), BGR.
            time: seconds, rising from frame to frame of a video; a step back begins a new one. None: a still picture,
                which is searched in any case, and whose faces are neither tracked nor smoothed.

        Returns:
            For a video by track, for a still picture the surest find first.
        """
        return self._still(image) if time is None else self._frame(image, time)

    def _still(self, image: BGRImage) -> list[Prediction]:
        started = clock.perf_counter()
        found = self._detector(image)
        self.timings["detect"] = _milliseconds_since(started)
        rows = self._classify(image, [detection.box for detection in found])
        return [
            self._prediction(row, row, int(row.argmax()), detection.box, None, detection.score)
            for row, detection in zip(rows, found, strict=True)
        ]

    def _frame(self, image: BGRImage, time: float) -> list[Prediction]:
        if time < self._time:
            self.reset()
        self._time = time
        self.timings["detect"] = 0.0
        if self._since_detection >= self._detect_every or self._tracker.doubtful:
            started = clock.perf_counter()
            self._tracker.update(self._detector(image), time)
            self.timings["detect"] = _milliseconds_since(started)
            self._since_detection = 0
            self._smoothers = {id: smoother for id, smoother in self._smoothers.items() if id in self._tracker.ids}
        self._since_detection += 1
        tracks = self._tracker.visible
        rows = self._classify(image, [track.box for track in tracks])
        predictions = []
        for row, track in zip(rows, tracks, strict=True):
            smoother = self._smoothers.setdefault(track.id, Smoother(self._smoothing))
            smoothed, label = smoother(row, time)
            predictions.append(self._prediction(row, smoothed, label, track.box, track.id, track.score))
        return predictions

    def _classify(self, image: BGRImage, boxes: Sequence[Box]) -> npt.NDArray[np.float32]:
        """Probabilities (len(boxes), C)."""
        started = clock.perf_counter()
        faces = crop_faces(image, boxes)
        self.timings["crop"] = _milliseconds_since(started)
        started = clock.perf_counter()
        rows = self._predictor.probabilities(faces)
        self.timings["classify"] = _milliseconds_since(started)
        return rows

    def _prediction(
        self,
        row: npt.NDArray[np.float32],
        smoothed: npt.NDArray[np.float32],
        label: int,
        box: Box,
        track: int | None,
        score: float | None,
    ) -> Prediction:
        classes = self._predictor.classes
        confidence = float(smoothed[label])
        return Prediction(
            label=classes[label],
            confidence=confidence,
            probabilities=by_name(classes, row),
            box=box,
            track=track,
            score=score,
            smoothed=by_name(classes, smoothed),
            uncertain=confidence < self._min_confidence,
        )


def _milliseconds_since(started: float) -> float:
    return 1000 * (clock.perf_counter() - started)
