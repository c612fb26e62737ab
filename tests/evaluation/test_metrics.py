"""Metrics agree with scikit-learn and torchmetrics, and their bootstrap intervals cover what they should."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from fer.evaluation.bootstrap import bootstrap, interval95, measure
from fer.evaluation.metrics import FEWEST_CALLS, choose_thresholds, compute_metrics, judge_thresholds

TORCHMETRICS = {"f1": multiclass_f1_score, "precision": multiclass_precision, "recall": multiclass_recall}
CLASSES = ("angry", "happy", "sad", "neutral")


def draw(count: int, seed: int = 0, strength: float = 1.5, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of a middling classifier and targets with unequal classes."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(4, count, p=[0.1, 0.2, 0.3, 0.4])
    logits = rng.normal(size=(count, 4)) + strength * np.eye(4)[targets]
    if ties:
        logits = np.round(logits)
    return torch.softmax(torch.from_numpy(logits), dim=1), torch.from_numpy(targets)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn(ties: bool) -> None:
    probabilities, targets = draw(500, ties=ties)
    metrics = compute_metrics(probabilities, targets, CLASSES)
    p, t = probabilities.numpy(), targets.numpy()
    predicted, one_hot = p.argmax(axis=1), np.eye(4)[t]
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(t, predicted),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(t, predicted),
        "auroc": sklearn.metrics.roc_auc_score(t, p, multi_class="ovr", average="macro"),
        "average_precision": sklearn.metrics.average_precision_score(one_hot, p, average="macro"),
        "loss": sklearn.metrics.log_loss(t, p),
        "brier": ((p - one_hot) ** 2).sum(axis=1).mean(),
        "confidence": p.max(axis=1).mean(),
    }
    for name in ("f1", "precision", "recall"):
        score = getattr(sklearn.metrics, f"{name}_score")
        expected[name] = score(t, predicted, average="macro")
        expected[f"weighted_{name}"] = score(t, predicted, average="weighted")
        for label, value in zip(CLASSES, score(t, predicted, average=None), strict=True):
            assert metrics["per_class"][label][name] == pytest.approx(value, abs=1e-6)
        of_training = TORCHMETRICS[name](probabilities, targets, 4)
        assert metrics[name] == pytest.approx(float(of_training), abs=1e-6)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    assert metrics["confusion_matrix"] == sklearn.metrics.confusion_matrix(t, predicted).tolist()
    for index, label in enumerate(CLASSES):
        auroc = sklearn.metrics.roc_auc_score(t == index, p[:, index])
        assert metrics["per_class"][label]["auroc"] == pytest.approx(auroc, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_operating_points_are_the_best_of_scikit_learns_curves(ties: bool) -> None:
    probabilities, targets = draw(500, strength=3.0, ties=ties)
    thresholds = choose_thresholds(probabilities, targets, CLASSES)
    judged = judge_thresholds(probabilities, targets, CLASSES, thresholds)
    for index, label in enumerate(CLASSES):
        scores, positive = probabilities[:, index].numpy(), (targets == index).numpy()
        precision, recall, at = sklearn.metrics.precision_recall_curve(positive, scores)
        precision, recall = precision[:-1], recall[:-1]  # the last point has no threshold
        called = np.array([(scores >= threshold).sum() for threshold in at])
        precise, best = judged[label]["precision_90"], judged[label]["best_f1"]
        assert precise is not None
        assert best is not None
        wanted = (precision >= 0.9) & (called >= FEWEST_CALLS)
        assert precise["precision"] >= 0.9
        assert precise["true_positive_rate"] == pytest.approx(recall[wanted].max())
        f1 = 2 * precision * recall / (precision + recall).clip(1e-12)
        assert best["f1"] == pytest.approx(f1.max())
        for point in (precise, best):
            found = scores >= point["threshold"]
            (true_negative, false), (_, true) = sklearn.metrics.confusion_matrix(positive, found)
            assert point["called"] == false + true
            assert point["precision"] == pytest.approx(true / (true + false))
            assert point["true_positive_rate"] == pytest.approx(sklearn.metrics.recall_score(positive, found))
            assert point["false_positive_rate"] == pytest.approx(false / (false + true_negative))


def test_a_precision_that_is_not_reached_or_rests_on_a_few_calls_has_no_threshold() -> None:
    targets = torch.tensor([0] * 9 + [1] * 91)
    sure = torch.linspace(0.99, 0.01, 100, dtype=torch.float64)  # nine calls without a mistake, then mistakes only
    probabilities = torch.stack([sure, 1 - sure], dim=1)
    assert choose_thresholds(probabilities, targets, ("rare", "frequent"))["rare"]["precision_90"] == pytest.approx(
        float(sure[9])  # ten calls, one of them wrong
    )
    targets[8] = 1
    thresholds = choose_thresholds(probabilities, targets, ("rare", "frequent"))
    assert thresholds["rare"]["precision_90"] is None
    assert judge_thresholds(probabilities, targets, ("rare", "frequent"), thresholds)["rare"]["precision_90"] is None


def test_operating_points_of_a_class_that_is_nowhere() -> None:
    probabilities, targets = draw(300)
    nowhere = choose_thresholds(probabilities, torch.full_like(targets, 1), CLASSES)
    assert nowhere["angry"] == {"precision_90": None, "best_f1": None}
    chosen = choose_thresholds(probabilities, targets, CLASSES)
    judged = judge_thresholds(probabilities, torch.full_like(targets, 1), CLASSES, chosen)
    assert judged["angry"]["best_f1"]["true_positive_rate"] is None  # type: ignore[index]
    assert judged["happy"]["best_f1"]["false_positive_rate"] is None  # type: ignore[index]


def test_means_leave_out_a_class_that_is_nowhere() -> None:
    probabilities, targets = draw(300)
    some = targets < 3
    probabilities = probabilities[some] * torch.tensor([1, 1, 1, 0.0])
    probabilities, targets = probabilities / probabilities.sum(dim=1, keepdim=True), targets[some]
    metrics = compute_metrics(probabilities, targets, CLASSES)
    predicted = probabilities.argmax(dim=1)
    assert metrics["f1"] == pytest.approx(sklearn.metrics.f1_score(targets, predicted, average="macro"), abs=1e-6)
    assert metrics["per_class"]["neutral"]["auroc"] is None
    assert metrics["per_class"]["neutral"]["interval95"]["recall"] is None


def test_one_class_alone_ranks_nothing() -> None:
    probabilities, targets = draw(30)
    metrics = compute_metrics(probabilities, torch.full_like(targets, 1), CLASSES)
    assert metrics["auroc"] is None
    assert metrics["interval95"]["auroc"] is None


@pytest.mark.parametrize("ties", [False, True])
def test_a_resample_is_measured_as_scikit_learn_would(ties: bool) -> None:
    """The bootstrap has formulas of its own, for speed: they must agree with the report's on the drawn images."""
    probabilities, targets = draw(60, ties=ties)
    values = bootstrap(probabilities.numpy(), targets.numpy(), resamples=20, seed=4)
    drawn = np.random.default_rng(4).integers(0, 60, (20, 60))
    for row, images in enumerate(drawn):
        expected = compute_metrics(probabilities[images], targets[images], CLASSES)
        for name, value in values.items():
            if name.startswith("per_class/"):
                own = [expected["per_class"][label][name.removeprefix("per_class/")] for label in CLASSES]
                wanted = np.array([np.nan if value is None else value for value in own], float)
                absent = np.array([expected["per_class"][label]["images"] == 0 for label in CLASSES])
                np.testing.assert_allclose(value[row], np.where(absent, np.nan, wanted), atol=1e-5)
            else:
                assert value[row] == pytest.approx(expected[name], abs=1e-5), name


def test_the_interval_covers() -> None:
    """Of intervals that claim 95 %, about 95 % hold the value that the classifier has on all images."""
    names = ("accuracy", "f1", "loss", "auroc")
    probabilities, targets = (tensor.numpy() for tensor in draw(200_000, seed=99))
    truth = measure(probabilities, targets)
    rng = np.random.default_rng(0)
    held = dict.fromkeys(names, 0)
    trials = 200
    for _ in range(trials):
        images = rng.integers(0, len(targets), 300)
        values = bootstrap(probabilities[images], targets[images], resamples=200)
        for name in names:
            low, high = np.percentile(values[name], [2.5, 97.5])
            held[name] += low <= truth[name] <= high
    # 95 % of 200 are 190; three standard deviations of that count are 9, and small samples cover a little less.
    assert all(178 <= count <= 199 for count in held.values()), held


def test_the_interval_depends_on_the_seed_alone() -> None:
    probabilities, targets = (tensor.numpy() for tensor in draw(200))
    assert interval95(probabilities, targets) == interval95(probabilities, targets)
    assert interval95(probabilities, targets) != interval95(probabilities, targets, seed=1)
