"""A run that is broken off and resumed ends with the weights and the figures of an unbroken one."""

import csv
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny import scalars, write_with_votes

from fer.checkpoint import SPEC_KEY, read_checkpoint, write_checkpoint
from fer.errors import UserError
from fer.settings.train import TrainSettings
from fer.training.run import train

pytestmark = pytest.mark.usefixtures("unrendered")

LAST = Path("checkpoints/last.ckpt")


class Interrupt(Callback):
    """Sends this process a signal after a number of optimiser steps."""

    def __init__(self, step: int, signum: int) -> None:
        self.step = step
        self.signum = signum

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.signum)


class LateInterrupt(Interrupt):
    """Sends it after the batch that follows on the step."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            self.step = -1  # a second Ctrl-C would stop at once
            os.kill(os.getpid(), self.signum)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        pass


def weights(file: Path) -> dict[str, torch.Tensor]:
    content = read_checkpoint(file)
    return {**content["state_dict"], **{f"raw.{k}": v for k, v in content["current_model_state"].items()}}


class TimeIsUp(Callback):
    """Ends a run after a step, as `trainer.max_time` does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.global_step == self.step


class LateTimeIsUp(TimeIsUp):
    """Ends it after the batch that follows on the step, whose gradients are accumulated."""

    def on_train_batch_end(self, trainer: L.Trainer, *rest: object) -> None:
        if trainer.global_step == self.step and rest[-1] == 4:  # of six: the step after it is the epoch's last
            self.step = -1
            trainer.should_stop = True


# A schedule by step, one by validation loss, another size of face in every epoch, and a second task as best_7 has it.
RUNS = {
    "sgd": ["optim=sgd"],
    "adam": ["optim=adam"],
    "sizes": ["optim=sgd", "image_sizes=[24,32,48]"],
    "votes": ["optim=sgd", "data.ferplus_auxiliary=1"],
}
OPTIONS = ["trainer.max_epochs=3", "data.mixup_alpha=0.2", "optim.warmup_epochs=1"]


@pytest.fixture(scope="module", autouse=True)
def _look_often() -> Iterator[None]:
    """Short epochs, too, have looks at the running loss."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer.training.callbacks._EVERY", 4)
        yield


@pytest.fixture(scope="module")
def unbroken(settings: Callable[..., TrainSettings], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One uninterrupted run of each kind."""
    RUNS["votes"] += write_with_votes(tmp_path_factory.mktemp("data"), 210, 70, 70)
    runs = {name: tmp_path_factory.mktemp(name) for name in RUNS}
    for name, run in runs.items():
        train(settings(*OPTIONS, *RUNS[name]), run)
    return runs


# 210 faces in batches of 32 are 6 steps per epoch: in the first epoch, at its end, in the middle of the second.
@pytest.mark.parametrize(("name", "step"), [("sgd", 2), ("sgd", 6), ("adam", 9), ("sizes", 9), ("votes", 9)])
def test_a_resumed_run_equals_an_unbroken_one(
    settings: Callable[..., TrainSettings], unbroken: dict[str, Path], tmp_path: Path, name: str, step: int
) -> None:
    options = [*OPTIONS, *RUNS[name]]
    stop = f"+callbacks.stop={{_target_: {__name__}.Interrupt, step: {step}, signum: {int(signal.SIGINT)}}}"
    with pytest.raises(SystemExit) as stopped:
        train(settings(*options, stop), tmp_path)
    assert stopped.value.code == 130
    train(settings(*options, f"ckpt={tmp_path / LAST}"), tmp_path)

    expected, resumed = weights(unbroken[name] / LAST), weights(tmp_path / LAST)
    assert expected.keys() == resumed.keys()
    for key, tensor in expected.items():
        assert torch.equal(tensor, resumed[key]), key
    histories = [(run / "history.csv").read_text() for run in (unbroken[name], tmp_path)]
    assert histories[0] == histories[1]
    assert len(histories[0].splitlines()) == 4
    shown = scalars(tmp_path)
    assert shown == scalars(unbroken[name])
    assert [place for place, _ in shown["train: step/loss"]] == [3, 9, 15]
    assert [place for place, _ in shown["val: epoch/loss"]] == [5, 11, 17]


@pytest.mark.parametrize(
    ("name", "end", "no_end"),
    [
        ("sgd", f"+callbacks.stop={{_target_: {__name__}.TimeIsUp, step: 9}}", []),
        ("adam", "+trainer.max_steps=9", ["+trainer.max_steps=-1"]),
    ],
    ids=["max_time", "max_steps"],
)
def test_what_ended_in_the_middle_of_an_epoch_goes_on_there(
    settings: Callable[..., TrainSettings],
    unbroken: dict[str, Path],
    tmp_path: Path,
    name: str,
    end: str,
    no_end: list[str],
) -> None:
    options = [*OPTIONS, *RUNS[name]]
    assert train(settings(*options, end), tmp_path).steps == 9
    train(settings(*options, *no_end, f"ckpt={tmp_path / LAST}"), tmp_path)
    expected, resumed = weights(unbroken[name] / LAST), weights(tmp_path / LAST)
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in expected.items())
    assert (tmp_path / "history.csv").read_text() == (unbroken[name] / "history.csv").read_text()


