"""Reports by group find the gaps that were planted, and none that were not."""

import numpy as np
import pytest

from fer.evaluation.groups import measure_groups

CLASSES = ("angry", "happy", "sad")


def planted(accuracies: dict[str, float], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of which a known share is right in each group."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, count * len(accuracies))
    groups = np.repeat(list(accuracies), count)
    right = rng.uniform(size=len(targets)) < np.array([accuracies[group] for group in groups])
    return np.where(right, targets, (targets + 1) % 3), targets, groups


def test_a_planted_gap_is_found() -> None:
    predicted, targets, groups = planted({"young": 0.8, "old": 0.6, "": 0.1}, 2000)
    found = measure_groups(predicted, targets, CLASSES, {"age": groups})["age"]
    assert found["without"] == 2000
    assert found["few"] == []
    gap = found["largest_gap"]
    assert (gap["better"], gap["worse"]) == ("young", "old")
    assert gap["accuracy"] == pytest.approx(0.2, abs=0.03)
    assert 0.1 < gap["interval95"][0] < gap["accuracy"] < gap["interval95"][1] < 0.3
    own = found["groups"]["old"]
    member = groups == "old"
    assert own["images"] == 2000
    assert own["accuracy"] == (predicted[member] == targets[member]).mean()
    assert own["interval95"][0] < own["accuracy"] < own["interval95"][1]
    for code, name in enumerate(CLASSES):
        of_class = member & (targets == code)
        assert own["recall"][name]["images"] == of_class.sum()
        assert own["recall"][name]["recall"] == (predicted[of_class] == code).mean()


def test_without_a_planted_gap_the_interval_holds_zero() -> None:
    predicted, targets, groups = planted({"a": 0.7, "b": 0.7}, 2000)
    low, high = measure_groups(predicted, targets, CLASSES, {"group": groups})["group"]["largest_gap"]["interval95"]
    assert low < 0 < high


def test_a_gap_in_one_class_shows_in_its_recall() -> None:
    predicted, targets, groups = planted({"a": 1.0, "b": 1.0}, 500)
    predicted[(groups == "b") & (targets == 2)] = 0
    found = measure_groups(predicted, targets, CLASSES, {"group": groups})["group"]["groups"]
    assert found["a"]["recall"]["sad"]["recall"] == 1
    assert found["b"]["recall"]["sad"]["recall"] == 0
    assert found["b"]["recall"]["happy"]["recall"] == 1


def test_groups_of_few_rows_are_named_and_give_no_gap() -> None:
    predicted, targets, groups = planted({"a": 0.7, "b": 0.7}, 200)
    groups = groups.astype("<U5")
    groups[:5] = "rare"
    targets[:5], predicted[:5] = 0, 1
    found = measure_groups(predicted, targets, CLASSES, {"group": groups})["group"]
    assert found["few"] == ["rare"]
    assert "rare" not in (found["largest_gap"]["better"], found["largest_gap"]["worse"])
    assert found["groups"]["rare"]["recall"]["sad"] == {"images": 0, "recall": None, "interval95": None}
    alone = measure_groups(predicted[:200], targets[:200], CLASSES, {"group": groups[:200]})["group"]
    assert alone["largest_gap"] is None
