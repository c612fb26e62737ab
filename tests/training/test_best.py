"""Which epoch best.ckpt holds, also after a run was broken off."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fer.checkpoint import read_checkpoint
from fer.classifier import EmotionClassifier
from fer.settings.train import TrainSettings
from fer.training.run import train

pytestmark = pytest.mark.usefixtures("unrendered")


def test_a_worse_epoch_never_takes_the_place_of_the_best(
    settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not when the run was killed right after its best epoch and resumed."""
    accuracies = [0.3, 0.6, 0.5, 0.4]
    checkpoints = tmp_path / "checkpoints"

    def pretend(self: EmotionClassifier, batch: object, batch_idx: int) -> None:
        self.log("val/accuracy", accuracies[self.current_epoch], batch_size=1)

    monkeypatch.setattr(EmotionClassifier, "validation_step", pretend)
    train(settings("trainer.max_epochs=2"), tmp_path)
    assert read_checkpoint(checkpoints / "best.ckpt")["epoch"] == 1
    train(settings("trainer.max_epochs=4", f"ckpt={checkpoints / 'last.ckpt'}"), tmp_path)
    assert read_checkpoint(checkpoints / "last.ckpt")["epoch"] == 3
    assert read_checkpoint(checkpoints / "best.ckpt")["epoch"] == 1
