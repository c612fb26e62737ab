"""The report on a checkpoint: numbers, pictures and a table for its validation and test split.

Knows the data and the classifier; knows nothing of how the checkpoint was trained.
"""

import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

import fer
from fer.checkpoint import SPEC_KEY, load_network, read_checkpoint, write_checkpoint
from fer.classifier import EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import SPLIT_NAMES, TEST, VAL
from fer.evaluation import plots
from fer.evaluation.metrics import HEADLINE, compute_metrics, fit_temperature
from fer.training.callbacks import RunLogger
from fer.training.run import build_datamodule, choose_precision, print_class_counts

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, ckpt: Path, run_dir: Path, calibrate: bool) -> dict[str, Any]:
    """Writes metrics.json, pictures and TensorBoard entries for a checkpoint, and prints a table.

    Args:
        cfg: a `TrainConfig`; its data are read, with the classes of the checkpoint.
        ckpt: the checkpoint.
        run_dir: where everything goes.
        calibrate: fit the temperature on the validation split and store it in the checkpoint; for a checkpoint that
            this run trained.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: the checkpoint cannot be used, or the data cannot be read.
    """
    (run_dir / "plots").mkdir(parents=True, exist_ok=True)
    content = read_checkpoint(ckpt)
    network = load_network(ckpt)
    classes = network.spec.classes
    datamodule = build_datamodule(cfg, classes)
    datamodule.prepare_data()
    datamodule.setup()
    if not calibrate:
        print_class_counts(datamodule)

    temperature = network.spec.temperature
    report: dict[str, Any] = {
        "checkpoint": str(ckpt),
        "network": network.spec.name,
        "classes": list(classes),
        "weights": "averaged" if "averaging_state" in content else "raw",
        "epoch": content.get("epoch", -1) + 1,
        "seed": cfg.seed,
        "data": str(cfg.data.path or "synthetic"),
        "split": cfg.data.split,
        "versions": {
            "fer": fer.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "lightning": L.__version__,
        },
    }
    logger = RunLogger(run_dir)
    step = int(content.get("global_step", 0))
    classifier = EmotionClassifier(network)
    for code in (VAL, TEST):
        if not (datamodule.faces.splits == code).any():
            continue
        logits, targets = _predict(cfg, classifier, datamodule, code)
        if code == VAL and calibrate:
            temperature = fit_temperature(logits, targets)
            content[SPEC_KEY]["temperature"] = temperature
            write_checkpoint(content, ckpt)
        split = SPLIT_NAMES[code]
        probabilities = torch.softmax(logits / temperature, dim=1)
        report[split] = compute_metrics(probabilities, targets, classes)
        for name, figure in _pictures(datamodule, code, probabilities, targets, report[split], split).items():
            figure.savefig(run_dir / "plots" / f"{name}.png")
            logger.experiment.add_figure(f"{split}/{name.removesuffix('_' + split)}", figure, step)
    report["temperature"] = temperature

    _write_json(run_dir / "metrics.json", report)
    _log_hyperparameters(logger, cfg, report)
    _print_table(report, run_dir, ckpt)
    return report


def _predict(
    cfg: DictConfig, classifier: EmotionClassifier, datamodule: FER2013DataModule, code: int
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) and targets (N,) of a split, on the CPU, computed by one process."""
    accelerator = cfg.trainer.get("accelerator", "auto")
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=choose_precision(cfg.trainer.get("precision", "auto"), accelerator),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=True,
    )
    loader = datamodule.val_dataloader() if code == VAL else datamodule.test_dataloader()
    batches: Any = trainer.predict(classifier, loader)
    logits, targets = zip(*batches, strict=True)
    return torch.cat(logits).cpu(), torch.cat(targets).cpu()


def _pictures(
    datamodule: FER2013DataModule,
    code: int,
    probabilities: Tensor,
    targets: Tensor,
    metrics: dict[str, Any],
    split: str,
) -> dict[str, Figure]:
    classes = datamodule.classes
    rng = np.random.default_rng(datamodule.seed)
    chosen = np.sort(rng.permutation(len(targets))[:32])
    return {
        f"confusion_matrix_{split}": plots.confusion_matrix(
            metrics["confusion_matrix"],
            classes,
            f"{split}: accuracy {metrics['accuracy']:.3f}, macro F1 {metrics['f1']:.3f}, {metrics['images']:,} images",
        ),
        f"predictions_{split}": plots.sample_predictions(
            datamodule.rows(code).images[chosen],
            targets.numpy()[chosen],
            probabilities.numpy()[chosen],
            classes,
            f"{split}: 32 random faces",
        ),
    }


def _log_hyperparameters(logger: RunLogger, cfg: DictConfig, report: dict[str, Any]) -> None:
    """Fills TensorBoard's HParams tab: what may be varied, and what came out."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    chosen = {
        "model": settings["model"]["name"],
        "classes": "+".join(report["classes"]),
        "seed": settings["seed"],
        "epochs": report["epoch"],
        "batch_size": settings["data"]["batch_size"],
        "split": settings["data"]["split"],
        "balance": settings["data"]["balance"],
        "augment": settings["data"]["augment"] is not None,
        "mixup_alpha": settings["data"]["mixup_alpha"],
        "optimizer": settings["optim"]["optimizer"]["_target_"].rpartition(".")[2],
        "lr": settings["optim"]["lr"],
        "weight_decay": settings["optim"]["weight_decay"],
        "schedule": settings["optim"]["schedule"],
        "label_smoothing": settings["label_smoothing"],
        "ema": settings["ema"] or 0.0,
    }
    results = {
        f"final/{split}_{name}": report[split][name]
        for split in SPLIT_NAMES.values()
        if split in report
        for name in (*HEADLINE, "loss")
    }
    logger.log_hyperparams(chosen, results)
    logger.finalize("success")


def _print_table(report: dict[str, Any], run_dir: Path, ckpt: Path) -> None:
    split = "test" if "test" in report else "val"
    table = Table(title=f"{report['network']}, epoch {report['epoch']}", title_justify="left")
    for column in ("", "images", *HEADLINE):
        table.add_column(column, justify="left" if not column else "right")
    for name in SPLIT_NAMES.values():
        if name in report:
            metrics = report[name]
            table.add_row(name, f"{metrics['images']:,}", *(f"{metrics[key]:.4f}" for key in HEADLINE))
    table.add_section()
    for name, metrics in report[split]["per_class"].items():
        figures = (f"{metrics[key]:.4f}" for key in HEADLINE[1:])
        table.add_row(f"{split}: {name}", f"{metrics['images']:,}", "", *figures)
    console = Console()
    console.print(table)
    if split == "val":
        console.print("The data set has no test split: there was nothing to test on.")
    for what, where in (
        ("checkpoint", ckpt),
        ("numbers", run_dir / "metrics.json"),
        ("plots", run_dir / "plots"),
    ):
        console.print(f"{what:<11}{where}", soft_wrap=True, highlight=False)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, indent=2)
    Path(temporary).replace(file)
