"""The report on a checkpoint, or on several as an ensemble: numbers, pictures, a page and a table."""

import contextlib
import hashlib
import io
import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

import fer
from fer import rundir
from fer.abstention import answers, measure_abstention
from fer.calibration import measure_calibration, measure_on_halves
from fer.checkpoint import load_network, provenance, read_checkpoint, seen
from fer.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer.data.datamodule import FER2013DataModule, print_class_counts
from fer.data.duplicates import find_copies
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL
from fer.data.seen import MOST, besides, known_again, together
from fer.errors import UserError
from fer.evaluation import html, plots
from fer.evaluation.grad_cam import grad_cam
from fer.evaluation.groups import FEWEST, measure_groups
from fer.evaluation.metrics import HEADLINE, choose_thresholds, compute_metrics, judge_thresholds
from fer.evaluation.other_data import faces_of_training, keep_classes
from fer.evaluation.robustness import choose_faces, mean_corruption_error, measure_robustness
from fer.files import as_csv, as_png, cell, write_whole
from fer.labels import ALL_EMOTIONS, subset_name
from fer.models.network import EmotionNetwork
from fer.predict import Predictions, predict
from fer.settings.base import as_yaml
from fer.settings.train import TrainSettings
from fer.tensorboard import RunLogger

log = logging.getLogger(__name__)

_GALLERY = 32  # faces
_MAPS_PER_CLASS = 5
_LARGEST_PICTURE = 2_000_000  # bytes of a picture that is taken from the training run: the page stays under 5 MB


@dataclass
class _Member:
    """One trained network of a report, and the settings of the run that it lies in, if it lies in one."""

    path: Path
    content: dict[str, Any]
    network: EmotionNetwork
    temperature: float
    saved: TrainSettings | None


@dataclass(frozen=True)
class _Outcome:
    """What was found on one split. Probabilities are float64 (N, C)."""

    split: int
    targets: Tensor
    probabilities: Tensor
    uncalibrated: Tensor
    metrics: dict[str, Any]


def evaluate(
    settings: TrainSettings,
    checkpoints: Sequence[Path],
    run_dir: Path,
    datamodule: FER2013DataModule | None = None,
    secret: bool = False,
) -> dict[str, Any]:
    """Writes metrics.json, predictions.csv, report.html, pictures and TensorBoard entries, and prints a table.

    Numbers come before pictures: a plot that fails costs nothing but itself.

    Args:
        settings: their data are read, with the classes of the checkpoint.
        checkpoints: one, or several whose probabilities are averaged.
        run_dir: where everything goes.
        datamodule: the data, where the run that trained the checkpoint has read them already.
        secret: a setting came from the environment, so the page does not show them.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: a checkpoint cannot be used, does not fit the data or the other members, or the data cannot be read.
    """
    members = _load(checkpoints, settings.tta)
    trained_here = datamodule is not None
    if datamodule is None:
        datamodule = _data_to_judge_by(settings, members[0].network.spec.classes)
        datamodule.prepare_data()
        datamodule.setup()
    _check_classes(settings, members, datamodule)
    left_out = _leave_out(members, datamodule)
    (run_dir / rundir.PLOTS).mkdir(parents=True, exist_ok=True)
    if not trained_here:
        print_class_counts(datamodule)

    known = _known(members, datamodule)
    splits = _splits(settings, datamodule, known, trained_here)
    if trained_here:
        training_faces, complete = datamodule.rows(TRAIN).images, True
    else:
        contents = {member.path: member.content for member in members}
        training_faces, complete = faces_of_training(settings, contents, datamodule)
    outcomes = {
        SPLIT_NAMES[split]: _measure(settings, members, datamodule, split, training_faces, known[split])
        for split in splits
    }
    for outcome in outcomes.values():
        outcome.metrics["without_copies"]["complete"] = complete
    _choose_on_val(outcomes, datamodule.classes)
    counts = {SPLIT_NAMES[split]: int(known[split].sum()) for split in splits}
    report = _report(settings, members, datamodule, outcomes, left_out, counts)
    if settings.robustness:
        reported = outcomes[report["reported_split"]]
        report["robustness"] = _robustness(settings, members, datamodule, reported)

    _write_predictions(run_dir / rundir.PREDICTIONS, datamodule, outcomes)
    write_whole(run_dir / rundir.METRICS, json.dumps(report, indent=2, allow_nan=False).encode())
    _print_table(report, members)

    watched = any(str(target.get("_target_")).endswith("TensorBoardLogger") for target in settings.logger.values())
    logger = RunLogger(run_dir) if watched else None
    step = int(members[0].content.get("global_step", 0))
    pictures = _draw(members, datamodule, outcomes, report, run_dir / rundir.PLOTS, logger, step)
    plain = settings.plain() | {"name": settings.run_name}
    text = rundir.PRIVATE if secret else as_yaml(plain)
    page = html.render(report, pictures | _training_pictures(members), text, _title(members))
    write_whole(run_dir / rundir.REPORT, page.encode())
    if logger is not None:
        _log_outcome(logger, settings, report, max(step - 1, 0))
    _print_files(run_dir, members)
    return report


