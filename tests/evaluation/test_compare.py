"""The paired tests of two rows of a table."""

from pathlib import Path

import numpy as np
import pytest

from fer.evaluation.compare import Answers, compare, mcnemar, read_answers

CLASSES = ("happy", "sad")


def answers(right: np.ndarray, classes: tuple[str, ...] = CLASSES) -> Answers:
    targets = np.zeros(len(right), np.int64)
    predicted = np.where(right, 0, 1)
    rows = np.array([f"row_{i:05d}" for i in range(len(right))])
    return Answers(rows, targets, predicted, np.eye(2)[predicted], classes)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    # scipy.stats.binomtest(only_a, only_a + only_b).pvalue
    [(0, 0, 1.0), (5, 5, 1.0), (10, 2, 0.03857421875), (1, 9, 0.021484375), (60, 40, 0.05688793364098078)],
)
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, p_value: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p_value, rel=1e-9)


def test_equal_runs_differ_by_noise_and_unequal_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(1000) < 0.7
    slightly = base.copy()
    slightly[rng.permutation(1000)[:6]] ^= True
    same = compare("val", "a", [answers(base)], "b", [answers(slightly)])
    assert same.noise
    assert "noise." in same.sentence
    better = base | (rng.random(1000) < 0.15)
    found = compare("test", "better", [answers(better)], "base", [answers(base)])
    assert not found.noise
    assert "more than noise" in found.sentence
    assert found.low is not None
    assert found.high is not None
    assert found.low < better.mean() - base.mean() < found.high
    assert found.p_value is not None
    assert found.p_value < 0.001


def test_the_spread_of_seeds_counts() -> None:
    """The same difference of means is noise when seeds scatter more than that."""
    order = np.random.default_rng(1).random(3000)

    def runs(shares: list[float]) -> list[Answers]:
        return [answers(order < share) for share in shares]

    steady = compare("val", "a", runs([0.73, 0.731, 0.729]), "b", runs([0.69, 0.691, 0.689]))
    scattered = compare("val", "a", runs([0.80, 0.66, 0.73]), "b", runs([0.69, 0.75, 0.63]))
    assert steady.difference == pytest.approx(scattered.difference, abs=0.005)
    assert not steady.noise
    assert scattered.noise


def test_the_test_calls_equal_runs_different_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(2)
    called = 0
    for _ in range(200):
        a, b = (answers(rng.random(300) < 0.7) for _ in range(2))
        called += not compare("val", "a", [a], "b", [b]).noise
    assert called <= 20  # 5 % of 200 are 10, the exact test keeps below; 20 is three standard deviations above


@pytest.mark.parametrize(("spread", "gain"), [(0.005, 0.0), (0.02, 0.0), (0.005, 0.03)])
def test_several_runs_are_told_apart_as_often_as_the_interval_says(spread: float, gain: float) -> None:
    """Three runs a side of a thousand images, each as hard for all; runs differ by their luck and by `spread`."""
    rng = np.random.default_rng(3)
    called = []
    for _ in range(200):
        ease = rng.beta(1.4, 0.6, 1000)
        sides = [
            [answers(rng.random(1000) < np.clip(ease + more + rng.normal(0, spread), 0, 1)) for _ in range(3)]
            for more in (gain, 0.0)
        ]
        called.append(not compare("val", "a", sides[0], "b", sides[1]).noise)
    # One in twenty by chance, and up to twice as many with so few runs: 33 of 200 are three deviations above a tenth.
    assert np.sum(called) > 100 if gain else 2 <= np.sum(called) <= 33


def test_runs_on_other_images_are_not_compared() -> None:
    right = np.ones(10, bool)
    other = compare("val", "a", [answers(right)], "b", [answers(np.ones(11, bool))])
    assert other.noise is None
    assert "cannot be compared" in other.sentence
    assert compare("val", "a", [answers(right)], "b", [answers(right, ("happy", "angry"))]).noise is None


def test_predictions_are_read_by_split_in_the_order_of_rows(tmp_path: Path) -> None:
    file = tmp_path / "predictions.csv"
    lines = ["split,row,target,prediction,happy,sad", "test,b,sad,sad,0.1,0.9", "val,x,sad,sad,0,1"]
    file.write_text("\n".join([*lines, "test,a,happy,sad,0.4,0.6"]) + "\n")
    found = read_answers(file, "test")
    assert found.ids.tolist() == ["a", "b"]
    assert found.right.tolist() == [False, True]
    assert Answers.join([found, read_answers(file, "val")]).ids.tolist() == ["a", "b", "x"]
