import numpy as np
import pytest

from fer.cleaning.label_errors import find_label_errors


def noisy(seed: int = 0, count: int = 3000, wrong: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes, labels of which some are wrong, and probabilities of an imperfect network that saw the truth."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, count)
    labels = np.where(rng.random(count) < wrong, (true + rng.integers(1, 4, count)) % 4, true)
    logits = 2.5 * np.eye(4)[true] + rng.normal(size=(count, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return true, labels, probabilities


def test_finds_wrong_labels_and_what_they_should_be() -> None:
    true, labels, probabilities = noisy()
    found = find_label_errors(labels, probabilities)
    wrong = true != labels
    assert wrong[found.rows].mean() > 0.85  # precision
    assert np.isin(np.flatnonzero(wrong), found.rows).mean() > 0.75  # recall
    right = wrong[found.rows]
    assert (found.suggested[right] == true[found.rows][right]).mean() > 0.9
    assert found.estimated == pytest.approx(wrong.sum(), rel=0.25)
    assert (found.score > 0).all()
    assert (np.diff(found.rows) > 0).all()


def test_the_joint_by_hand() -> None:
    """Thresholds are 0.6 for both classes: of the rows labelled 0, three are sure of 0 and one of 1."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    of_one = np.array([0.1, 0.2, 0.3, 1.0, 0.5, 0.7])
    found = find_label_errors(labels, np.stack([1 - of_one, of_one], axis=1))
    assert found.joint == pytest.approx(np.array([[3.0, 1.0], [0.0, 2.0]]))
    assert (found.rows.tolist(), found.suggested.tolist(), found.score.tolist()) == ([3], [1], [1.0])


def test_right_labels_are_left_alone() -> None:
    true, _, probabilities = noisy()
    sure = np.where(np.eye(4)[true] > 0, 0.97, 0.01)
    assert len(find_label_errors(true, sure).rows) == 0
    assert len(find_label_errors(probabilities.argmax(axis=1), probabilities).rows) == 0


def test_a_class_without_rows() -> None:
    _, labels, probabilities = noisy()
    five = np.concatenate([0.9 * probabilities, np.full((len(labels), 1), 0.1)], axis=1)
    found = find_label_errors(labels, five)
    assert set(found.suggested.tolist()) <= {0, 1, 2, 3}
    assert found.joint.sum() == pytest.approx(len(labels))
