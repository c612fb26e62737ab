"""`FaceAnalyzer`: detector, tracker, network and smoothing in one call per frame. Imports no torch."""

import math
import time as clock
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.inference.crop import crop_detections
from fer.inference.detectors import Detector, find_in_still
from fer.inference.pictures import BGRImage
from fer.inference.prediction import Detection, Prediction, predicted
from fer.inference.smoothing import Smoother
from fer.inference.sources import Frame, LiveStream, VideoFile
from fer.inference.tracking import Tracker


class Classifier(Protocol):
    """What is used of `fer.inference.predictor.Predictor`."""

    classes: tuple[str, ...]
    size: int  # pixels per side of the faces that it takes

    def probabilities(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]: ...  # noqa: D102


class Analyzer(Protocol):
    """What is used of `FaceAnalyzer`."""

    timings: dict[str, float]  # milliseconds of the last call by stage

    def __call__(self, image: BGRImage, time: float | None) -> list[Prediction]: ...  # noqa: D102

    def find(self, image: BGRImage, time: float | None) -> "Sighting": ...  # noqa: D102

    def classify(self, sighting: "Sighting") -> list[Prediction]: ...  # noqa: D102


@dataclass(frozen=True)
class Sighting:
    """The faces of a frame, before the network has seen them.

    Attributes:
        faces: uint8 (N, S, S), gray, of the size that the network takes.
        detections: where they are, and how sure the detector was.
        tracks: their ids; None for a still picture.
        remembered: all ids that may come back.
        time: seconds; None for a still picture.
        begins: whether this is the first frame of a video.
        timings: milliseconds of "detect" and "crop".
    """

    faces: npt.NDArray[np.uint8]
    detections: list[Detection]
    tracks: list[int] | None
    remembered: set[int]
    time: float | None
    begins: bool
    timings: dict[str, float]


class FaceAnalyzer:
    """What every face in view shows, frame after frame, or in one still picture.

    A call is `find` and then `classify`. In a video file, which waits, the next frame may be searched by another thread
    while this one is classified: the two share nothing but the `Sighting`.

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
        predictor: Classifier,
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
        self._tracker = Tracker()
        self._smoothers: dict[int, Smoother] = {}
        self._since_detection = detect_every
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
        return self.classify(self.find(image, time))

    def find(self, image: BGRImage, time: float | None = None) -> Sighting:
        """The first half of a call: detector, tracker and crop. Arguments as there."""
        started = clock.perf_counter()
        begins = time is not None and time < self._time
        tracks: list[int] | None = None
        detecting = 0.0
        if time is None:
            detections = find_in_still(self._detector, image)
            detecting = _milliseconds_since(started)
        else:
            if begins:
                self._tracker = Tracker()
                self._since_detection = self._detect_every
            self._time = time
            if self._since_detection >= self._detect_every or self._tracker.doubtful:
                self._tracker.update(self._detector(image), time)
                detecting = _milliseconds_since(started)
                self._since_detection = 0
            self._since_detection += 1
            visible = self._tracker.visible
            tracks = [track.id for track in visible]
            detections = [Detection(track.box, track.score) for track in visible]
        started = clock.perf_counter()
        faces = crop_detections(image, detections, self._predictor.size)
        return Sighting(
            faces,
            detections,
            tracks,
            self._tracker.ids,
            time,
            begins,
            {"detect": detecting, "crop": _milliseconds_since(started)},
        )

    def classify(self, sighting: Sighting) -> list[Prediction]:
        """The second half of a call: network and smoothing; in the order of the frames."""
        started = clock.perf_counter()
        rows = self._predictor.probabilities(sighting.faces)
        self.timings = {**sighting.timings, "classify": _milliseconds_since(started)}
        classes = self._predictor.classes
        if sighting.tracks is None or sighting.time is None:
            return [
                predicted(classes, row, detection, min_confidence=self._min_confidence)
                for row, detection in zip(rows, sighting.detections, strict=True)
            ]
        if sighting.begins:
            self._smoothers = {}
        self._smoothers = {id: smoother for id, smoother in self._smoothers.items() if id in sighting.remembered}
        predictions = []
        for row, track, detection in zip(rows, sighting.tracks, sighting.detections, strict=True):
            smoother = self._smoothers.setdefault(track, Smoother(self._smoothing))
            smoothed, label = smoother(row, sighting.time)
            predictions.append(predicted(classes, row, detection, track, smoothed, label, self._min_confidence))
        return predictions


def watch(
    source: VideoFile | LiveStream, analyzer: Analyzer
) -> Generator[tuple[Frame | None, list[Prediction]], None, None]:
    """Every frame with its faces; None instead of a frame while a camera gives nothing.

    A file's next frame is read and searched by a second thread while the network works on this one. Not so a live
    source's, which would be older by the time that it is shown.
    """
    if source.live:
        for frame in source:
            yield frame, [] if frame is None else analyzer(frame.image, frame.time)
        return
    frames = iter(source)

    def search() -> tuple[Frame, Sighting] | None:
        frame = next(frames, None)
        return None if frame is None else (frame, analyzer.find(frame.image, frame.time))

    with ThreadPoolExecutor(1, "search") as pool:
        pending = pool.submit(search)
        while (found := pending.result()) is not None:
            pending = pool.submit(search)
            frame, sighting = found
            yield frame, analyzer.classify(sighting)


def _milliseconds_since(started: float) -> float:
    return 1000 * (clock.perf_counter() - started)
