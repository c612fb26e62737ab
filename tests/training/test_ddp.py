"""Two processes on one machine, by the real command: the same training as one process, one run directory."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from tiny import TINY, write_with_votes

from fer import machine
from fer.checkpoint import read_checkpoint
from fer.errors import UserError
from fer.settings.train import TrainSettings
from fer.training.trainer import build_trainer

# Nothing random and nothing that looks at a batch as a whole, so that two halves of a batch give its gradient. The 71
# validation faces do not divide by two. FER+'s votes are a second task, as in best_7.
PLAIN = [
    *(word for word in TINY if "model" not in word and "synthetic" not in word),
    "data.ferplus_auxiliary=1",
    "data.augment=null",
    "model=vit",
    "++model.kwargs={patch_size: 12, depth: 2, embed_dim: 32, num_heads: 2}",
    "optim=sgd",
    "trainer.precision=32-true",
]
Command = Callable[..., "CompletedProcess[str]"]


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def files(run: Path) -> list[str]:
    """Names of all files, events without the time and process in theirs."""
    names = (str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    return sorted(re.sub(r"events\.out\.tfevents.*", "events", name) for name in names)


def test_two_processes_train_as_one(command: Command, tmp_path: Path) -> None:
    words = [*PLAIN, *write_with_votes(tmp_path, 210, 71, 70)]
    two = command(*words, "trainer=ddp", "trainer.devices=2", "data.batch_size=16", "name=two")
    assert two.returncode == 0, two.stderr
    assert two.stderr == ""
    assert two.stdout.count("epoch 2/2") == 1
    assert "2 processes of 16 faces" in two.stdout
    one = command(*words, "hydra.run.dir=outputs/one")
    assert one.returncode == 0, one.stderr
    first, last = sorted((tmp_path / "outputs").iterdir())  # both processes of "two" share a directory
    runs = last, first

    assert (last.name, first.name.rpartition("_")[2]) == ("one", "two")
    assert files(runs[0]) == files(runs[1])
    for ours, theirs in zip(*map(history, runs), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    states = [read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)
    reports = [json.loads((run / "metrics.json").read_text()) for run in runs]
    for split, images in (("val", 71), ("test", 70)):
        assert reports[0][split]["images"] == reports[1][split]["images"] == images
        assert reports[0][split]["confusion_matrix"] == reports[1][split]["confusion_matrix"]


@pytest.mark.parametrize(
    ("trainer", "launcher", "refused"),
    [
        ({"strategy": "ddp", "devices": 2}, "BasicLauncher", True),
        ({"strategy": "ddp_find_unused_parameters_true", "devices": 1}, "JoblibLauncher", True),
        ({"devices": 2}, "BasicLauncher", True),
        ({"devices": [0, 1]}, "BasicLauncher", True),
        ({"devices": [1]}, "BasicLauncher", False),
        ({"devices": 1}, "BasicLauncher", False),
        ({"devices": "auto", "accelerator": "cpu"}, "BasicLauncher", False),
        ({"strategy": "ddp", "devices": 2}, "SlurmLauncher", False),
    ],
)
def test_a_sweep_whose_processes_would_start_it_again_is_refused(
    trainer: dict[str, object], launcher: str, refused: bool
) -> None:
    if refused:
        with pytest.raises(UserError, match="submitit_slurm"):
            machine.refuse_second_sweep(trainer, launcher)
    else:
        machine.refuse_second_sweep(trainer, launcher)


def test_a_job_of_a_cluster_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NAME", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert machine.job() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(UserError, match="--rdzv-id"):
        machine.job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tuesday")
    assert machine.job() == "torchrun-tuesday"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert machine.job() == "slurm-17"
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # a person's shell, where one command follows another
    assert machine.job() == "torchrun-tuesday"


def test_several_machines_are_taken(
    settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchrun = {"RANK": 1, "LOCAL_RANK": 0, "GROUP_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tuesday")
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # which the trainer sets for the whole process
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "+trainer.num_nodes=2"]
    trainer = build_trainer(settings(*words), tmp_path, [], [])
    assert (trainer.num_nodes, trainer.world_size, trainer.global_rank) == (2, 2, 1)


def test_only_one_process_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert machine.is_first()
    monkeypatch.setenv("LOCAL_RANK", "0")  # torchrun on the second machine
    monkeypatch.setenv("RANK", "2")
    assert not machine.is_first()
    monkeypatch.setenv("RANK", "0")
    assert machine.is_first()


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"])
def test_a_rank_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "first")
    with pytest.raises(UserError, match=f"^{name}=first in the environment .* unset {name}$"):
        machine.is_first()
