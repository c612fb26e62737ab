"""Optimiser and learning-rate schedule of a run, from plain settings. Knows nothing of data or of the command line."""

import math
from functools import partial
from typing import Any

import torch
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from torch import nn
from torch.optim import lr_scheduler

from fer.classifier import EmotionClassifier
from fer.errors import UserError
from fer.settings.target import build
from fer.settings.train import OptimSettings


def build_optimizer(module: nn.Module, optim: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser of a module's parameters, without weight decay on norms and biases.

    Raises:
        UserError: there is no such class, or it does not take these arguments.
    """
    for twice in ("lr", "weight_decay"):
        if twice in optim.optimizer:
            raise UserError(f"optim.optimizer.{twice}: set optim.{twice} instead")
    groups = param_groups_weight_decay(module, optim.weight_decay)
    given = {"lr": optim.lr, "weight_decay": optim.weight_decay}
    found: torch.optim.Optimizer = build("optim.optimizer", optim.optimizer, torch.optim.Optimizer, groups, **given)
    return found


def configure_optimizers(module: EmotionClassifier, optim: OptimSettings) -> dict[str, Any]:
    """What Lightning's `configure_optimizers` returns.

    The schedules: "cosine" is a linear warm-up, then a half cosine to `min_lr`, per step; "onecycle" that of Smith &
    Topin, arXiv 1708.07120, per step; "plateau" multiplies by `factor` after `patience` epochs without a lower
    validation loss, down to `min_lr`.

    Args:
        module: its parameters are optimised; its trainer tells the number of steps.
        optim: see `fer.settings.train.OptimSettings`.
    """
    built = build_optimizer(module, optim)
    trainer = module.trainer
    trainer.fit_loop.setup_data()  # counts the batches, which a run without max_epochs would do later
    steps = trainer.estimated_stepping_batches
    if optim.schedule == "none":
        return {"optimizer": built}
    if optim.schedule == "plateau":
        plateau = lr_scheduler.ReduceLROnPlateau(
            built, factor=optim.factor, patience=optim.patience, min_lr=optim.min_lr
        )
        # With the epoch's last step, so before its checkpoint is written: Lightning would do it after that, and a run
        # that is resumed from the checkpoint never.
        epoch = {"interval": "step", "frequency": trainer.num_training_batches}
        return {"optimizer": built, "lr_scheduler": {"scheduler": plateau, "monitor": "val/loss", **epoch}}

    steps = max(1, int(steps))
    steps_of_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    warmup = min(round(optim.warmup_epochs * steps_of_epoch), steps // 2)
    if optim.schedule == "onecycle":
        cycle, rise = max(3, steps), max(1, warmup)  # a rise or a fall of no steps would be a division by zero
        scheduler: lr_scheduler.LRScheduler = lr_scheduler.OneCycleLR(
            built, max_lr=optim.lr, total_steps=cycle, pct_start=(rise + 1) / cycle, cycle_momentum=False
        )
    else:
        scheduler = lr_scheduler.LambdaLR(
            built, partial(_cosine, warmup=warmup, steps=steps, lowest=min(1.0, optim.min_lr / optim.lr))
        )
    return {"optimizer": built, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _cosine(step: int, warmup: int, steps: int, lowest: float) -> float:
    """Learning rate of a step, as a fraction of the highest."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * progress)) / 2
