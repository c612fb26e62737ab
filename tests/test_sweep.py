"""Which jobs of a sweep are done; the real command sums up, shows failures, and does only what is missing."""

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import OmegaConf
from tiny import TINY

from fer import rundir, sweep
from fer.errors import UserError
from fer.settings.compose import sweep_parameters, take_apart
from fer.settings.train import TrainSettings


def names(overrides: list[str], job: list[str]) -> tuple[str, str]:
    fixed, directory = sweep.arguments(overrides, {})
    excluded = fixed.partition("=")[2].strip("[]").split(",")
    cfg = OmegaConf.create({"sub": "${varied:${job},${fixed}}", "job": job, "fixed": excluded})
    return directory.partition("=")[2], cfg.sub


def test_directories_are_named_by_what_is_varied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["data=synthetic", "model=net,senet", "data.classes=4,[happy,sad]", "optim.lr=0.1"]
    job = ["data=synthetic", "model=senet", "data.classes=[happy,sad]", "optim.lr=0.1"]
    directory, sub = names(command, job)
    assert Path(directory).parent == Path("outputs/sweeps")
    assert "model-net+senet_classes-4+happy+sad" in directory
    assert sub == "model-senet_classes-happy+sad"
    assert not set("=,[]' ") & set(directory + sub)


def test_the_same_command_finds_its_directory_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory, _ = names(["seed=1,2", "model=net"], [])
    Path(directory).mkdir(parents=True)
    assert names(["model=net", "seed=1,2"], [])[0] == directory
    assert names(["model=net", "seed=1,2,3"], [])[0] != directory


