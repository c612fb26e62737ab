"""`FaceAnalyzer` with a detector and a classifier that answer as told; real clips where they are at hand."""

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.errors import UserError
from fer.inference.analyzer import FaceAnalyzer
from fer.inference.detectors import create_detector
from fer.inference.prediction import Detection

SHARED = Path(os.environ.get("FER_SHARED") or Path(__file__).parents[3] / "shared")
MEDIA = SHARED / "media"
needs_clips = pytest.mark.skipif(not MEDIA.is_dir(), reason=f"there are no clips at {MEDIA}")

FPS = 30
FRAME = np.zeros((240, 320, 3), np.uint8)


class Told:
    """A detector that finds `faces`: (x, score) of squares of 50 px."""

    def __init__(self, *faces: tuple[float, float | None]) -> None:
        self.faces = faces
        self.calls = 0

    def __call__(self, picture):
        self.calls += 1
        return [Detection((x, 50, 50, 50), score) for x, score in self.faces]


class Brightness:
    """A classifier that calls a face happy as far as it is bright; remembers its batches."""

    classes: tuple[str, ...] = ("sad", "happy")
    size = 48

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, faces):
        self.batches.append(len(faces))
        happy = faces.reshape(len(faces), -1).mean(axis=1, dtype=np.float32) / 255 if len(faces) else np.empty(0)
        return np.stack([1 - happy, happy], axis=1).astype(np.float32)


def gray(value: float) -> np.ndarray:
    return np.full_like(FRAME, round(255 * value))


def test_a_still_picture_has_no_time():
    detector = Told((10, 0.95), (200, 0.8))
    analyzer = FaceAnalyzer(Brightness(), detector, detect_every=10, smoothing=5)
    for value in (0.2, 0.8):
        left, right = analyzer(gray(value), None)
        assert left.box == (10.0, 50.0, 50.0, 50.0)
        assert (left.score, right.score) == (0.95, 0.8)
        assert left.track is right.track is None
        assert left.label == ("happy" if value > 0.5 else "sad")
        assert left.probabilities == left.smoothed
        assert left.probabilities["happy"] == pytest.approx(value, abs=0.01)
        assert left.confidence == pytest.approx(0.8, abs=0.01)
    assert detector.calls == 2


