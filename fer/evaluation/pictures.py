"""Which pictures a report has: of each split, of corrupted faces, and of the training before it."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from fer import rundir
from fer.abstention import answers
from fer.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer.data.datamodule import FER2013DataModule
from fer.evaluation import html, plots
from fer.evaluation.grad_cam import grad_cam
from fer.evaluation.measure import Outcome
from fer.evaluation.members import Member, short
from fer.files import as_png, write_whole
from fer.models.network import EmotionNetwork
from fer.sheets import gallery
from fer.tensorboard import RunLogger

log = logging.getLogger(__name__)

_GALLERY = 32  # faces
_MAPS_PER_CLASS = 5
_LARGEST_PICTURE = 2_000_000  # bytes of a picture that is taken from the training run: the page stays under 5 MB


def draw(
    members: Sequence[Member],
    datamodule: FER2013DataModule,
    outcomes: Mapping[str, Outcome],
    report: Mapping[str, Any],
    plots_dir: Path,
    logger: RunLogger | None,
    step: int,
) -> dict[str, bytes]:
    """Draws every picture into `plots_dir` and for TensorBoard; returns them for the page, as WebP by name."""
    pictures = {}
    for split, outcome in outcomes.items():
        whole = split == report["reported_split"]
        figures = _figures(members, datamodule, outcome, split, whole)
        if whole and "robustness" in report:
            figures |= _robustness_figures(report["robustness"], members, datamodule, outcome, split)
        for name, figure in figures.items():
            png = as_png(figure)
            write_whole(plots_dir / f"{name}_{split}.png", png)
            pictures[f"{name}_{split}"] = _webp(Image.open(io.BytesIO(png)))
            if logger is not None:
                logger.log_picture(f"{split}/{name}", png, step)
    return pictures


def _figures(
    members: Sequence[Member], datamodule: FER2013DataModule, outcome: Outcome, split: str, whole: bool
) -> dict[str, Figure]:
    """The pictures of a split by name; of a split that the report is not about, the confusion matrix."""
    classes, metrics = datamodule.classes, outcome.metrics
    headline = (
        f"{split}: accuracy {metrics['accuracy']:.3f}, macro F1 {metrics['f1']:.3f}, {metrics['images']:,} images"
    )
    figures = {"confusion_matrix": plots.confusion_matrix(metrics["confusion_matrix"], classes, headline)}
    if not whole:
        return figures
    faces = datamodule.rows(outcome.split)
    targets, probabilities = outcome.targets.numpy(), outcome.probabilities.numpy()
    if len(members) > 1:
        figures["ensemble"] = plots.ensemble(
            [
                ("ensemble", metrics["accuracy"], metrics["interval95"]["accuracy"]),
                *(
                    (f"{number}: {short(member.path)}", own["accuracy"], own["interval95"]["accuracy"])
                    for number, (member, own) in enumerate(zip(members, metrics["members"], strict=True), start=1)
                ),
            ],
            np.array(metrics["disagreement"]["pairs"]),
            headline,
        )
    figures["roc"] = plots.roc_curves(
        outcome.probabilities,
        outcome.targets,
        metrics["per_class"],
        metrics["operating_points"]["classes"],
        f"{split}: ROC",
    )
    figures["precision_recall"] = plots.precision_recall_curves(
        outcome.probabilities, outcome.targets, metrics["per_class"], f"{split}: precision and recall"
    )
    figures["reliability"] = plots.reliability(
        outcome.uncalibrated.numpy(),
        probabilities,
        targets,
        ", ".join(f"{member.temperature:.2f}" for member in members),
        f"{split}: reliability",
    )
    if "abstention" in metrics:
        figures["abstention"] = plots.risk_coverage(
            *answers(probabilities, targets),
            metrics["abstention"]["thresholds"],
            f"{split}: saying nothing when unsure",
        )
    figures["per_class"] = plots.per_class_bars(metrics["per_class"], headline)
    if "groups" in metrics:
        figures["groups"] = plots.group_bars(metrics["groups"], metrics["accuracy"], f"{split}: accuracy by group")
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != targets)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:_GALLERY]
    figures["mistakes"] = gallery(
        faces.images[worst],
        targets[worst],
        probabilities[worst],
        classes,
        f"{split}: the {len(worst)} most confident of {len(wrong):,} mistakes",
        [Path(name).stem for name in faces.ids[worst].tolist()],
    )
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(len(targets))[:_GALLERY])
    figures["predictions"] = gallery(
        faces.images[drawn], targets[drawn], probabilities[drawn], classes, f"{split}: {len(drawn)} random faces"
    )
    if len(members) == 1:
        figures |= _grad_cam_figure(members[0].network, datamodule, outcome, split)
    return figures


def _robustness_figures(
    robustness: dict[str, Any],
    members: Sequence[Member],
    datamodule: FER2013DataModule,
    outcome: Outcome,
    split: str,
) -> dict[str, Figure]:
    faces, targets = datamodule.tensors(outcome.split)
    right = outcome.probabilities.argmax(dim=1) == targets
    surest = int((outcome.probabilities.amax(dim=1) * right).argmax())
    face = faces[surest : surest + 1]
    examples = {
        name: torch.cat([face, *(corrupt(face, name, severity) for severity in SEVERITIES)])[:, 0].numpy()
        for name in CORRUPTIONS
    }
    name = "ensemble" if len(members) > 1 else short(members[0].path)
    curves = {name: {corruption: found["accuracy"] for corruption, found in robustness["corruptions"].items()}}
    for number, (member, own) in enumerate(zip(members, robustness.get("members", []), strict=False), start=1):
        curves[f"{number}: {short(member.path)}"] = own["corruptions"]
    clean, mean = robustness["clean_accuracy"], robustness["mean_accuracy"]
    title = f"{split}: accuracy {clean:.3f} clean, {mean:.3f} in the mean over corruptions"
    return {
        "robustness": plots.corruption_curves(robustness, curves, examples, title),
        "corruptions": plots.corruption_sheet(robustness["corruptions"], examples, f"{split}: one face corrupted"),
    }


def _grad_cam_figure(
    network: EmotionNetwork, datamodule: FER2013DataModule, outcome: Outcome, split: str
) -> dict[str, Figure]:
    rng = np.random.default_rng(0)
    codes = range(len(datamodule.classes))
    targets = outcome.targets.numpy()
    chosen = np.concatenate([rng.permutation(np.flatnonzero(targets == code))[:_MAPS_PER_CLASS] for code in codes])
    images, probabilities = datamodule.rows(outcome.split).images[chosen], outcome.probabilities.numpy()[chosen]
    predicted = torch.from_numpy(probabilities.argmax(axis=1))
    found = grad_cam(network.cpu().eval(), torch.from_numpy(images).unsqueeze(1), predicted)
    if found is None:
        log.info(
            "Grad-CAM needs a feature map of at least 5x5 at the end of the network; %s has none.", network.spec.name
        )
        return {}
    maps, layer = found
    title = f"{split}: Grad-CAM of the predicted class, at the output of {layer}"
    figure = plots.grad_cam_maps(images, maps.numpy(), targets[chosen], probabilities, datamodule.classes, title)
    return {"grad_cam": figure}


def training_pictures(members: Sequence[Member]) -> dict[str, bytes]:
    """What the training of a single checkpoint left in its run's plots/, by name."""
    run = rundir.of_checkpoint(members[0].path) if len(members) == 1 else None
    if run is None:
        return {}
    found = {}
    for name in html.TRAINING:
        file = run / rundir.PLOTS / f"{name}.png"
        # A run may come from a stranger, and a picture that cannot be read costs nothing but itself.
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError):
            if file.stat().st_size <= _LARGEST_PICTURE:
                with Image.open(file, formats=["PNG"]) as image:
                    found[name] = _webp(image)
    return found


def _webp(image: Image.Image) -> bytes:
    """Without loss, in about half the bytes of a PNG; an eighth less would take twice as long, a second in all."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "webp", lossless=True, method=2, quality=20)
    return buffer.getvalue()
