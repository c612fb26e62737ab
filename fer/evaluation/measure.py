"""What networks say of one split, in numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fer.abstention import answers, measure_abstention
from fer.calibration import measure_calibration, measure_on_halves
from fer.data.datamodule import FER2013DataModule
from fer.data.duplicates import find_copies
from fer.data.faces import SPLIT_NAMES, VAL
from fer.evaluation.groups import FEWEST, measure_groups
from fer.evaluation.members import Member
from fer.evaluation.metrics import HEADLINE, choose_thresholds, compute_metrics, judge_thresholds
from fer.evaluation.robustness import choose_faces, mean_corruption_error, measure_robustness
from fer.predict import Predictions, predict
from fer.settings.train import TrainSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What was found on one split. Probabilities are float64 (N, C)."""

    split: int
    targets: Tensor
    probabilities: Tensor
    uncalibrated: Tensor
    metrics: dict[str, Any]


def measure(
    settings: TrainSettings,
    members: Sequence[Member],
    datamodule: FER2013DataModule,
    split: int,
    training_faces: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
) -> Outcome:
    """What members say of a split; `known` are faces of it that they were trained on besides `training_faces`."""
    faces, targets = datamodule.tensors(split)
    classes = datamodule.classes
    predictions: list[Predictions] = [
        predict(member.network, faces, settings.trainer, settings.tta) for member in members
    ]
    of_members = [found.probabilities(member.temperature) for found, member in zip(predictions, members, strict=True)]
    probabilities = torch.stack(of_members).mean(dim=0)
    metrics = compute_metrics(probabilities, targets, classes)

    listed = datamodule.clean(split)
    if listed is not None:
        metrics["cleaned"] = {"removed": int((~listed).sum()), **_part(probabilities, targets, classes, listed)}
    copies = find_copies(datamodule.rows(split).images, training_faces)
    clean, exact = ~known, known.copy()
    clean[copies.first] = False
    exact[copies.first[copies.exact]] = True
    metrics["without_copies"] = {
        "removed": int((~clean).sum()),
        "exact": int(exact.sum()),
        **_part(probabilities, targets, classes, clean),
    }
    groups = datamodule.groups_of(split)
    if groups:
        metrics["groups"] = measure_groups(probabilities.argmax(dim=1).numpy(), targets.numpy(), classes, groups)
        for grouping, own in metrics["groups"].items():
            if own["few"]:
                few = f"{grouping} {', '.join(own['few'])}"
                log.warning(
                    "data.groups: under %d %s rows in %s: no gap is read from them", FEWEST, SPLIT_NAMES[split], few
                )
    metrics["calibration"] = measure_calibration(probabilities.numpy(), targets.numpy())
    if split == VAL and len(members) == 1 and len(targets) > 1:
        metrics["calibration"]["on_halves"] = measure_on_halves(predictions[0], targets)
    if len(members) > 1:
        metrics["members"] = [
            {"path": str(member.path), **_headline(own, targets, classes)}
            for member, own in zip(members, of_members, strict=True)
        ]
        metrics["disagreement"] = _disagreement(of_members, targets)
    uncalibrated = torch.stack([found.probabilities(1.0) for found in predictions]).mean(dim=0)
    return Outcome(split, targets, probabilities, uncalibrated, metrics)


def choose_on_val(outcomes: Mapping[str, Outcome], classes: tuple[str, ...]) -> None:
    """Adds minimum confidences and operating points to the metrics of each split; both are chosen on val."""
    said = {split: answers(found.probabilities.numpy(), found.targets.numpy()) for split, found in outcomes.items()}
    if "val" in outcomes:
        for split, outcome in outcomes.items():
            fitted_on = None if split == "val" else said["val"]
            outcome.metrics["abstention"] = measure_abstention(*said[split], fitted_on)
    chosen_on = "val" if "val" in outcomes else "test"
    base = outcomes[chosen_on]
    thresholds = choose_thresholds(base.probabilities, base.targets, classes)
    for outcome in outcomes.values():
        judged = judge_thresholds(outcome.probabilities, outcome.targets, classes, thresholds)
        outcome.metrics["operating_points"] = {"chosen_on": chosen_on, "classes": judged}


def measure_on_corrupted(
    settings: TrainSettings, members: Sequence[Member], datamodule: FER2013DataModule, outcome: Outcome
) -> dict[str, Any]:
    """`measure_robustness` on the reported split, and the mean corruption error."""
    faces, targets = datamodule.tensors(outcome.split)
    found = measure_robustness(
        [(member.network, member.temperature) for member in members],
        *choose_faces(faces, targets, settings.robustness_faces),
        trainer=settings.trainer,
        tta=settings.tta,
    )
    found["mce"] = mean_corruption_error(found, faces, datamodule.classes)
    for member, own in zip(members, found.get("members", []), strict=False):
        own["path"] = str(member.path)
    return found


def _part(
    probabilities: Tensor, targets: Tensor, classes: tuple[str, ...], kept: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """The metrics of some rows of a split; nothing when they are all or none of it."""
    if kept.all() or not kept.any():
        return {}
    return compute_metrics(probabilities[kept], targets[kept], classes)


def _headline(probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    metrics = compute_metrics(probabilities, targets, classes)
    return {key: metrics[key] for key in (*HEADLINE, "loss", "brier", "ece")} | {
        "interval95": {key: metrics["interval95"][key] for key in HEADLINE}
    }


def _disagreement(of_members: Sequence[Tensor], targets: Tensor) -> dict[str, Any]:
    """Shares of images on which members predict different classes, and on which at least one is right."""
    predicted = torch.stack(list(of_members)).argmax(dim=2)
    pairs = (predicted[:, None] != predicted[None]).double().mean(dim=2)
    members = len(of_members)
    return {
        "any": float((predicted != predicted[0]).any(dim=0).double().mean()),
        "mean_of_pairs": float(pairs.sum() / (members * (members - 1))),
        "one_right": float((predicted == targets).any(dim=0).double().mean()),
        "pairs": pairs.tolist(),
    }