def test_all_faces_of_a_frame_are_one_batch():
    predictor = Brightness()
    analyzer = FaceAnalyzer(predictor, Told((0, 0.95), (100, 0.95), (200, 0.95)))
    analyzer(FRAME, 0)
    analyzer(FRAME, None)
    assert predictor.batches == [3, 3]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_faces_stay_where_they_were_between_detections(every):
    detector, predictor = Told((10, 0.95)), Brightness()
    analyzer = FaceAnalyzer(predictor, detector, detect_every=every)
    boxes = []
    for frame in range(10):
        detector.faces = ((10 + frame, 0.95),)
        (prediction,) = analyzer(gray(0.1 * frame), frame / FPS)
        assert prediction.box is not None
        boxes.append(prediction.box[0])
        assert prediction.track == 1
        assert prediction.probabilities["happy"] == pytest.approx(0.1 * frame, abs=0.01)  # every frame is classified
        assert (analyzer.timings["detect"] > 0) == (frame % every == 0)
    assert boxes == [10 + frame // every * every for frame in range(10)]
    assert detector.calls == -(-10 // every)


def test_an_unsure_face_is_looked_for_in_the_next_frame():
    detector = Told((10, 0.75))
    analyzer = FaceAnalyzer(Brightness(), detector, detect_every=10)
    counts = [len(analyzer(FRAME, frame / FPS)) for frame in range(10)]
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert detector.calls == 3


def test_a_face_that_leaves_is_gone_after_two_looks():
    detector = Told((10, 0.95))
    analyzer = FaceAnalyzer(Brightness(), detector, detect_every=5)
    counts = []
    for frame in range(12):
        detector.faces = ((10, 0.95),) if frame < 3 else ()
        counts.append(len(analyzer(FRAME, frame / FPS)))
    assert counts == [1] * 6 + [0] * 6
    assert detector.calls == 4  # frames 0, 5, 6, 11


def test_smoothing_is_per_face_and_forgotten_with_it():
    detector = Told((0, 0.95), (200, 0.95))
    analyzer = FaceAnalyzer(Brightness(), detector, smoothing=0.4)
    half = FRAME.copy()
    half[:, 160:] = 255
    analyzer(half, 0.0)
    left, right = analyzer(255 - half, 1 / FPS)
    assert left.label == "sad"
    assert right.label == "happy"
    assert left.probabilities["happy"] == 1
    assert left.smoothed is not None
    assert left.smoothed["happy"] == pytest.approx(1 - np.exp(-1 / FPS / 0.4), abs=1e-4)
    assert left.confidence == left.smoothed["sad"]

    detector.faces = ()
    for frame in range(2, 40):
        assert len(analyzer(half, frame / FPS)) == (2 if frame == 2 else 0)
    detector.faces = ((0, 0.95),)
    (back,) = analyzer(gray(1), 40 / FPS)
    assert back.track == 3
    assert back.smoothed == back.probabilities


def test_smoothing_can_be_turned_off():
    analyzer = FaceAnalyzer(Brightness(), Told((0, 0.95)), smoothing=0)
    analyzer(gray(0), 0.0)
    (prediction,) = analyzer(gray(0.51), 1 / FPS)
    assert prediction.label == "happy"
    assert prediction.smoothed == prediction.probabilities


@pytest.mark.parametrize(("minimum", "uncertain"), [(0, False), (0.59, False), (0.62, True), (1, True)])
@pytest.mark.parametrize("time", [None, 0.0])
def test_little_confidence_is_marked(minimum, uncertain, time):
    analyzer = FaceAnalyzer(Brightness(), Told((0, 0.95)), min_confidence=minimum)
    (prediction,) = analyzer(gray(0.6), time)
    assert prediction.label == "happy"
    assert prediction.uncertain == uncertain


def test_a_step_back_in_time_begins_anew():
    analyzer = FaceAnalyzer(Brightness(), Told((0, 0.95)), detect_every=100)
    analyzer(gray(0), 5.0)
    (prediction,) = analyzer(gray(1), 5.1)
    assert prediction.label == "sad"
    (prediction,) = analyzer(gray(1), 0.0)
    assert (prediction.label, prediction.track) == ("happy", 1)


def test_a_picture_without_detector_has_no_score():
    analyzer = FaceAnalyzer(Brightness(), create_detector("none"))
    for time in (None, 0.0):
        (prediction,) = analyzer(FRAME, time)
        assert prediction.box == (40.0, 0.0, 240.0, 240.0)
        assert prediction.score is None
        assert prediction.track == (None if time is None else 1)


def test_timings_have_every_stage():
    analyzer = FaceAnalyzer(Brightness(), create_detector("haar"))
    analyzer(FRAME, 0.0)
    assert list(analyzer.timings) == ["detect", "crop", "classify"]
    assert all(0 < milliseconds < 10_000 for milliseconds in analyzer.timings.values())


@pytest.mark.parametrize(
    "argument",
    [{"detect_every": 0}, {"smoothing": -1.0}, {"smoothing": float("nan")}, {"min_confidence": 1.1}],
    ids=lambda argument: next(iter(argument)),
)
def test_arguments_out_of_range_are_named(argument):
    with pytest.raises(UserError, match=next(iter(argument))):
        FaceAnalyzer(Brightness(), Told(), **argument)


def watch(name: str, detect_every: int) -> tuple[Counter[int], dict[int, list[int]], dict[int, list[float]]]:
    """How many frames have how many faces, and every track's frames and x."""
    video = cv2.VideoCapture(str(MEDIA / name))
    analyzer = FaceAnalyzer(Brightness(), create_detector("yunet"), detect_every=detect_every)
    counts: Counter[int] = Counter()
    frames: dict[int, list[int]] = {}
    places: dict[int, list[float]] = {}
    index = 0
    while (answer := video.read())[0]:
        predictions = analyzer(answer[1].astype(np.uint8), index / FPS)
        counts[len(predictions)] += 1
        for prediction in predictions:
            assert prediction.track is not None
            assert prediction.box is not None
            frames.setdefault(prediction.track, []).append(index)
            places.setdefault(prediction.track, []).append(prediction.box[0] / prediction.box[2])
        index += 1
    return counts, frames, places


@needs_clips
def test_the_made_grid_has_three_tracks_and_a_fourth_that_comes_and_goes():
    counts, frames, places = watch("made_grid_2x2.mp4", detect_every=3)
    assert set(counts) == {3, 4}
    assert sorted(frames) == [1, 2, 3, 4]
    assert all(frames[track] == list(range(200)) for track in (1, 2, 3))
    assert frames[4] == list(range(60, 151))
    assert all(np.abs(np.diff(places[track])).max() < 0.2 for track in frames)  # none takes another's place


@needs_clips
@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("intel_head-pose-face-detection-female-and-male.gif", 2),
        ("intel_asl_again.mkv", 1),  # hands and a printed skull, which YuNet takes for faces in single frames
    ],
)
def test_clips_have_the_faces_that_they_show(name, faces):
    counts, frames, _ = watch(name, detect_every=1)
    assert set(counts) == {faces}
    assert sorted(frames) == list(range(1, faces + 1))
