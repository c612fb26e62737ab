"""A run's directory: what a stranger may have put into it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from tiny import TINY, settings_of

from fer import machine, resume, rundir, sweep
from fer.checkpoint import read_checkpoint
from fer.commands.train import main, whole
from fer.errors import UserError
from fer.files import cell, host, printable, temporary_name, write_whole
from fer.rundir import saved_values, targets
from fer.settings.train import TrainSettings
from fer.training.run import train

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def finished(unrendered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch with its report."""
    run = tmp_path_factory.mktemp("finished") / "first"
    whole(settings_of(*TINY, "trainer.max_epochs=1", "optim=adam"), run, [])
    return run


@pytest.fixture
def first(finished: Path, tmp_path: Path) -> Path:
    """The same in the test's own outputs/."""
    return Path(shutil.copytree(finished, tmp_path / "outputs" / "first"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not plain YAML"),
        ("- 1\n", "holds no settings"),
        ("a: &x [1, 2]\nb: [*x, *x]\n", "aliases"),
        ("a: !!python/object/apply:os.system [true]\n", "not plain YAML"),
        ("a: " + "x" * 2_000_000, "too large"),
        ("[" * 5000, "not plain YAML"),
    ],
)
def test_saved_settings_are_plain_data(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        saved_values(tmp_path)
    assert str(tmp_path / "config.yaml") in str(raised.value)


def test_targets_are_found_at_every_depth() -> None:
    settings = {"a": {"_target_": "x.Y", "b": [{"c": {"_target_": "z"}}]}, "_target_": 3}
    assert dict(targets(settings)) == {"a._target_": "x.Y", "a.b.c._target_": "z", "_target_": 3}


def test_code_that_a_saved_config_names_is_not_run(command: Command, first: Path, tmp_path: Path) -> None:
    run = first
    saved = yaml.safe_load((run / "config.yaml").read_text())
    saved["callbacks"]["x"] = {"_target_": "os.mkdir", "path": str(tmp_path / "ran")}
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    for mode in ([], ["mode=test"]):
        finished = command(f"ckpt={run / 'checkpoints' / 'last.ckpt'}", *mode)
        assert finished.returncode == 2
        assert "callbacks.x._target_=os.mkdir" in finished.stderr
        assert "Traceback" not in finished.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Linux and macOS")
def test_a_link_to_a_device_is_no_file_of_a_run(tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.json"):
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"config\.yaml is not plain YAML \(it is no file\)"):
        saved_values(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        rundir.report(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "leads_out"),
    [
        ("csv.save_dir", "elsewhere", True),
        ("csv.version", "../../.config", True),
        ("csv.version", "second", False),
        ("mlflow.tracking_uri", "http://evil.example", True),
        ("wandb.dir", "~", True),
        ("mlflow.artifact_location", "elsewhere", True),
        ("wandb.project", "fer", False),
        ("wandb.notes", "see https://example.org/1", False),
    ],
)
def test_a_saved_config_cannot_choose_where_loggers_write(
    tmp_path: Path, key: str, value: str, leads_out: bool
) -> None:
    name, _, argument = key.partition(".")
    saved = {"model": {"name": "net"}, "logger": {name: {argument: value}}}
    if leads_out:
        with pytest.raises(UserError, match=f"place outside of the run.*{re.escape(key)}="):
            resume._refuse_foreign_targets(saved, tmp_path, [], trains=True)
        resume._refuse_foreign_targets(saved, tmp_path, [], trains=False)  # nothing is logged
    resume._refuse_foreign_targets(saved, tmp_path, [f"logger.{key}"] if leads_out else [], trains=True)


def test_a_saved_config_cannot_read_the_environment(
    command: Command, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_SECRET", "hunter2")
    text = (first / "config.yaml").read_text()
    assert "name: net_7" in text
    (first / "config.yaml").write_text(text.replace("name: net_7", "name: ${oc.env:FER_SECRET}"))
    finished = command("mode=test", f"ckpt={first / 'checkpoints' / 'best.ckpt'}", "test_split=val")
    assert finished.returncode == 0, finished.stderr
    shown = finished.stdout + finished.stderr + "".join(map(str, (tmp_path / "outputs").rglob("*")))
    shown += "".join(file.read_text() for file in (tmp_path / "outputs").rglob("*.html"))
    assert "hunter2" not in shown


def test_runs_of_one_second_have_a_directory_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: rundir.new("net_7"), range(24)))
    assert len(set(made)) == 24
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert rundir.new("net_7") in made  # told by the first process
    monkeypatch.delenv("FER_RUN_DIRECTORY")
    assert all(run.is_dir() for run in made)