def _choose_on_val(outcomes: Mapping[str, _Outcome], classes: tuple[str, ...]) -> None:
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


def _report(
    settings: TrainSettings,
    members: Sequence[_Member],
    datamodule: FER2013DataModule,
    outcomes: Mapping[str, _Outcome],
    left_out: Mapping[str, Any],
    trained_on: Mapping[str, int],
) -> dict[str, Any]:
    """The content of metrics.json; `trained_on` are faces of each split that members know from training."""
    return {
        "checkpoints": [_describe(member) for member in members],
        "classes": list(datamodule.classes),
        "tta": settings.tta,
        "seed": settings.seed,
        "data": settings.data.source,
        **({"sources": settings.data.sources} if len(settings.data.sources) > 1 else {}),
        **({"left_out": left_out} if any(left_out.values()) else {}),
        "division": f"{datamodule.division()}, split seed {settings.data.split_seed}",
        "labels": {"train": _trained_labels(members), "evaluation": datamodule.describe_labels()["evaluation"]},
        "exclude": _exclusion(settings, datamodule),
        "training": _training_data(members, datamodule),
        "trained_on": trained_on,
        "reported_split": "test" if "test" in outcomes else "val",
        "versions": {
            "fer": fer.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "lightning": L.__version__,
        },
        "commit": rundir.commit(),
        **{split: outcome.metrics for split, outcome in outcomes.items()},
    }


