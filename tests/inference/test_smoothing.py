"""Smoothing over time: its pace, and the label's hysteresis."""

import math

import numpy as np
import pytest

from fer.inference.smoothing import Smoother

HAPPY, SAD = np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)


def after_a_change(fps: float, seconds: float, time_constant: float = 0.4) -> np.ndarray:
    """The smoothed probabilities `seconds` after a face went from happy to sad."""
    smoother = Smoother(time_constant)
    smoother(HAPPY, 0.0)
    for frame in range(1, round(fps * seconds) + 1):
        smoothed, _ = smoother(SAD, frame / fps)
    return smoothed


@pytest.mark.parametrize("fps", [5, 12.5, 30, 60])
def test_the_pace_is_one_over_e_per_time_constant_at_any_frame_rate(fps):
    np.testing.assert_allclose(after_a_change(fps, 0.4)[0], math.exp(-1), atol=1e-5)
    np.testing.assert_allclose(after_a_change(fps, 2.0)[0], math.exp(-5), atol=1e-5)


def test_irregular_frames_are_weighted_by_their_time():
    smoother = Smoother(0.5)
    smoother(HAPPY, 10.0)
    for time in (10.01, 10.4, 10.41, 10.5):
        smoothed, _ = smoother(SAD, time)
    np.testing.assert_allclose(smoothed, [math.exp(-1), 1 - math.exp(-1), 0], atol=1e-5)


def test_the_first_frame_is_taken_as_it_is_and_sums_stay_one():
    smoother = Smoother(0.4)
    smoothed, label = smoother(np.array([0.2, 0.5, 0.3], np.float32), 7.0)
    np.testing.assert_array_equal(smoothed, np.array([0.2, 0.5, 0.3], np.float32))
    assert label == 1
    rng = np.random.default_rng(0)
    for frame in range(500):
        smoothed, _ = smoother(rng.dirichlet([1, 1, 1]).astype(np.float32), 7 + frame / 30)
    assert smoothed.dtype == np.float32
    assert smoothed.sum() == pytest.approx(1, abs=1e-5)


def test_two_near_classes_do_not_make_the_label_flicker():
    rng = np.random.default_rng(1)
    frames = [np.array([p, 1 - p], np.float32) for p in 0.5 + rng.normal(0, 0.15, 300)]
    raw = [int(frame.argmax()) for frame in frames]
    smoother = Smoother(0.4)
    shown = [smoother(frame, index / 30)[1] for index, frame in enumerate(frames)]
    assert np.count_nonzero(np.diff(raw)) > 100
    assert np.count_nonzero(np.diff(shown)) <= 2


def test_the_label_waits_for_a_lead_of_a_tenth():
    smoother = Smoother(1e-6)  # follows at once, so that only the hysteresis is left
    assert smoother(np.array([0.6, 0.4], np.float32), 0)[1] == 0
    assert smoother(np.array([0.46, 0.54], np.float32), 1)[1] == 0
    assert smoother(np.array([0.44, 0.56], np.float32), 2)[1] == 1
    assert smoother(np.array([0.54, 0.46], np.float32), 3)[1] == 1


def test_a_clear_change_is_shown_within_the_time_constant():
    smoother = Smoother(0.4)
    smoother(HAPPY, 0.0)
    labels = [smoother(SAD, frame / 30)[1] for frame in range(1, 13)]
    assert labels[-1] == 1


def test_zero_turns_smoothing_and_hysteresis_off():
    smoother = Smoother(0)
    for time, frame in enumerate([[0.6, 0.4], [0.49, 0.51], [0.51, 0.49]]):
        smoothed, label = smoother(np.array(frame, np.float32), time)
        np.testing.assert_array_equal(smoothed, np.array(frame, np.float32))
        assert label == np.argmax(frame)


def test_the_same_instant_twice_changes_nothing():
    smoother = Smoother(0.4)
    smoother(HAPPY, 3.0)
    np.testing.assert_array_equal(smoother(SAD, 3.0)[0], HAPPY)
