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

from fer.commands.search import main  # noqa: E402
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


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([UserError("training diverged"), 0.5], None),
        ([UserError("training diverged"), RuntimeError("no memory\nmore"), 0.5], None),
        ([ValueError("a"), RuntimeError("b"), 0.5, RuntimeError("c"), RuntimeError("d"), 0.6], None),
        ([UserError("training diverged"), ValueError("no such"), RuntimeError("no memory\nmore")], "no memory;"),
        ([None, None, None], "no epoch was validated"),
    ],
)
def test_failed_trials_are_told_until_several_in_a_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    outcomes: list[Exception | float | None],
    message: str | None,
) -> None:
    left = iter(outcomes)

    def train(settings: Any, run_dir: Path, more: Any) -> None:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        row = "epoch\n0\n" if outcome is None else f"epoch,val/accuracy\n0,\n1,{outcome}\n"
        (run_dir / "history.csv").write_text(row)

    monkeypatch.setattr(module, "train", train)
    caplog.set_level("INFO", "fer.training.search")
    reached = [outcome for outcome in outcomes if isinstance(outcome, float)]
    if message is None:
        study = module.search(tmp_path, WORDS, SPACE, len(reached), heartbeat_s=60)
        assert [trial.value for trial in module.finished(study)] == reached
    else:
        with pytest.raises(UserError, match=f"3 trials in a row failed, the last one by: .*{message}") as raised:
            module.search(tmp_path, WORDS, SPACE, 1, heartbeat_s=60)
        assert len(str(raised.value).splitlines()) == 1
    told = [text for text in caplog.messages if "failed: " in text]
    assert len(told) == len(outcomes) - len(reached)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{low: 0.01, high: 0.001}", "low: 0.01 must not be above high: 0.001"),
        ("{low: 0.0, high: 20.0, log: true}", "low: 0.0 must be above 0"),
        ("{low: 1e-4, high: 0.1}", "low: 1e-4 must be a finite number, in YAML with a point"),
        ("{low: 0.1, high: .inf}", "high: inf must be a finite number"),
        ("{low: 1, high: true}", "high: True must be a finite number"),
        ("{low: 0.1, high: 0.2, log: [1]}", "true or false"),
        ("{choices: []}", "at least one"),
        ("{choices: 3}", "at least one"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_named(tmp_path: Path, values: str, message: str) -> None:
    (tmp_path / "space.yaml").write_text(f"optim.lr: {values}\n")
    with pytest.raises(UserError, match=r"space\.yaml: optim\.lr: ") as raised:
        module.read_space(tmp_path / "space.yaml")
    assert message in str(raised.value)


def test_a_search_needs_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="limit_val_batches=0: a search goes by val/accuracy"):
        module.run(CONFIGS / "search" / "recipe.yaml", [*WORDS, "trainer.limit_val_batches=0"], 1)
    assert list(tmp_path.iterdir()) == []


def test_null_is_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("ema: {choices: [null]}\n")
    chosen: list[float | None] = []
    monkeypatch.setattr(module, "train", lambda settings, *_: chosen.append(settings.ema))
    with pytest.raises(UserError, match="3 trials in a row failed"):  # without a training there is no accuracy
        module.run(tmp_path / "space.yaml", WORDS, 8)
    assert chosen == [None, None, None]


def test_a_search_is_no_sweep_and_resumes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="-m: a search proposes the values itself"):
        main(["-m", "trials=1", *WORDS])
    for words in (["mode=test", "ckpt=senet_7"], ["ckpt=senet_7"]):
        with pytest.raises(UserError, match="each trial is a training of its own"):
            main(["trials=1", *WORDS, *words])
    assert list(tmp_path.iterdir()) == []


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
