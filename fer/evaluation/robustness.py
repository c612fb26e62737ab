"""How networks answer when faces get worse: the corruptions of `fer.data.corruptions`, measured on a split."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer.abstention import answers
from fer.calibration import calibration_error
from fer.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, digest
from fer.evaluation.bootstrap import measure
from fer.models.network import EmotionNetwork
from fer.predict import predict

log = logging.getLogger(__name__)

# Accuracies of experiment=cnn_7class on all faces of PublicTest, as its report has them, with what made them.
_REFERENCE = Path(__file__).with_name("cnn_robustness.json")


def choose_faces(faces: Tensor, targets: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """`count` rows drawn with a fixed seed, in their order; all where that is None or more than there are."""
    if count is None or count >= len(faces):
        return faces, targets
    drawn = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(faces))[:count]))
    return faces[drawn], targets[drawn]


def measure_robustness(
    networks: Sequence[tuple[EmotionNetwork, float]],
    faces: Tensor,
    targets: Tensor,
    trainer: Mapping[str, Any] | None = None,
    tta: str = "none",
) -> dict[str, Any]:
    """Every corruption at every severity, for one network or for several and the mean of their probabilities.

    Args:
        networks: in eval mode, of the same classes, each with its temperature.
        faces: uint8 (N, 1, S, S), on the CPU; networks resize them to their own size.
        targets: int64 (N,).
        trainer: arguments of Lightning's Trainer, of which accelerator and precision are used.
        tta: a key of `fer.predict.VIEWS`.

    Returns:
        Plain data for metrics.json: "corruptions" by name, each with "unit", "severities" (in that unit), "n", and
        lists of five numbers: "accuracy", "f1" (macro), "ece" and "changed", the share of faces whose answer is another
        one than for the clean face; "clean_accuracy" of the same faces; "mean_accuracy" over all corruptions and
        severities; "digest" of the corruptions. With several networks "members" has "clean_accuracy", "mean_accuracy"
        and the accuracies by corruption of each.
    """
    where = {"accelerator": "cpu", "precision": "32-true"} if trainer is None else trainer

    def answer(shown: Tensor) -> list[Tensor]:
        return [predict(network, shown, where, tta).probabilities(temperature) for network, temperature in networks]

    clean = answer(faces)
    usual = _mean(clean).argmax(dim=1)
    corruptions: dict[str, Any] = {}
    members: list[dict[str, Any]] = [{"clean_accuracy": _accuracy(own, targets), "corruptions": {}} for own in clean]
    for name, corruption in CORRUPTIONS.items():
        found: dict[str, list[float]] = {"accuracy": [], "f1": [], "ece": [], "changed": []}
        for severity in SEVERITIES:
            of_members = answer(corrupt(faces, name, severity))
            probabilities = _mean(of_members)
            given, true = probabilities.double().numpy(), targets.numpy()
            scores = measure(given, true)
            found["accuracy"].append(float(scores["accuracy"]))
            found["f1"].append(float(scores["f1"]))
            found["ece"].append(calibration_error(*answers(given, true)))
            found["changed"].append(float((probabilities.argmax(dim=1) != usual).double().mean()))
            for member, own in zip(members, of_members, strict=True):
                member["corruptions"].setdefault(name, []).append(_accuracy(own, targets))
        corruptions[name] = {
            "unit": corruption.unit,
            "severities": list(corruption.amounts),
            **found,
            "n": len(targets),
        }
        log.info("%-19s %s", name, "  ".join(f"{value:.1%}" for value in found["accuracy"]))
    for member in members:
        member["mean_accuracy"] = float(np.mean(list(member["corruptions"].values())))
    return {
        "corruptions": corruptions,
        "clean_accuracy": _accuracy(_mean(clean), targets),
        "mean_accuracy": float(np.mean([found["accuracy"] for found in corruptions.values()])),
        "digest": digest(),
        **({"members": members} if len(members) > 1 else {}),
    }


def mean_corruption_error(robustness: Mapping[str, Any], faces: Tensor, classes: Sequence[str]) -> float | None:
    """Errors under corruption relative to those of `experiment=cnn_7class`, the mean over corruptions: 1 is as bad.

    As Hendrycks and Dietterich define it for ImageNet-C (arXiv 1903.12261): for each corruption the sum of a network's
    errors over severities, divided by the same sum of the reference network.

    Args:
        robustness: of `measure_robustness`.
        faces: the whole split that its faces were taken from, uint8 (N, 1, S, S).
        classes: of the network.

    Returns:
        None unless classes, faces and corruptions are those of the reference: the seven, PublicTest, and today's.
    """
    reference = json.loads(_REFERENCE.read_text(encoding="utf-8"))
    known = {"classes": list(classes), "faces": digest_of(faces), "digest": robustness["digest"]}
    if any(reference[key] != value for key, value in known.items()):
        return None
    errors = [
        sum(1 - value for value in robustness["corruptions"][name]["accuracy"]) / sum(1 - value for value in accuracy)
        for name, accuracy in reference["accuracy"].items()
    ]
    return float(np.mean(errors))


def digest_of(faces: Tensor) -> str:
    """The first 64 bits of the SHA-256 of all pixels, in hex."""
    return hashlib.sha256(faces.contiguous().numpy().tobytes()).hexdigest()[:16]


def _mean(probabilities: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(probabilities)).mean(dim=0)


def _accuracy(probabilities: Tensor, targets: Tensor) -> float:
    return float((probabilities.argmax(dim=1) == targets).double().mean())