def test_another_order_of_what_is_varied_is_another_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs have other numbers and names: in one directory each would be trained and counted twice."""
    monkeypatch.chdir(tmp_path)
    words = ["label_smoothing=0.0,0.2", "seed=1,2", "model=net"]
    directory, _ = names(words, [])
    Path(directory).mkdir(parents=True)
    assert names([words[0], words[2], words[1]], [])[0] == directory
    assert names([words[1], words[0], words[2]], [])[0] != directory


def test_what_is_left_of_a_job(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    cfg = settings("seed=3")
    assert sweep.finished_accuracy(cfg, tmp_path) is None
    before = cfg.ckpt
    assert before is None

    sweep.note_failure(cfg, tmp_path, [], "no disk")
    assert (tmp_path / "failed.txt").read_text() == "no disk\n"
    assert sweep.finished_accuracy(cfg, tmp_path) is None
    assert not (tmp_path / "failed.txt").exists()

    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    assert sweep.finished_accuracy(cfg, tmp_path) is None
    assert cfg.ckpt == str(last)

    rundir.write_settings(tmp_path, cfg, [])  # as the resumed run does
    report = {"reported_split": "test", "val": {"accuracy": 0.5}, "test": {"accuracy": 0.4}}
    (tmp_path / "metrics.json").write_text(json.dumps(report))
    assert sweep.finished_accuracy(settings("seed=3"), tmp_path) is None  # killed before its pictures were drawn
    (tmp_path / "report.html").touch()
    assert sweep.finished_accuracy(settings("seed=3"), tmp_path) == 0.5
    with pytest.raises(UserError, match="other settings"):
        sweep.finished_accuracy(settings("seed=4"), tmp_path)


def test_a_job_whose_settings_were_refused_is_tried_again(
    settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    job = tmp_path / "0_seed-3"
    values = settings("seed=3").plain()
    sweep.note_failure({**values, "data": {**values["data"], "classes": 6}}, job, ["seed=3"], "data.classes=6")
    with pytest.raises(UserError, match="classes"):
        rundir.load(job)
    assert sweep.failed_jobs(tmp_path) == [job.name]
    assert sweep.finished_accuracy(settings("seed=3"), job) is None
    assert list(job.iterdir()) == []


def test_jobs_that_are_wrong_only_in_combination_are_rows_and_failures(
    command: Callable[..., "CompletedProcess[str]"], tmp_path: Path
) -> None:
    (tmp_path / "none.csv").touch()
    words = ["data.classes=7,[happy,bored]", "data.other_emotions=true,false", f"data.path={tmp_path / 'none.csv'}"]
    finished = command("-m", *TINY, *words)
    assert finished.returncode == 2
    assert "4 of the jobs failed" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(list((tmp_path / "outputs" / "sweeps").glob("*/*/config.yaml"))) == 4


def test_a_sweep_is_summed_up_and_completed_by_the_same_command(
    command: Callable[..., "CompletedProcess[str]"], tmp_path: Path
) -> None:
    words = ["-m", *TINY, "trainer.max_epochs=1", "model.kwargs.dropout=0.0,5", "seed=1,2"]
    finished = command(*words)
    assert finished.returncode == 2
    assert "2 of the jobs failed" in finished.stderr
    assert "Traceback" not in finished.stderr
    (directory,) = (tmp_path / "outputs" / "sweeps").iterdir()

    def table() -> list[tuple[str, str, str]]:
        with (directory / "summary.csv").open(newline="") as file:
            return [(row["dropout"], row["n"], row["status"].split(":")[0]) for row in csv.DictReader(file)]

    assert table() == [("0.0", "2", "finished"), ("5", "0", "failed"), ("5", "0", "failed")]
    assert (directory / "summary.md").exists()
    assert (directory / "summary.png").exists()
    assert "±" in finished.stdout

    jobs = sorted(directory.glob("*_dropout-0.0_*"))
    kept, lost = (job / "metrics.json" for job in jobs)
    before, checkpoint = kept.stat().st_mtime_ns, (jobs[1] / "checkpoints" / "best.ckpt").read_bytes()
    report = json.loads(lost.read_text())
    lost.unlink()  # as if the run had been killed before its end
    again = command(*words)
    assert again.returncode == 2
    assert kept.stat().st_mtime_ns == before
    assert "epoch 1/1" not in again.stdout
    assert json.loads(lost.read_text())["test"] == report["test"]
    assert (jobs[1] / "checkpoints" / "best.ckpt").read_bytes() == checkpoint
    assert [path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()] == [directory.name]
    assert table()[0] == ("0.0", "2", "finished")


def test_a_launcher_for_several_jobs_is_told_what_it_should_not_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = sweep_parameters(take_apart(["sweep=classes", "model=net"]))
    assert set(grid) == {"data.classes", "seed"}
    words = sweep.arguments(["sweep=classes", "hydra/launcher=joblib"], grid)
    assert any("outputs/sweeps" in word and "sweep-classes" in word for word in words)
    (at_once,) = (word for word in words if word.startswith("hydra.launcher.n_jobs="))
    assert 1 <= int(at_once.partition("=")[2]) <= 12
    assert sweep.arguments(["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=5"], {})[-1].startswith(
        "hydra.sweep"
    )
    assert sweep.arguments(["model=glob(*net)", "hydra/launcher=joblib"], {})
    assert "hydra.launcher.gpus_per_node=1" in sweep.arguments(["seed=1,2", "hydra/launcher=submitit_slurm"], {})


def test_what_a_sweep_file_varies_is_not_set_beside_it(command: Callable[..., "CompletedProcess[str]"]) -> None:
    finished = command("-m", "sweep=classes", "seed=1")
    assert finished.returncode == 2
    assert "seed=1: configs/sweep/ varies this already" in finished.stderr


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="needs the extra [joblib]")
def test_jobs_side_by_side_are_summed_up(command: Callable[..., "CompletedProcess[str]"], tmp_path: Path) -> None:
    words = [*TINY, "trainer.max_epochs=1", "data.synthetic={train: 70, val: 35, test: 35}", "test_split=val"]
    finished = command("-m", "hydra/launcher=joblib", *words, "seed=1,2", "model.kwargs.dropout=0.0,5")
    assert finished.returncode == 2
    assert "2 of the jobs failed: 1_seed-1_dropout-5, 3_seed-2_dropout-5" in finished.stderr
    assert "Traceback" not in finished.stderr
    (directory,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert len(list(directory.glob("*/metrics.json"))) == 2
    assert (directory / "summary.md").exists()
