"""The moving average of weights, against one that is computed afterwards in double precision."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from fer.checkpoint import read_checkpoint
from fer.classifier import EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import DataSettings
from fer.training.callbacks import EMA

CLASSES = ["angry", "happy", "sad"]
DECAY = 0.5  # reached by the warm-up after 8 steps; an epoch has 6


class Record(Callback):
    """The weights and buffers after every step of the optimiser."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        self.steps.setdefault(trainer.global_step, state)


def fit(callbacks: Sequence[Callback], epochs: int, ckpt: Path | None = None, accumulate: int = 1) -> L.Trainer:
    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("net", tuple(CLASSES), kwargs={"widths": [4, 8]}))
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(
        EmotionClassifier(network, lambda module: torch.optim.SGD(module.parameters(), 0.1)),
        FER2013DataModule(
            DataSettings.checked(
                {
                    "path": None,
                    "classes": list(CLASSES),
                    "batch_size": 8,
                    "augment": None,
                    "synthetic": {"train": 112, "val": 28, "test": 0},
                }
            )
        ),
        ckpt_path=ckpt,
    )
    return trainer


class SaveEveryStep(Callback):
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.directory / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_averaged_weights_follow_the_published_formula(tmp_path: Path, accumulate: int) -> None:
    record = Record()
    trainer = fit([record, EMA(DECAY), SaveEveryStep(tmp_path)], 2 * accumulate, accumulate=accumulate)
    average = {name: tensor.double() for name, tensor in record.steps[1].items()}
    assert any("running_var" in name for name in average)
    for number in range(1, 13):
        content = read_checkpoint(tmp_path / f"{number}.ckpt")
        n = number - 1
        decay = min(DECAY, (1 + n) / (10 + n)) if n > 0 else 0.0
        for name, averaged in content["state_dict"].items():
            if averaged.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * record.steps[number][name].double()
                torch.testing.assert_close(averaged.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)
            else:  # batch norm's count of batches
                assert torch.equal(averaged, content["current_model_state"][name]), name
    for name, tensor in trainer.lightning_module.state_dict().items():
        assert torch.equal(tensor, content["state_dict"][name]), name  # what training leaves


def test_validation_sees_the_average_and_training_goes_on_without_it() -> None:
    class Watch(Callback):
        validated: dict[str, Tensor] = {}

        def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
            self.validated = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}

    watch, with_average, without = Watch(), Record(), Record()
    trainer = fit([EMA(DECAY), with_average, watch], 2)
    fit([without], 2)
    final = trainer.lightning_module.state_dict()
    for name, tensor in without.steps[12].items():
        assert torch.equal(tensor, with_average.steps[12][name]), name
        assert torch.equal(watch.validated[name], final[name]), name
    assert not all(torch.equal(tensor, final[name]) for name, tensor in without.steps[12].items())


def test_a_checkpoint_of_lightnings_own_averaging_is_resumed(tmp_path: Path) -> None:
    """Which earlier versions used."""

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        decay = min(DECAY, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new, 1 - decay) if old.is_floating_point() else old.copy_(new)

    class Earlier(WeightAveraging):
        __qualname__ = "EMA"  # under which a callback's state is kept

    fit([Earlier(multi_avg_fn=torch.no_grad()(average)), SaveEveryStep(tmp_path)], 1)
    resumed = fit([EMA(DECAY)], 2, tmp_path / "4.ckpt")
    unbroken = fit([EMA(DECAY)], 2)
    for name, tensor in unbroken.lightning_module.state_dict().items():
        assert torch.equal(tensor, resumed.lightning_module.state_dict()[name]), name