@pytest.mark.parametrize("name", ["../../etc", "/tmp/x", "a/b", ".hidden", "", "a\nb", "x" * 500])
def test_a_name_never_leaves_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    made = rundir.new(name).resolve()
    assert made.parent == (tmp_path / "outputs").resolve()


def test_a_directory_has_one_owner(tmp_path: Path, settings: Callable[..., TrainSettings]) -> None:
    first = settings("seed=1")
    rundir.claim(tmp_path, first, [])
    with pytest.raises(UserError, match="holds a run already"):
        rundir.refuse_occupied(tmp_path)
    with pytest.raises(UserError, match="other settings"):
        rundir.claim(tmp_path, settings("seed=2"), [])
    rundir.claim(tmp_path, settings("seed=1"), [])  # a cluster's job that is started again
    last = rundir.checkpoint(tmp_path, rundir.LAST)
    last.parent.mkdir()
    last.touch()
    rundir.claim(tmp_path, first.model_copy(update={"ckpt": str(last), "early_stopping": 4}), [])
    assert rundir.load(tmp_path).early_stopping == 4


@pytest.mark.parametrize("end", [UserError("no such data"), KeyboardInterrupt(), machine.Terminated()])
def test_a_directory_that_a_mistake_left_empty_goes(
    tmp_path: Path, settings: Callable[..., TrainSettings], end: BaseException
) -> None:
    unused, used, crashed = (tmp_path / name for name in ("unused", "used", "crashed"))
    (used / "checkpoints").mkdir(parents=True)
    for directory in (unused, used):
        with pytest.raises(type(end)), rundir.claimed(directory, settings(), []):
            raise end
    with pytest.raises(ZeroDivisionError), rundir.claimed(crashed, settings(), []):
        raise ZeroDivisionError  # a fault of the program: the settings help to find it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crashed", "used"]
    assert rundir.load(used).plain() == rundir.load(crashed).plain()


def test_a_directory_belongs_to_one_process_at_a_time(tmp_path: Path, settings: Callable[..., TrainSettings]) -> None:
    pytest.importorskip("fcntl", reason="no such locks on this system")
    with rundir.claimed(tmp_path, settings(), []):
        with pytest.raises(rundir.InUse, match="is a run that another process is at"):
            rundir.claimed(tmp_path, settings(), []).__enter__()
        assert (tmp_path / "config.yaml").is_file()
    with rundir.claimed(tmp_path, settings(), []):  # as a job that is put back into its queue
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    with rundir.claimed(tmp_path / "0_job", settings(), []):
        assert sweep.failed_jobs(tmp_path) == ["0_job"]  # of a sweep that was started again meanwhile
    assert sweep.failed_jobs(tmp_path) == []


def test_only_leftovers_of_a_run_that_is_gone_are_removed(tmp_path: Path) -> None:
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    gone, alive = f"{host()}-{finished.pid}-0a0b0c0d", f"{host()}-{os.getpid()}-0a0b0c0d"
    kept = [
        tmp_path / f".metrics.json.{alive}.tmp",
        tmp_path / f".metrics.json.elsewhere-{finished.pid}-0a0b0c0d.tmp",
        tmp_path / f".thesis.tex.{gone}.tmp",
        tmp_path / ".thesis.tmp",
        tmp_path / "deeper" / f".metrics.json.{gone}.tmp",
        tmp_path / f".plot.png.{gone}.tmp",
    ]
    removed = [
        tmp_path / f".metrics.json.{gone}.tmp",
        tmp_path / "checkpoints" / f".last.ckpt.{gone}.tmp",
        tmp_path / "plots" / f".roc_test.png.{gone}.tmp",
    ]
    for file in (*kept, *removed):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    rundir.leftovers(tmp_path)
    assert [file.exists() for file in kept] == [True] * len(kept)
    assert [file.exists() for file in removed] == [False] * len(removed)


