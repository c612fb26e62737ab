"""Risk, coverage and minimum confidences agree with a plain reference, and hold on rows they were not fitted on."""

import itertools

import numpy as np
import pytest

from fer.abstention import (
    ACCURACIES,
    answers,
    area,
    measure_abstention,
    risk_coverage,
    threshold,
    thresholds,
    wilson,
)

Pair = tuple[np.ndarray, np.ndarray]


def made_up(count: int, seed: int = 0) -> Pair:
    """Calibrated answers: one of confidence c is right with probability c."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, count)
    return confidence, rng.uniform(size=count) < confidence


def test_the_curve_and_its_area_agree_with_a_plain_reference() -> None:
    confidence, right = made_up(200)
    pairs = sorted(zip(confidence, right, strict=True), reverse=True)
    risks = [sum(not good for _, good in pairs[:count]) / count for count in range(1, 201)]
    confidences, coverage, risk = risk_coverage(confidence, right)
    assert confidences.tolist() == [value for value, _ in pairs]
    np.testing.assert_allclose(coverage, np.arange(1, 201) / 200)
    np.testing.assert_allclose(risk, risks)
    assert area(confidence, right) == pytest.approx(np.mean(risks))


def test_equal_confidences_count_as_the_mean_of_all_orders() -> None:
    confidence, right = np.array([0.9, 0.7, 0.7, 0.7, 0.4]), np.array([True, True, False, False, True])
    confidences, coverage, risk = risk_coverage(confidence, right)
    assert confidences.tolist() == [0.9, 0.7, 0.4]
    assert coverage.tolist() == [0.2, 0.8, 1.0]
    assert risk.tolist() == [0.0, 0.5, 0.4]
    orders = [[True, *middle, True] for middle in itertools.permutations(right[1:4])]
    risks = [np.cumsum(~np.array(order)) / np.arange(1, 6) for order in orders]
    assert area(confidence, right) == pytest.approx(np.mean(risks))


def test_a_threshold_keeps_most_answers_with_the_accuracy_asked_for() -> None:
    confidence, right = made_up(2000)
    for accuracy in ACCURACIES:
        minimum = threshold(confidence, right, accuracy)
        assert minimum is not None
        kept = confidence >= minimum
        assert right[kept].mean() >= accuracy
        lower = [value for value in confidence if value < minimum]
        assert all(right[confidence >= value].mean() < accuracy for value in lower)
        assert minimum not in confidence  # midway: rounding of a probability does not decide


def test_thresholds_that_nothing_or_everything_reaches() -> None:
    confidence, right = made_up(500)
    assert threshold(confidence, np.ones(500, bool), 0.95) == 0.0
    assert threshold(confidence, np.zeros(500, bool), 0.8) is None
    few = confidence.argsort()[-10:]  # ten sure answers prove nothing
    only_few = np.zeros(500, bool)
    only_few[few] = True
    assert threshold(confidence, only_few, 0.8) is None
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    targets = np.where(right, probabilities.argmax(axis=1), 1 - probabilities.argmax(axis=1))
    found = thresholds(probabilities, targets)
    assert found == {
        str(accuracy): threshold(*answers(probabilities, targets), accuracy) for accuracy in map(float, found)
    }
    assert thresholds(probabilities, 1 - probabilities.argmax(axis=1)) == {}
    measured = measure_abstention(confidence, np.zeros(500, bool))
    assert measured["thresholds"] == {"0.8": None, "0.9": None, "0.95": None}
    assert measured["area"] == 1.0


def test_what_is_fitted_on_val_holds_on_other_rows() -> None:
    val, test = made_up(4000, seed=1), made_up(4000, seed=2)
    for found in (measure_abstention(*val), measure_abstention(*test, fitted_on=val)):
        for accuracy in ACCURACIES:
            judged = found["thresholds"][str(accuracy)]
            assert judged["confidence"] == threshold(*val, accuracy)
            for key, low, high in (("accuracy", accuracy - 0.03, accuracy + 0.03), ("coverage", 0, 1)):
                ends = judged["interval95"][key]
                assert low <= ends[0] <= judged[key] <= ends[1] <= high + 0.02
    kept = test[0] >= judged["confidence"]
    assert judged["accuracy"] == pytest.approx(test[1][kept].mean())
    assert judged["coverage"] == pytest.approx(kept.mean())


def test_a_threshold_that_no_answer_of_the_test_rows_reaches() -> None:
    val = made_up(1000)
    judged = measure_abstention(np.full(50, 0.2), np.ones(50, bool), fitted_on=val)["thresholds"]["0.95"]
    assert judged["coverage"] == 0
    assert judged["accuracy"] is None
    assert judged["interval95"]["accuracy"] is None


def test_wilson_agrees_with_the_published_example() -> None:
    assert wilson(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)  # Newcombe, 1998, table I
    low, high = wilson(0, 20)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0.1611, abs=1e-4)
