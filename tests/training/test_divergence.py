"""A run whose loss or weights are not finite ends, and leaves no such checkpoint."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from test_resume import LAST, weights

from fer.errors import UserError
from fer.settings.train import TrainSettings
from fer.training.run import train


class Poison(Callback):
    """Makes one weight infinite after a number of optimiser steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == self.step:
            next(pl_module.parameters()).view(-1)[0] = torch.inf


# An epoch has 6 steps. Of the last one the loss was finite, and so is the average.
@pytest.mark.parametrize("step", [6, 9, 12])
def test_it_ends_before_a_checkpoint_is_written(
    settings: Callable[..., TrainSettings], tmp_path: Path, step: int
) -> None:
    poison = f"+callbacks.poison={{_target_: {__name__}.Poison, step: {step}}}"
    with pytest.raises(UserError, match=f"not finite in epoch {(step + 5) // 6}"):
        train(settings("ema=0.9", "trainer.max_epochs=3", poison), tmp_path)
    written = sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))
    assert written == ([] if step == 6 else ["best.ckpt", "last.ckpt"])
    if written:
        assert all(tensor.isfinite().all() for tensor in weights(tmp_path / LAST).values())


def test_a_learning_rate_that_is_too_high_is_named(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    cfg = settings("optim=sgd", "ema=null", "trainer.max_epochs=1")
    cfg.optim.lr = 1e30
    with pytest.raises(UserError, match=r"not finite in epoch 1, at a learning rate of .*lower optim\.lr"):
        train(cfg, tmp_path)
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "history.csv").exists()