def test_a_temporary_file_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert temporary_name(tmp_path / "a") != temporary_name(tmp_path / "a")
    victim = tmp_path / "victim"
    victim.write_text("thesis")
    (tmp_path / "link.tmp").symlink_to(victim)
    monkeypatch.setattr("fer.files.temporary_name", lambda path: tmp_path / "link.tmp")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "a", b"new")
    assert victim.read_text() == "thesis"


def test_a_file_with_the_longest_name_is_written_on_a_machine_with_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.files.socket.gethostname", lambda: "h" * 64)
    for name in ("x" * 255, 85 * "表"):  # three bytes each
        write_whole(tmp_path / name, b"whole")
        assert [file.name for file in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_an_error_names_the_file_that_a_person_knows(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists") as raised:
        write_whole(tmp_path / "file" / "metrics.json", b"{}")
    assert raised.value.filename == str(tmp_path / "file" / "metrics.json")


def test_what_a_checkpoint_has_decided_is_not_changed(command: Command, first: Path) -> None:
    run = first
    ckpt = f"ckpt={run / 'checkpoints' / 'last.ckpt'}"
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(UserError) as refused:
        main([ckpt, "optim.lr=0.5", "data.batch_size=7"])
    for word in ("optim.lr (0.001 to 0.5)", "data.batch_size (32 to 7)", "model.weights="):
        assert word in str(refused.value)
    assert (run / "config.yaml").read_bytes() == before
    # No schedule depends on the number of epochs here.
    longer = command(ckpt, "trainer.max_epochs=2", "logger=[tensorboard,csv]")
    assert longer.returncode == 0, longer.stderr
    assert "epoch 2/2" in longer.stdout
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 2
    assert saved["run"]["overrides"] == [ckpt, "trainer.max_epochs=2", "logger=[tensorboard,csv]"]
    assert (run / "csv" / "metrics.csv").is_file()


def test_a_run_goes_on_in_its_own_directory(command: Command, first: Path, tmp_path: Path) -> None:
    ckpt = f"ckpt={first / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(UserError, match=f"a run goes on in its own directory, {first}"):
        main([ckpt, f"hydra.run.dir={tmp_path / 'elsewhere'}"])
    assert not (tmp_path / "elsewhere").exists()
    assert command(ckpt, f"hydra.run.dir={first}").returncode == 0


def test_a_run_is_not_started_in_anothers_directory(first: Path) -> None:
    before = (first / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        main([*TINY, "trainer.max_epochs=1", "seed=7", f"hydra.run.dir={first}"])
    assert (first / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    assert cell(f"a{text}") == f"a{text}"


def test_control_characters_of_names_are_not_obeyed(command: Command) -> None:
    assert printable("ä b\x1b[2J\n") == "ä b\\x1b[2J\\n"
    refused = command("mode=test", "ckpt=a\x1b[31mred.ckpt")
    assert refused.returncode == 2
    assert "a\\x1b[31mred.ckpt does not exist" in refused.stderr
    assert "\x1b" not in refused.stderr


def test_a_checkpoint_of_another_network_is_not_gone_on_with(
    tmp_path: Path, settings: Callable[..., TrainSettings]
) -> None:
    run = tmp_path / "first"
    train(settings("trainer.max_epochs=1"), run)
    moved = tmp_path / "moved.ckpt"  # outside its run, where no config.yaml says what it is
    moved.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    for change, what in (
        ("model=cnn", "network"),
        ("data.classes=4", "classes"),
        ("model.image_size=32", "image size"),
    ):
        words = [word for word in TINY if not (change == "model=cnn" and "model" in word)]
        with pytest.raises(UserError, match=f"cannot be resumed: its {what} is .*model.weights=FILE"):
            train(settings_of(*words, change, f"ckpt={moved}"), tmp_path / what)


@pytest.mark.parametrize("interval", [2, 5])
def test_last_ckpt_is_there_whatever_the_validation_interval(
    settings: Callable[..., TrainSettings], tmp_path: Path, interval: int
) -> None:
    cfg = settings("trainer.max_epochs=3", f"trainer.check_val_every_n_epoch={interval}")
    trained = train(cfg, tmp_path)
    last = read_checkpoint(rundir.checkpoint(tmp_path, rundir.LAST))
    assert last["global_step"] == 18
    name = rundir.BEST if interval == 2 else rundir.LAST
    assert trained.checkpoint == rundir.checkpoint(tmp_path, name)
