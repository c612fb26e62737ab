"""Which epoch best.ckpt holds, also after a run was broken off."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from fer.checkpoint import read_checkpoint, write_checkpoint
from fer.classifier import EmotionClassifier
from fer.settings.train import TrainSettings
from fer.training.run import train

pytestmark = pytest.mark.usefixtures("unrendered")


def pretend(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Lets every epoch have the accuracy that the test wants."""

    def validation_step(self: EmotionClassifier, batch: object, batch_idx: int) -> None:
        self.log("val/accuracy", accuracies[self.current_epoch], batch_size=1)

    monkeypatch.setattr(EmotionClassifier, "validation_step", validation_step)


def test_a_worse_epoch_never_takes_the_place_of_the_best(
    settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not when the run was killed right after its best epoch, moved and resumed."""
    pretend(monkeypatch, [0.3, 0.6, 0.5, 0.4])
    train(settings("trainer.max_epochs=2"), tmp_path / "here")
    assert read_checkpoint(tmp_path / "here" / "checkpoints" / "best.ckpt")["epoch"] == 1
    moved = (tmp_path / "here").rename(tmp_path / "there")
    checkpoints = moved / "checkpoints"
    train(settings("trainer.max_epochs=4", f"ckpt={checkpoints / 'last.ckpt'}"), moved)
    assert not (tmp_path / "here").exists()
    assert read_checkpoint(checkpoints / "last.ckpt")["epoch"] == 3
    assert read_checkpoint(checkpoints / "best.ckpt")["epoch"] == 1


class TimeIsUp(Callback):
    """Ends a run after a step, as `trainer.max_time` does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step == self.step


@pytest.mark.parametrize(("step", "found"), [(9, [0.3, 0.9, 0.5, 0.4]), (3, [0.9, 0.3, 0.5, 0.4])])
def test_the_best_of_a_run_that_was_cut_stays_the_best(
    settings: Callable[..., TrainSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    found: list[float],
) -> None:
    """It was found behind the step that the run goes on from, which may know of no best at all."""
    accuracies = iter(found)

    def validation_step(self: EmotionClassifier, batch: object, batch_idx: int) -> None:
        self.log("val/accuracy", next(accuracies), batch_size=1)

    monkeypatch.setattr(EmotionClassifier, "validation_step", validation_step)
    options = ["trainer.max_epochs=3", "optim.schedule=none"]
    train(settings(*options), tmp_path, [TimeIsUp(step)])
    checkpoints = tmp_path / "checkpoints"
    train(settings(*options, f"ckpt={checkpoints / 'last.ckpt'}"), tmp_path)
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 18
    assert read_checkpoint(checkpoints / "best.ckpt")["global_step"] == step


@pytest.mark.parametrize("address", ["local://{}", "{}/checkpoints/../../home"])
def test_a_strangers_checkpoint_deletes_nothing(
    settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    pretend(monkeypatch, [0.3, 0.6])
    run, home = tmp_path / "run", tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    last = run / "checkpoints" / "last.ckpt"
    train(settings("trainer.max_epochs=1"), run)
    content = read_checkpoint(last)
    path = address.format(run if "checkpoints" in address else home)
    for key, state in content["callbacks"].items():
        if "Checkpoint" in key:  # without a directory Lightning takes all of it for its own
            del state["dirpath"]
            worst = torch.tensor(-1.0)
            state |= {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: worst}}
            state |= {"best_model_score": worst, "kth_value": worst, "last_model_path": path}
    write_checkpoint(content, last)
    train(settings("trainer.max_epochs=2", f"ckpt={last}"), run)
    assert read_checkpoint(run / "checkpoints" / "best.ckpt")["epoch"] == 1
    assert (home / "thesis.txt").read_text() == "years"
