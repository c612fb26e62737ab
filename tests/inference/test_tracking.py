"""Ids that stay: births, misses, returns and crossings, with boxes alone."""

import numpy as np
import pytest

from fer.inference.prediction import Detection
from fer.inference.tracking import Tracker, iou

FRAME = 1 / 30


def face(x: float, y: float = 0, side: float = 100, score: float | None = 0.95) -> Detection:
    return Detection((x, y, side, side), score)


def ids(tracker: Tracker) -> list[int]:
    return [track.id for track in tracker.visible]


def test_a_sure_face_gets_the_first_id_at_once():
    tracker = Tracker()
    tracker.update([face(0), face(300)], 0)
    assert ids(tracker) == [1, 2]
    assert not tracker.doubtful


def test_an_unsure_face_is_shown_when_found_three_times():
    tracker = Tracker()
    for frame, expected in enumerate([[], [], [1], [1]]):
        tracker.update([face(0, score=0.75)], frame * FRAME)
        assert ids(tracker) == expected
        assert tracker.doubtful == (not expected)


def test_an_unsure_face_that_flashes_up_is_never_shown_and_takes_no_id():
    tracker = Tracker()
    for frame in range(20):
        flash = [face(300, score=0.8)] if frame % 3 else []  # two frames of three
        tracker.update([face(0), *flash], frame * FRAME)
        assert ids(tracker) == [1]
    tracker.update([face(0), face(600)], 1)
    assert ids(tracker) == [1, 2]


def test_a_face_that_nobody_scored_is_believed():
    tracker = Tracker()
    tracker.update([face(0, score=None)], 0)
    assert ids(tracker) == [1]


def test_ids_follow_moving_faces_whatever_the_order_of_detection():
    tracker = Tracker()
    rng = np.random.default_rng(0)
    for frame in range(60):
        faces = [face(100 + 5 * frame), face(700 - 5 * frame, 250), face(400, 500 + 3 * frame)]
        tracker.update([faces[index] for index in rng.permutation(3)], frame * FRAME)
        boxes = {track.id: track.box for track in tracker.visible}
        if frame == 0:
            names = {id: next(i for i, f in enumerate(faces) if f.box == box) for id, box in boxes.items()}
        assert boxes == {id: faces[names[id]].box for id in (1, 2, 3)}


def test_neighbours_keep_their_ids_when_one_is_missed():
    """The face that is still found must not take the id of the missed one beside it."""
    tracker = Tracker()
    left, right = face(0), face(105)
    tracker.update([left, right], 0)
    tracker.update([face(108)], FRAME)
    tracker.update([face(3), face(110)], 2 * FRAME)
    assert {track.id: track.box[0] for track in tracker.visible} == {1: 3, 2: 110}


def test_one_missed_detection_is_bridged_and_a_second_is_not():
    tracker = Tracker()
    tracker.update([face(0)], 0)
    tracker.update([], FRAME)
    assert ids(tracker) == [1]
    assert tracker.doubtful
    tracker.update([], 2 * FRAME)
    assert ids(tracker) == []
    assert not tracker.doubtful


@pytest.mark.parametrize(("away", "id"), [(0.4, 1), (0.7, 2)])
def test_a_face_keeps_its_id_for_half_a_second(away, id):
    tracker = Tracker()
    tracker.update([face(0)], 0)
    for time in np.arange(FRAME, away, FRAME):
        tracker.update([], time)
    tracker.update([face(20)], away)
    assert ids(tracker) == [id]


def test_a_missed_face_keeps_its_id_when_detections_are_seldom():
    tracker = Tracker()
    tracker.update([face(0)], 0)
    tracker.update([], 2)
    tracker.update([face(10)], 4)
    assert ids(tracker) == [1]


def test_ids_are_forgotten_with_their_faces():
    tracker = Tracker()
    tracker.update([face(0), face(500)], 0)
    for time in np.arange(FRAME, 1, FRAME):
        tracker.update([face(0)], time)
    assert tracker.ids == {1}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0, 10, 10), 1),
        ((5, 0, 10, 10), 1 / 3),
        ((5, 5, 10, 10), 1 / 7),
        ((10, 0, 10, 10), 0),
        ((2, 2, 5, 5), 1 / 4),
    ],
)
def test_iou(other, expected):
    assert iou((0, 0, 10, 10), other) == pytest.approx(expected)
    assert iou(other, (0, 0, 10, 10)) == pytest.approx(expected)
