"""The search: its space, pruning, a study that goes on after a kill from where its trial was, and its picture."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY

from fer.errors import UserError

optuna = pytest.importorskip("optuna", reason="needs the extra [optuna]")

from optuna import Study  # noqa: E402

from fer.settings.compose import CONFIGS  # noqa: E402
from fer.training import search as module  # noqa: E402

WORDS = [*TINY, "trainer.max_epochs=4", "data.augment=null"]
SPACE: dict[str, dict[str, Any]] = {"optim.lr": {"low": 1e-5, "high": 1e-2, "log": True}, "seed": {"low": 0, "high": 3}}


def run(directory: Path, trials: int) -> Study:
    return module.search(directory, WORDS, SPACE, trials, heartbeat_s=1)


def test_a_study_goes_on_after_a_kill(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fer.training.search"])
    process = processes.Process(target=run, args=(tmp_path, 6))
    process.start()
    cut_off = tmp_path / "trial_0001"
    while not (cut_off / "checkpoints" / "last.ckpt").exists():
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    rows = (cut_off / "history.csv").read_text().splitlines()
    assert not (tmp_path / "trial_0002").exists()

    time.sleep(3.5)  # the grace after the last sign of life
    study = run(tmp_path, 4)
    states = [trial.state.name for trial in study.trials]
    assert states[1] == "FAIL"
    assert len(module.finished(study)) == 4
    retried = study.trials[2]
    assert retried.params == study.trials[1].params
    assert not (tmp_path / "trial_0002").exists()  # it went on in its own directory
    history = (cut_off / "history.csv").read_text().splitlines()
    assert history[: len(rows)] == rows
    assert len(history) == 5
    assert list(retried.intermediate_values) == [0, 1, 2, 3]
    module.plot(study).savefig(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 10_000
    assert run(tmp_path, 4).trials == study.trials  # nothing left to do


def test_a_trial_behind_the_others_is_stopped() -> None:
    class Trainer:
        current_epoch = 0
        callback_metrics = {"val/accuracy": 0.5}

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(1, 0))
    good = study.ask()
    module.Pruning(good, []).on_validation_end(Trainer(), None)  # type: ignore[arg-type]
    study.tell(good, 0.5)
    Trainer.callback_metrics = {"val/accuracy": 0.2}
    with pytest.raises(optuna.TrialPruned):
        module.Pruning(study.ask(), []).on_validation_end(Trainer(), None)  # type: ignore[arg-type]


def test_a_space_is_checked(tmp_path: Path) -> None:
    assert "optim.lr" in module.read_space(CONFIGS / "search" / "recipe.yaml")
    with pytest.raises(UserError, match="does not exist"):
        module.read_space(tmp_path / "none.yaml")
    (tmp_path / "space.yaml").write_text("optim.lr: [1, 2]\n")
    with pytest.raises(UserError, match=r"optim\.lr must be"):
        module.read_space(tmp_path / "space.yaml")
    study = optuna.create_study()
    trial = study.ask()
    values = module.suggest(trial, {**SPACE, "model.pretrained": {"choices": [True, False]}})
    assert isinstance(values["seed"], int)
    assert 1e-5 <= values["optim.lr"] <= 1e-2
    assert values["model.pretrained"] in (True, False)
