"""Kills `python train.py` at random moments, starts it again each time, and compares the end with an unbroken run.

    python benchmarks/kill.py --kills 20

The runs are small (drawn faces, 40 epochs), the command is the real one. A kill falls anywhere: while the command
starts, reads, resumes, trains, validates or writes. Compared are the final weights, averaged and raw, the history,
TensorBoard's scalars and metrics.json.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.checkpoint import read_checkpoint

TRAIN = Path(__file__).parents[1] / "train.py"
LAST = Path("checkpoints/last.ckpt")
SETTINGS = [
    "data=synthetic",
    "data.synthetic={train: 420, val: 140, test: 140}",
    "data.batch_size=32",
    "model=net",
    "++model.kwargs={widths: [8, 16, 16, 16]}",
    "optim=adam",
    "++optim.patience=1",
    "trainer.max_epochs=40",
]


def start(run: Path) -> "subprocess.Popen[bytes]":
    words = [f"ckpt={run / LAST}"] if (run / LAST).is_file() else [*SETTINGS, f"hydra.run.dir={run}"]
    return subprocess.Popen([sys.executable, str(TRAIN), *words], stdout=subprocess.DEVNULL)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = {}
    for curve in ("train", "val"):
        events = EventAccumulator(str(run / curve), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            found[f"{curve}: {name}"] = [(event.step, event.value) for event in events.Scalars(name)]
    return found


def where(run: Path) -> str:
    if (run / "metrics.json").exists():
        return "finished"
    epochs = len((run / "history.csv").read_text().splitlines()) - 1 if (run / "history.csv").exists() else 0
    return f"{epochs} epochs in the history, {'a' if (run / LAST).exists() else 'no'} last.ckpt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as directory:
        unbroken, killed = Path(directory) / "unbroken", Path(directory) / "killed"
        begin = time.monotonic()
        process = start(unbroken)
        while not (unbroken / LAST).exists():
            time.sleep(0.05)
        first_epoch = time.monotonic() - begin
        while not (unbroken / "plots" / "training_progress.png").exists():
            time.sleep(0.05)
        epoch = (time.monotonic() - begin - first_epoch) / 39
        assert process.wait() == 0
        print(f"unbroken: first epoch after {first_epoch:.1f} s, the others {epoch:.2f} s each", flush=True)
        for number in range(1, arguments.kills + 1):
            process = start(killed)
            begin = time.monotonic()
            if moments.random() < 0.25:
                time.sleep(moments.uniform(0, first_epoch))
            else:  # within one epoch after the next checkpoint: late enough to move on, too early to finish
                before = (killed / LAST).stat().st_mtime_ns if (killed / LAST).exists() else 0
                while not (killed / LAST).exists() or (killed / LAST).stat().st_mtime_ns == before:
                    time.sleep(0.005)
                time.sleep(moments.uniform(0, epoch))
            assert process.poll() is None, "finished before it could be killed"
            process.kill()
            process.wait()
            if (killed / LAST).exists():
                read_checkpoint(killed / LAST)  # it loads
            print(f"kill {number:2} after {time.monotonic() - begin:4.1f} s: {where(killed)}", flush=True)
        assert start(killed).wait() == 0

        expected, found = read_checkpoint(unbroken / LAST), read_checkpoint(killed / LAST)
        parts = ("state_dict", "current_model_state")
        equal = all(torch.equal(value, found[part][name]) for part in parts for name, value in expected[part].items())
        reports = [json.loads((run / "metrics.json").read_text()) for run in (unbroken, killed)]
        print(f"final weights, averaged and raw, bit for bit equal: {equal}")
        print(f"history.csv equal: {(unbroken / 'history.csv').read_bytes() == (killed / 'history.csv').read_bytes()}")
        print(f"TensorBoard's scalars equal: {scalars(unbroken) == scalars(killed)}")
        print(f"results on val and test equal: {all(reports[0][key] == reports[1][key] for key in ('val', 'test'))}")
        left = [path for path in killed.rglob("*") if path.name.endswith(".tmp")]
        print(f"temporary files left: {len(left)}")


if __name__ == "__main__":
    main()
