"""A run that is killed again and again, at random moments, ends as one that was left alone.

benchmarks/kill.py does the same to the real command.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import forked
import torch
from tiny import scalars

from fer.checkpoint import read_checkpoint
from fer.settings.train import TrainSettings
from fer.training.run import train

LAST = Path("checkpoints/last.ckpt")
KILLS = 5


def go_on(cfg: TrainSettings, run: Path) -> None:
    """What a new start of the same command does: from the last checkpoint, where there is one."""
    torch.set_num_threads(1)
    if (run / LAST).is_file():
        cfg.ckpt = str(run / LAST)
    train(cfg, run)


def test_a_run_that_is_killed_at_random_moments_ends_as_an_unbroken_one(
    settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    # This schedule looks at the validation loss of every epoch.
    cfg = settings("optim=adam", "++optim.patience=0", "trainer.max_epochs=6", "data.mixup_alpha=0.2")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    processes = forked.context()

    warm_up = processes.Process(target=len, args=("",))  # the server imports torch and Lightning
    warm_up.start()
    warm_up.join()
    start = time.monotonic()
    process = processes.Process(target=go_on, args=(cfg, unbroken))
    process.start()
    process.join()
    assert process.exitcode == 0
    whole = time.monotonic() - start

    moments = random.Random(0)
    for _ in range(KILLS):
        process = processes.Process(target=go_on, args=(cfg, killed))
        process.start()
        process.join(moments.uniform(0.2, 0.9) * whole)
        process.kill()
        process.join()
        if (killed / LAST).exists():
            read_checkpoint(killed / LAST)
    process = processes.Process(target=go_on, args=(cfg, killed))
    process.start()
    process.join()
    assert process.exitcode == 0

    expected, found = read_checkpoint(unbroken / LAST), read_checkpoint(killed / LAST)
    for part in ("state_dict", "current_model_state"):
        for name, tensor in expected[part].items():
            assert torch.equal(tensor, found[part][name]), name
    assert expected["lr_schedulers"] == found["lr_schedulers"]
    assert (unbroken / "history.csv").read_text() == (killed / "history.csv").read_text()
    assert scalars(unbroken) == scalars(killed)
    assert len(scalars(killed)["val: epoch/accuracy"]) == 6
    names = ("best.ckpt", "last.ckpt")
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == sorted(names)
    best = [read_checkpoint(run / "checkpoints" / "best.ckpt")["global_step"] for run in (unbroken, killed)]
    assert best[0] == best[1]
