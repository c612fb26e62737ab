"""A SLURM of one machine, as docs/cluster.md sets it up: submit, preempt, requeue, finish; and a sweep by submitit."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny import ROOT, TINY

MISSING = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "mungekey") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not installed: there is no {', '.join(MISSING)}"),
    pytest.mark.skipif(not MISSING and os.geteuid() != 0, reason="only root may start the daemons of SLURM"),
]
Sbatch = Callable[..., str]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sbatch]:
    """Submits a job from a directory with train.py, configs/ and outputs/; gives its number."""
    directory = tmp_path / "slurm"
    script = str(ROOT / "examples" / "slurm_local.sh")
    started = subprocess.run([script, "start", str(directory)], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        pytest.skip(f"SLURM does not start on this machine: {started.stderr.strip()[-200:]}")
    for name in ("train.py", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")

    def sbatch(*words: str) -> str:
        return subprocess.run(["sbatch", "--parsable", *words], capture_output=True, text=True, check=True).stdout[:-1]

    yield sbatch
    subprocess.run([script, "stop", str(directory)], check=True)


def wait_for(what: Callable[[], bool], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def shown(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout


def test_a_preempted_job_goes_on_where_it_was(slurm: Sbatch, tmp_path: Path) -> None:
    words = ["--gpus-per-node=0", "--cpus-per-task=1", str(ROOT / "examples" / "slurm.sh")]
    job = slurm(*words, *TINY, "trainer.max_epochs=40")
    log = tmp_path / "outputs" / f"slurm-{job}.log"
    wait_for(lambda: log.is_file() and "epoch 2/" in log.read_text())
    slurm("--partition=high", "--exclusive", "--wrap=true")
    wait_for(lambda: "Restarts=1" in shown(job))
    wait_for(lambda: "epoch 6/" in log.read_text())
    subprocess.run(["scancel", "--signal=USR1", job], check=True)  # as SLURM does when the time is nearly up
    wait_for(lambda: "Restarts=2" in shown(job))
    wait_for(lambda: "JobState=COMPLETED" in shown(job))

    text = log.read_text()
    assert text.count("The job is back in the queue") == 2
    assert [text.count(f"epoch {number}/40") for number in range(1, 41)] == [1] * 40
    (run,) = (tmp_path / "outputs").glob(f"slurm-{job}_*")
    assert (run / "metrics.json").is_file()
    assert len((run / "history.csv").read_text().splitlines()) == 41


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_submitit_launcher") is None, reason="needs the extra [slurm]")
def test_every_job_of_a_sweep_is_a_job_of_slurm(slurm: Sbatch, tmp_path: Path) -> None:
    command = [sys.executable, "train.py", "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=0"]
    words = ["hydra.launcher.cpus_per_task=1", *TINY, "trainer.max_epochs=1", "seed=1,2"]
    finished = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=240)
    assert finished.returncode == 0, finished.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert sorted(path.parent.name for path in sweep.glob("*/metrics.json")) == ["0_seed-1", "1_seed-2"]
    assert (sweep / "summary.md").is_file()
