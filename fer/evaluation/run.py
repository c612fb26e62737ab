"""The report on a checkpoint, or on several as an ensemble: numbers, pictures, a page and a table."""

import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torchvision
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import fer
from fer import rundir
from fer.data.datamodule import FER2013DataModule, print_class_counts
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL
from fer.data.seen import MOST
from fer.errors import UserError
from fer.evaluation import html
from fer.evaluation.known_faces import faces_of_training, known_to
from fer.evaluation.measure import Outcome, choose_on_val, measure, measure_on_corrupted
from fer.evaluation.members import (
    Member,
    check_classes,
    describe,
    leave_out,
    load_members,
    short,
    title_of,
    trained_labels,
    training_data,
)
from fer.evaluation.metrics import HEADLINE
from fer.evaluation.pictures import draw, training_pictures
from fer.files import as_csv, cell, write_whole
from fer.labels import ALL_EMOTIONS, subset_name
from fer.settings.base import as_yaml
from fer.settings.train import TrainSettings
from fer.tensorboard import RunLogger

log = logging.getLogger(__name__)


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
    members = load_members(checkpoints, settings.tta)
    trained_here = datamodule is not None
    if datamodule is None:
        datamodule = _data_to_judge_by(settings, members[0].network.spec.classes)
        datamodule.prepare_data()
        datamodule.setup()
    check_classes(settings, members, datamodule)
    left_out = leave_out(members, datamodule)
    (run_dir / rundir.PLOTS).mkdir(parents=True, exist_ok=True)
    if not trained_here:
        print_class_counts(datamodule)

    known = known_to(members, datamodule)
    splits = _splits(settings, datamodule, known, trained_here)
    if trained_here:
        training_faces, complete = datamodule.rows(TRAIN).images, True
    else:
        training_faces, complete = faces_of_training(settings, members, datamodule)
    outcomes = {
        SPLIT_NAMES[split]: measure(settings, members, datamodule, split, training_faces, known[split])
        for split in splits
    }
    for outcome in outcomes.values():
        outcome.metrics["without_copies"]["complete"] = complete
    choose_on_val(outcomes, datamodule.classes)
    counts = {SPLIT_NAMES[split]: int(known[split].sum()) for split in splits}
    report = _report(settings, members, datamodule, outcomes, left_out, counts)
    if settings.robustness:
        reported = outcomes[report["reported_split"]]
        report["robustness"] = measure_on_corrupted(settings, members, datamodule, reported)

    _write_predictions(run_dir / rundir.PREDICTIONS, datamodule, outcomes)
    write_whole(run_dir / rundir.METRICS, json.dumps(report, indent=2, allow_nan=False).encode())
    _print_table(report, members)

    watched = any(str(target.get("_target_")).endswith("TensorBoardLogger") for target in settings.logger.values())
    logger = RunLogger(run_dir) if watched else None
    step = int(members[0].content.get("global_step", 0))
    pictures = draw(members, datamodule, outcomes, report, run_dir / rundir.PLOTS, logger, step)
    plain = settings.plain() | {"name": settings.run_name}
    text = rundir.PRIVATE if secret else as_yaml(plain)
    page = html.render(report, pictures | training_pictures(members), text, title_of(members))
    write_whole(run_dir / rundir.REPORT, page.encode())
    if logger is not None:
        _log_outcome(logger, settings, report, max(step - 1, 0))
    _print_files(run_dir, members)
    return report


def _report(
    settings: TrainSettings,
    members: Sequence[Member],
    datamodule: FER2013DataModule,
    outcomes: Mapping[str, Outcome],
    left_out: Mapping[str, Any],
    trained_on: Mapping[str, int],
) -> dict[str, Any]:
    """The content of metrics.json; `trained_on` are faces of each split that members know from training."""
    return {
        "checkpoints": [describe(member) for member in members],
        "classes": list(datamodule.classes),
        "tta": settings.tta,
        "seed": settings.seed,
        "data": settings.data.source,
        **({"sources": settings.data.sources} if len(settings.data.sources) > 1 else {}),
        **({"left_out": left_out} if any(left_out.values()) else {}),
        "division": f"{datamodule.division()}, split seed {settings.data.split_seed}",
        "labels": {"train": trained_labels(members), "evaluation": datamodule.describe_labels()["evaluation"]},
        "exclude": _exclusion(settings, datamodule),
        "training": training_data(members, datamodule),
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


def _write_predictions(file: Path, datamodule: FER2013DataModule, outcomes: dict[str, Outcome]) -> None:
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


def _print_table(report: dict[str, Any], members: Sequence[Member]) -> None:
    split = report["reported_split"]
    table = Table(title=title_of(members), title_justify="left")
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
        table.add_row(escape(short(Path(member["path"]))), "", *(f"{member[key]:.4f}" for key in HEADLINE))
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


def _print_files(run_dir: Path, members: Sequence[Member]) -> None:
    console = Console()
    for what, where in (
        ("report", run_dir / rundir.REPORT),
        *(("checkpoint", member.path) for member in members),
        ("numbers", run_dir / rundir.METRICS),
    ):
        here = where.relative_to(Path.cwd()) if where.is_relative_to(Path.cwd()) else where
        console.print(f"{what:<11}{here}", soft_wrap=True, highlight=False, markup=False)