@pytest.mark.parametrize("way", ["LateInterrupt", "LateTimeIsUp"])
def test_a_step_of_several_batches_is_finished_before_a_run_stops(
    settings: Callable[..., TrainSettings], tmp_path: Path, way: str
) -> None:
    options = ["optim=adam", "trainer.accumulate_grad_batches=4", "trainer.max_epochs=3"]
    train(settings(*options), tmp_path / "unbroken")
    # After the second epoch's first step of two, in the middle of the second.
    signum = f", signum: {int(signal.SIGINT)}" if way == "LateInterrupt" else ""
    stop = f"+callbacks.stop={{_target_: {__name__}.{way}, step: 3{signum}}}"
    with pytest.raises(SystemExit) if way == "LateInterrupt" else nullcontext():
        train(settings(*options, stop), tmp_path / "broken")
    assert read_checkpoint(tmp_path / "broken" / LAST)["global_step"] == 4
    train(settings(*options, f"ckpt={tmp_path / 'broken' / LAST}"), tmp_path / "broken")
    expected, resumed = weights(tmp_path / "unbroken" / LAST), weights(tmp_path / "broken" / LAST)
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in expected.items())


def test_a_run_that_early_stopping_ended_stays_ended(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    options = ["early_stopping=1", "trainer.max_epochs=9", "optim.lr=1e-9"]
    train(settings(*options), tmp_path)
    before = read_checkpoint(tmp_path / LAST)
    assert before["epoch"] < 8
    train(settings(*options, f"ckpt={tmp_path / LAST}"), tmp_path)
    assert read_checkpoint(tmp_path / LAST)["global_step"] == before["global_step"]


def test_a_run_goes_on_with_its_own_data_alone(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    train(settings("optim.schedule=none"), tmp_path)
    other = ["optim.schedule=none", "data.split_seed=5", "trainer.max_epochs=3", f"ckpt={tmp_path / LAST}"]
    with pytest.raises(UserError, match="the rows, their labels or their splits are not those it was trained on"):
        train(settings(*other), tmp_path)


def test_a_run_that_goes_on_elsewhere_says_where_it_was(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    file = tmp_path / LAST
    train(settings("trainer.max_epochs=1", "optim.schedule=none"), tmp_path)
    content = read_checkpoint(file)
    here = content[SPEC_KEY]["provenance"]["machine"]
    content[SPEC_KEY]["provenance"]["machine"] = "NVIDIA H200, bf16-mixed, 4 threads"
    write_checkpoint(content, file)
    for epochs in (2, 3):  # the second time on the same machine as before
        train(settings(f"trainer.max_epochs={epochs}", "optim.schedule=none", f"ckpt={file}"), tmp_path)
        made = read_checkpoint(file)[SPEC_KEY]["provenance"]["machine"]
        assert made == f"NVIDIA H200, bf16-mixed, 4 threads; then {here}"


def test_the_csv_of_a_resumed_run_keeps_the_epochs_before(
    settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    options = ["logger=csv", "optim.schedule=none"]
    train(settings(*options, "trainer.max_epochs=1"), tmp_path)
    train(settings(*options, "trainer.max_epochs=3", f"ckpt={tmp_path / LAST}"), tmp_path)
    with (tmp_path / "csv" / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/loss"]]
    assert [row["step"] for row in rows] == ["5", "11", "17"]


def test_an_epoch_without_validation_repeats_no_figures_and_has_a_checkpoint(
    settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    stop = f"+callbacks.stop={{_target_: {__name__}.Interrupt, step: 8, signum: {int(signal.SIGINT)}}}"
    options = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3"]
    with pytest.raises(SystemExit):
        train(settings(*options, stop), tmp_path)
    assert read_checkpoint(tmp_path / LAST)["global_step"] == 8
    train(settings(*options, f"ckpt={tmp_path / LAST}"), tmp_path)
    with (tmp_path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["train/loss"] != "" for row in rows] == [True, True, True]
    assert [row["val/loss"] != "" for row in rows] == [False, True, False]


def test_sigterm_leaves_a_whole_checkpoint(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    stop = f"+callbacks.stop={{_target_: {__name__}.Interrupt, step: 3, signum: {int(signal.SIGTERM)}}}"
    with pytest.raises(SystemExit) as stopped:
        train(settings(stop), tmp_path)
    assert stopped.value.code == 143
    assert read_checkpoint(tmp_path / LAST)["global_step"] == 3


def test_the_same_seed_gives_the_same_weights(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    for run in "ab":
        train(settings("seed=5"), tmp_path / run)
    train(settings("seed=6"), tmp_path / "c")
    first, second, other = (weights(tmp_path / run / LAST) for run in "abc")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
