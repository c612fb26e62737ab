"""The commands of the README, run as a person runs them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tiny import ROOT, TINY

from fer.commands.train import main
from fer.errors import UserError

Command = Callable[..., "CompletedProcess[str]"]


def one_run(tmp_path: Path) -> Path:
    (run,) = [path for path in (tmp_path / "outputs").iterdir() if path.is_dir() and path.name != "sweeps"]
    return run


def test_a_run_is_one_directory_with_everything_in_it(command: Command, tmp_path: Path) -> None:
    finished = command(*TINY, "data.classes=4")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    run = one_run(tmp_path)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "history.csv",
        "metrics.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "plots/samples.png",
        "plots/training_progress.png",
        "plots/confusion_matrix_val.png",
        "plots/confusion_matrix_test.png",
    } <= files
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}

    report = json.loads((run / "metrics.json").read_text())
    assert report["classes"] == ["angry", "happy", "sad", "neutral"]
    assert report["test"]["images"] == 40
    for word in ("accuracy", "precision", "recall", "neutral"):
        assert word in finished.stdout
    where = run.relative_to(tmp_path)
    assert finished.stdout.splitlines()[-3:] == [
        f"report     {where / 'report.html'}",
        f"checkpoint {where / 'checkpoints' / 'best.ckpt'}",
        f"numbers    {where / 'metrics.json'}",
    ]

    tested = command("mode=test", f"ckpt={run / 'checkpoints' / 'best.ckpt'}")
    assert tested.returncode == 0, tested.stderr
    (test_run,) = [path for path in (tmp_path / "outputs").iterdir() if path != run]
    again = json.loads((test_run / "metrics.json").read_text())
    assert again["test"]["accuracy"] == report["test"]["accuracy"]
    assert again["test"]["loss"] == pytest.approx(report["test"]["loss"])
    assert not (test_run / "checkpoints").exists()


def test_mistakes_are_listed_and_nothing_is_written(command: Command, tmp_path: Path) -> None:
    finished = command("lr=4", "model=snet", "experiment=nothing")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 3
    assert "Traceback" not in finished.stderr
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.path=none.csv", "data.download=false"], "data=synthetic"),
        (["mode=test", "ckpt=none.ckpt"], "does not exist"),
        (["data.path=outputs"], "outputs holds neither"),
        (["ckpt=senet_7", "data=synthetic"], "start from these weights: model.weights=senet_7"),
    ],
)
def test_a_file_that_cannot_be_used_ends_with_one_message_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        main(arguments)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_what_is_printed_to_a_full_disk_is_not_lost_without_a_word() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, str(ROOT / "train.py"), "--cfg", "job"]
        finished = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: what was printed cannot be written: No space left on device")


def test_outputs_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finished = command(*TINY, f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert finished.returncode == 2
    assert "cannot be written" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.run.dir=/proc/x"], "/proc/x cannot be written: no directory can be made"),
        (["-m", "seed=0,1", "hydra.sweep.dir=/proc/x"], "/proc/x cannot be written: no directory can be made"),
        (["-m", "seed=0,1", "hydra.sweep.dir=/dev/null/x"], "/dev/null/x cannot be written: Not a directory"),
        (["-m", "seed=0,1", "trainer=ddp", "trainer.devices=2"], "would start the whole sweep again"),
    ],
)
def test_what_no_job_could_do_is_told_once(command: Command, words: list[str], said: str) -> None:
    finished = command(*TINY, *words)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert said in line
    assert "Launching" not in finished.stdout


def test_a_sweep_goes_on_after_a_job_that_fails(command: Command, tmp_path: Path) -> None:
    words = [*TINY, "data.path=null,none.csv", "data.download=false", "trainer.max_epochs=1", "test_split=val"]
    finished = command("-m", *words)
    assert finished.returncode == 2
    assert "none.csv does not exist" in finished.stderr
    assert len(list((tmp_path / "outputs" / "sweeps").rglob("metrics.json"))) == 1


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [(["--help"], 0, "senet"), (["--cfg", "job"], 0, "senet"), (["modle=senet"], 2, "did you mean mode")],
)
def test_the_entry_answers_without_the_heavy_libraries(flags: list[str], code: int, said: str) -> None:
    program = f"""
import sys
from fer.commands.frame import run
sys.argv = ["train.py", *{flags}]
try:
    run("train")
finally:
    print(sorted({{"torch", "lightning", "timm", "cv2"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert said in done.stdout + done.stderr
    assert done.returncode == code
    assert done.stdout.endswith("[]\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use is not deleted there")
@pytest.mark.parametrize("script", ["train.py", "infer.py"])
def test_a_directory_that_was_deleted_under_the_shell_is_told(tmp_path: Path, script: str) -> None:
    line = f"mkdir gone; cd gone; rmdir ../gone; exec '{sys.executable}' '{ROOT / script}' --cfg job"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the current directory has been deleted; go to another one\n"