def _draw(
    members: Sequence[_Member],
    datamodule: FER2013DataModule,
    outcomes: Mapping[str, _Outcome],
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


def _load(paths: Sequence[Path], tta: str) -> list[_Member]:
    members = []
    for path in paths:
        content = read_checkpoint(path)
        network = load_network(path)
        run = rundir.of_checkpoint(path)
        saved = None if run is None else rundir.load(run)
        members.append(_Member(path, content, network, network.spec.temperature_of(tta), saved))
        expected, found = members[0].network.spec.classes, network.spec.classes
        if found != expected:
            raise UserError(
                f"an ensemble needs the same classes in the same order: {paths[0]} has {', '.join(expected)}, "
                f"{path} has {', '.join(found)}; leave one of them out"
            )
    return members


def _check_classes(settings: TrainSettings, members: Sequence[_Member], datamodule: FER2013DataModule) -> None:
    """Refuses classes that were asked for but are not the checkpoint's, and data that show too few of them."""
    classes, path = members[0].network.spec.classes, members[0].path
    asked = settings.data.class_names
    # The default may not have been asked for at all: a checkpoint outside a run brings no settings.
    default = TrainSettings().data.class_names
    if asked != classes and not (asked == default and members[0].saved is None):
        raise UserError(
            f"{path} tells {', '.join(classes)} apart, but data.classes asks for {', '.join(asked)}; "
            "leave data.classes out"
        )
    if len(datamodule.classes) < 2:
        raise UserError(
            f"{path} tells {', '.join(classes)} apart, but {datamodule.source} holds no face of "
            f"{', '.join(datamodule.absent)}; choose data with at least two of these classes"
        )


def _leave_out(members: Sequence[_Member], datamodule: FER2013DataModule) -> dict[str, Any]:
    """Takes the classes of which the data have no face from the networks' answers; says what either side lacks.

    Returns:
        "classes": these classes; "faces": how many faces of the data show an emotion that is no class, by emotion.
    """
    path = members[0].path
    if datamodule.absent:
        log.warning(
            "%s holds no face of %s: left out of the answers of %s, whose other classes share their probability",
            datamodule.source,
            ", ".join(datamodule.absent),
            path,
        )
        for member in members:
            keep_classes(member.network, datamodule.classes)
    if datamodule.judging and datamodule.unknown:
        faces = ", ".join(f"{count:,} of {name}" for name, count in datamodule.unknown.items())
        log.info("%s has faces that are of no class of %s, and left out: %s", datamodule.source, path, faces)
    return {"classes": list(datamodule.absent), "faces": datamodule.unknown if datamodule.judging else {}}


def _splits(
    settings: TrainSettings,
    datamodule: FER2013DataModule,
    known: Mapping[int, npt.NDArray[np.bool_]],
    trained_here: bool,
) -> list[int]:
    """The splits with rows to report on: at the end of a training all, else those that no member was trained on."""
    wanted = [VAL] if settings.test_split == "val" else [VAL, TEST]
    present = [split for split in wanted if (datamodule.faces.splits == split).any()]
    if not present:
        raise UserError(
            f"{datamodule.source} has no {' or '.join(SPLIT_NAMES[split] for split in wanted)} split to report on"
        )
    if trained_here:
        return present
    usable = [split for split in present if known[split].mean() <= MOST]
    if not usable:
        raise UserError(
            "there is nothing to report on: every split holds rows that a checkpoint was trained on; "
            "leave out data.split, data.folds and data.fold, or choose other checkpoints"
        )
    for split in set(present) - set(usable):
        log.info("The %s split is left out: a checkpoint was trained on some of its rows.", SPLIT_NAMES[split])
    return usable


def _known(members: Sequence[_Member], datamodule: FER2013DataModule) -> dict[int, npt.NDArray[np.bool_]]:
    """Which faces of each split members were trained on, as a division otherwise than theirs has it."""
    others = besides(together(*(seen(member.content) for member in members)), datamodule.rows(TRAIN).images)
    return {split: known_again(datamodule.rows(split).images, others) for split in (VAL, TEST)}


def _measure(
    settings: TrainSettings,
    members: Sequence[_Member],
    datamodule: FER2013DataModule,
    split: int,
    training_faces: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
) -> _Outcome:
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
    return _Outcome(split, targets, probabilities, uncalibrated, metrics)


def _robustness(
    settings: TrainSettings, members: Sequence[_Member], datamodule: FER2013DataModule, outcome: _Outcome
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


def _describe(member: _Member) -> dict[str, Any]:
    return {
        "path": str(member.path),
        "sha256": hashlib.sha256(member.path.read_bytes()).hexdigest(),
        "network": member.network.spec.name,
        "weights": _kind_of_weights(member.content),
        "epoch": member.content.get("epoch", -1) + 1,
        "temperature": member.temperature,
        "provenance": provenance(member.content),
    }


def _kind_of_weights(content: dict[str, Any]) -> str:
    """A small copy has no training state, which would tell."""
    if "averaging_state" in content:
        return "averaged"
    return "raw" if "optimizer_states" in content else "packed"


def _trained_labels(members: Sequence[_Member]) -> str | None:
    """Whose labels the members were trained on, by the settings of their runs or by what they say of themselves.

    None where one lies in no run and says nothing, as checkpoints before version 0.2.
    """
    found = []
    for member in members:
        if member.saved is not None:
            found.append(FER2013DataModule(member.saved.data).describe_labels()["train"])
        else:
            labels = provenance(member.content).get("labels")
            if not isinstance(labels, str):
                return None
            found.append(labels)
    return "; ".join(dict.fromkeys(found))


def _training_data(members: Sequence[_Member], datamodule: FER2013DataModule) -> dict[str, Any]:
    """What the members learnt from.

    Returns:
        "counts", the training rows by class, None unless every checkpoint says that they are the ones at hand;
        "beside", what they began from or learnt from besides, None where a member lies in no run.
    """
    at_hand = datamodule.digest()
    same = all(provenance(member.content).get("data") == at_hand for member in members)
    runs = [member.saved for member in members if member.saved is not None]
    beside: list[str] = []
    for saved in runs:
        found = {
            "weights of ImageNet": saved.model.pretrained,
            f"the weights of {saved.model.weights}": saved.model.weights,
            "the answers of teachers": saved.teacher,
        }
        beside += [what for what, given in found.items() if given and what not in beside]
    return {
        "counts": datamodule.class_counts().get("train") if same else None,
        "beside": beside if len(runs) == len(members) else None,
    }


def _training_pictures(members: Sequence[_Member]) -> dict[str, bytes]:
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


def _data_to_judge_by(settings: TrainSettings, classes: tuple[str, ...]) -> FER2013DataModule:
    """The data without the second task, which is of training alone: other data need not have FER+'s votes."""
    others = not set(classes) <= set(ALL_EMOTIONS)
    change = {"ferplus_auxiliary": 0.0, "classes": list(classes), "other_emotions": others}
    return FER2013DataModule(settings.data.model_copy(update=change), settings.seed, judging=True)


def _exclusion(settings: TrainSettings, datamodule: FER2013DataModule) -> dict[str, Any] | None:
    if datamodule.exclude_reasons is None:
        return None
    reasons = list(datamodule.exclude_reasons)
    return {"list": str(settings.data.exclude), "reasons": reasons, "action": settings.data.exclude_action}


def _title(members: Sequence[_Member]) -> str:
    if len(members) > 1:
        return f"Ensemble of {len(members)}: {', '.join(sorted({member.network.spec.name for member in members}))}"
    return f"{members[0].network.spec.name}, epoch {members[0].content.get('epoch', -1) + 1}"


def _figures(
    members: Sequence[_Member], datamodule: FER2013DataModule, outcome: _Outcome, split: str, whole: bool
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
                    (f"{number}: {_short(member.path)}", own["accuracy"], own["interval95"]["accuracy"])
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
    figures["mistakes"] = plots.gallery(
        faces.images[worst],
        targets[worst],
        probabilities[worst],
        classes,
        f"{split}: the {len(worst)} most confident of {len(wrong):,} mistakes",
        [Path(name).stem for name in faces.ids[worst].tolist()],
    )
    rng = np.random.default_rng(0)
    drawn = np.sort(rng.permutation(len(targets))[:_GALLERY])
    figures["predictions"] = plots.gallery(
        faces.images[drawn], targets[drawn], probabilities[drawn], classes, f"{split}: {len(drawn)} random faces"
    )
    if len(members) == 1:
        figures |= _grad_cam_figure(members[0].network, datamodule, outcome, split)
    return figures


def _robustness_figures(
    robustness: dict[str, Any],
    members: Sequence[_Member],
    datamodule: FER2013DataModule,
    outcome: _Outcome,
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
    name = "ensemble" if len(members) > 1 else _short(members[0].path)
    curves = {name: {corruption: found["accuracy"] for corruption, found in robustness["corruptions"].items()}}
    for number, (member, own) in enumerate(zip(members, robustness.get("members", []), strict=False), start=1):
        curves[f"{number}: {_short(member.path)}"] = own["corruptions"]
    clean, mean = robustness["clean_accuracy"], robustness["mean_accuracy"]
    title = f"{split}: accuracy {clean:.3f} clean, {mean:.3f} in the mean over corruptions"
    return {
        "robustness": plots.corruption_curves(robustness, curves, examples, title),
        "corruptions": plots.corruption_sheet(robustness["corruptions"], examples, f"{split}: one face corrupted"),
    }


def _grad_cam_figure(
    network: EmotionNetwork, datamodule: FER2013DataModule, outcome: _Outcome, split: str
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


def _short(path: Path) -> str:
    """A checkpoint by the name of its run."""
    return path.absolute().parents[1].name if path.parent.name == "checkpoints" else path.stem


def _write_predictions(file: Path, datamodule: FER2013DataModule, outcomes: dict[str, _Outcome]) -> None:
    """One line per image: split, row of the source, target, prediction, and the probability of each class."""
    classes = datamodule.classes

    def lines() -> Iterator[list[str]]:
        yield ["split", "row", "target", "prediction", *classes]
        for split, outcome in outcomes.items():
            ids = datamodule.rows(outcome.split).ids
            for row, target, values in zip(ids, outcome.targets.tolist(), outcome.probabilities.numpy(), strict=True):
                figures = [f"{value:.6f}" for value in values]
                yield [split, cell(str(row)), classes[target], classes[int(values.argmax())], *figures]

    write_whole(file, as_csv(lines()).encode())


def _log_outcome(logger: RunLogger, settings: TrainSettings, report: dict[str, Any], step: int) -> None:
    """Fills TensorBoard's HParams tab: what may be varied, by the names of the settings, and what came out."""
    data, optim = settings.data, settings.optim
    chosen = {
        "model.name": settings.model.name,
        "data.classes": subset_name(report["classes"]),
        "optim.optimizer": str(optim.optimizer.get("_target_")).rpartition(".")[2],
        "optim.lr": optim.lr,
        "trainer.max_epochs": settings.trainer.get("max_epochs", -1),
        "seed": settings.seed,
        "data.augment": data.augment is not None,
        "data.balance": data.balance,
        "data.batch_size": data.batch_size,
        "data.exclude": data.exclude is not None,
        "data.fold": -1 if data.folds is None else data.fold,
        "data.labels": data.labels,
        "data.mixup_alpha": data.mixup_alpha,
        "data.split": data.split,
        "ema": settings.ema or 0.0,
        "label_smoothing": settings.label_smoothing,
        "optim.schedule": optim.schedule,
        "optim.weight_decay": optim.weight_decay,
        "tta": settings.tta,
    }
    names = {"test": ["accuracy"], "val": [*HEADLINE, "loss"]}
    outcome = {split: {name: report[split][name] for name in names[split]} for split in names if split in report}
    logger.log_outcome(chosen, outcome, step)
    logger.finalize("success")


def _print_table(report: dict[str, Any], members: Sequence[_Member]) -> None:
    split = report["reported_split"]
    table = Table(title=_title(members), title_justify="left")
    for column in ("", "images", *HEADLINE):
        # In a narrow window names are broken, never numbers.
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column), overflow="fold")
    rows = []
    for name in SPLIT_NAMES.values():
        if name in report:
            rows.append((name, report[name]))
            if "accuracy" in report[name].get("cleaned", {}):
                rows.append((f"{name}, cleaned", report[name]["cleaned"]))
    without = report[split]["without_copies"]
    if "accuracy" in without:
        rows.append((f"{split}, no copies", without))
    for name, metrics in rows:
        table.add_row(name, f"{metrics['images']:,}", *(f"{metrics[key]:.4f}" for key in HEADLINE))
        ends = (metrics["interval95"][key] for key in HEADLINE)
        table.add_row("  95 %", "", *(f"{low:.3f}-{high:.3f}".replace("0.", ".") for low, high in ends), style="dim")
    for member in report[split].get("members", []):
        table.add_row(escape(_short(Path(member["path"]))), "", *(f"{member[key]:.4f}" for key in HEADLINE))
    table.add_section()
    table.add_row(f"{split}, by recall", style="italic")
    for name, metrics in html.weakest_first(report[split]["per_class"]).items():
        figures = (f"{metrics[key]:.4f}" for key in HEADLINE[1:])
        table.add_row(name, f"{metrics['images']:,}", "", *figures)
    console = Console()
    console.print(table)
    console.print(html.about_labels(report), highlight=False, markup=False)
    if "disagreement" in report[split]:
        console.print(f"The members do not all agree on {report[split]['disagreement']['any']:.1%} of the images.")
    if split == "val":
        console.print("The report is about val: there are no test rows, or test_split=val leaves them alone.")


def _print_files(run_dir: Path, members: Sequence[_Member]) -> None:
    console = Console()
    for what, where in (
        ("report", run_dir / rundir.REPORT),
        *(("checkpoint", member.path) for member in members),
        ("numbers", run_dir / rundir.METRICS),
    ):
        here = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
        console.print(f"{what:<11}{here}", soft_wrap=True, highlight=False, markup=False)
