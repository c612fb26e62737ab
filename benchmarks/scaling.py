"""Images per second of one and two processes, and what more data costs: time and memory at 1, 4 and 16 times FER2013.

    python benchmarks/scaling.py processes    # the real command, with one thread per process
    python benchmarks/scaling.py data         # loader and step apart, in memory and mapped from the disk

The data are drawn faces, repeated up to the size. Every measurement is a process of its own, so that its peak of memory
is its own. Compare figures of one run only.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FER2013_TRAIN = 28709


def processes(steps: int) -> None:
    """Images per second from the times at which TensorBoard got the first and the last epoch."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    print(f"{'processes':<11}{'faces each':>12}{'images/s':>10}{'val/accuracy':>14}")
    for count, batch in ((1, 128), (2, 64), (2, 128)):
        with tempfile.TemporaryDirectory() as directory:
            words = ["data=synthetic", f"data.synthetic={{train: {128 * steps}, val: 140, test: 70}}", "model=net"]
            words += ["trainer.max_epochs=4", "trainer.accelerator=cpu", f"data.batch_size={batch}"]
            words += ["trainer=ddp", f"trainer.devices={count}"] if count > 1 else []
            command = [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={directory}/run"]
            subprocess.run(
                command,
                check=True,
                stdout=subprocess.DEVNULL,
                cwd=directory,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            events = EventAccumulator(f"{directory}/run/train").Reload().Scalars("epoch/loss")
            with Path(directory, "run", "history.csv").open(newline="") as file:
                accuracy = float(list(csv.DictReader(file))[-1]["val/accuracy"])
            taken = events[-1].wall_time - events[0].wall_time
            images = (len(events) - 1) * (events[1].step - events[0].step) * batch * count
            print(f"{count:<11}{batch:>12}{images / taken:>10.0f}{accuracy:>14.3f}", flush=True)


def data() -> None:
    """A table over sizes, held in memory and mapped."""
    print(f"{'size':<6}{'images':>9}{'where':>9}{'setup s':>9}{'anon MB':>9}{'file MB':>9}", end="")
    print(f"{'load us':>9}{'augment us':>12}{'step us':>9}   per image")
    for times in (1, 4, 16):
        with tempfile.TemporaryDirectory(dir=ROOT / "outputs") as directory:
            environment = {**os.environ, "FER_CACHE": directory, "OMP_NUM_THREADS": "1"}
            call = [sys.executable, __file__, "job", str(times)]
            subprocess.run([*call, "write"], check=True, env=environment)
            for where in ("memory", "disk"):
                finished = subprocess.run(
                    [*call, where], check=True, env=environment, stdout=subprocess.PIPE, text=True
                )
                found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
                print(f"{times:<6}{found['images']:>9,}{where:>9}{found['setup_s']:>9.1f}", end="")
                print(f"{found['anonymous_mb']:>9.0f}{found['file_mb']:>9.0f}{found['load_us']:>9.1f}", end="")
                print(f"{found['augment_us']:>12.1f}{found['step_us']:>9.1f}", flush=True)


def write(times: int) -> None:
    """Puts `times` FER2013 into the cache, as if it had been read from a CSV."""
    import numpy as np

    from fer.data import cache
    from fer.data.faces import Faces
    from fer.data.synthetic import make_faces

    drawn = make_faces(train=1400, val=175, test=175, seed=0)
    rows = np.arange(times * FER2013_TRAIN * 10 // 8) % len(drawn)
    many = Faces(drawn.images[rows], drawn.labels[rows], drawn.splits[rows], np.arange(len(rows)).astype(str))
    source = _source(times)
    source.touch()
    cache.save(source, cache.source_key(source), many, [])


def job(times: int, where: str) -> None:
    """One line of `data`, as JSON."""
    import torch

    from fer.classifier import EmotionClassifier
    from fer.data.datamodule import FER2013DataModule
    from fer.models.network import EmotionNetwork, NetworkSpec
    from fer.settings.train import DataSettings

    torch.set_num_threads(1)
    before = _memory()
    begin = time.perf_counter()
    module = FER2013DataModule(DataSettings(path=str(_source(times)), memory_gb=0 if where == "disk" else 100))
    module.setup()
    module.statistics()
    loader = module.train_dataloader()
    setup = time.perf_counter() - begin

    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    begin, seen = time.perf_counter(), 0
    for faces, targets in loader:
        seen += len(faces)
        batches = [*batches[-19:], (faces, targets)]
    load = (time.perf_counter() - begin) / seen
    after = _memory()

    assert module.augment is not None
    begin = time.perf_counter()
    for faces, _ in batches:
        module.augment(faces)
    augmented = (time.perf_counter() - begin) / (len(batches) * loader.batch_size)
    classifier = EmotionClassifier(EmotionNetwork(NetworkSpec("net", module.classes)))
    optimizer = torch.optim.AdamW(classifier.parameters())
    begin = time.perf_counter()
    for faces, targets in batches[:2]:  # of float32 on one thread: seconds each
        optimizer.zero_grad()
        classifier.loss(classifier(faces), targets).backward()
        optimizer.step()
    step = (time.perf_counter() - begin) / (2 * loader.batch_size)
    found = {"images": seen, "setup_s": setup, "load_us": 1e6 * load, "augment_us": 1e6 * augmented}
    found |= {"step_us": 1e6 * step, "anonymous_mb": after[0] - before[0], "file_mb": after[1] - before[1]}
    print(json.dumps(found))


def _source(times: int) -> Path:
    return Path(os.environ["FER_CACHE"]) / f"fer2013_x{times}.csv"


def _memory() -> tuple[float, float]:
    """MB of this process that are its own, and MB of files that are mapped and that the system may drop at any time."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, mapped, shared = (int(lines[name].split()[0]) / 1000 for name in ("RssAnon", "RssFile", "RssShmem"))
    return own + shared, mapped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("processes", "data", "job"))
    parser.add_argument("times", type=int, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("where", choices=("write", "memory", "disk"), nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=30, help="of 128 faces, per epoch of `processes`")
    arguments = parser.parse_args()
    if arguments.what == "processes":
        processes(arguments.steps)
    elif arguments.what == "data":
        data()
    elif arguments.where == "write":
        write(arguments.times)
    else:
        job(arguments.times, arguments.where)


if __name__ == "__main__":
    main()
