"""Optimiser and learning-rate schedule of a run, from plain settings. Knows nothing of data or of the command line."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from torch.optim import lr_scheduler

from fer.classifier import EmotionClassifier
from fer.config import import_by_name


def configure_optimizers(
    module: EmotionClassifier,
    optimizer: Mapping[str, Any],
    lr: float,
    weight_decay: float,
    schedule: str,
    warmup_epochs: float,
    min_lr: float,
    factor: float,
    patience: int,
) -> dict[str, Any]:
    """What Lightning's `configure_optimizers` returns.

    Args:
        module: its parameters are optimised; its trainer tells the number of steps.
        optimizer: `_target_` names the class, such as torch.optim.SGD; the rest are its arguments.
        lr: highest learning rate.
        weight_decay: on weights only, not on norms and biases.
        schedule: "cosine" (linear warm-up, then a half cosine to `min_lr`, per step), "onecycle" (Smith & Topin,
            arXiv 1708.07120, per step), "plateau" (by `factor` after `patience` epochs without a lower validation
            loss, down to `min_lr`) or "none".
        warmup_epochs: length of the rise of "cosine" and "onecycle".
        min_lr: lowest learning rate of "cosine" and "plateau".
        factor, patience: of "plateau".
    """
    settings = dict(optimizer)
    optimizer_class = import_by_name(settings.pop("_target_"))
    groups = param_groups_weight_decay(module, weight_decay)
    built: torch.optim.Optimizer = optimizer_class(groups, lr=lr, weight_decay=weight_decay, **settings)

    trainer = module.trainer
    steps = max(1, int(trainer.estimated_stepping_batches))  # makes the trainer count the batches, too
    if schedule == "none":
        return {"optimizer": built}
    if schedule == "plateau":
        plateau = lr_scheduler.ReduceLROnPlateau(built, factor=factor, patience=patience, min_lr=min_lr)
        # With the epoch's last step, so before its checkpoint is written: Lightning would do it after that, and a run
        # that is resumed from the checkpoint never.
        epoch = {"interval": "step", "frequency": trainer.num_training_batches}
        return {"optimizer": built, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss", **epoch}}

    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else 1
    warmup = min(round(warmup_epochs * steps / epochs), steps // 2)
    if schedule == "onecycle":
        cycle, rise = max(3, steps), max(1, warmup)  # a rise or a fall of no steps would be a division by zero
        scheduler: lr_scheduler.LRScheduler = lr_scheduler.OneCycleLR(
            built, max_lr=lr, total_steps=cycle, pct_start=(rise + 1) / cycle, cycle_momentum=False
        )
    else:
        scheduler = lr_scheduler.LambdaLR(
            built, partial(_cosine, warmup=warmup, steps=steps, lowest=min(1.0, min_lr / lr))
        )
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _cosine(step: int, warmup: int, steps: int, lowest: float) -> float:
    """Learning rate of a step, as a fraction of the highest."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2
