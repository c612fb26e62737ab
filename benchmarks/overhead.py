"""What our training step costs besides the network: train.py's whole loop against a bare one.

    python benchmarks/overhead.py [--rounds 5] [--batch 8] [--threads 1] [--accelerator cpu] [SETTING=VALUE ...]
    python benchmarks/overhead.py --accelerator gpu graphs=true
    python benchmarks/overhead.py --accelerator gpu experiment=best_7 data.path=data/fer2013.csv graphs=true

Ours: `fer.training.run.train`, with metrics, averaging, schedule, checkpoints and all callbacks, as train.py runs it.
Bare: the same augmentation, forward, loss, backward, clipping and optimiser in a loop of ten lines.
Both train a tiny `senet`, so that most of a step is the host's work, and take turns, `--rounds` times. An epoch counts
from the end of its first batch to the end of its last one, so without validation and writing; the first epoch of a turn
warms up. What counts is the ratio of the medians, since machines and load differ. On a GPU it says how often the host
waited for the device inside those epochs.

With `experiment=` in place of the tiny network: milliseconds per step of epochs 2 to 4 of that training, without a bare
loop, which knows no second task.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from fer import machine
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.settings.compose import checked, compose_line, take_apart
from fer.settings.train import TrainSettings
from fer.training.optim import build_optimizer
from fer.training.run import build_classifier, train

STEPS = 60  # per epoch
Watch = Callable[[int], None]  # is told the epoch after every step


def settings(batch: int, steps: int, *more: str) -> TrainSettings:
    """Three epochs of a small `senet` on the CPU, unless `more` says otherwise."""
    line = take_apart(
        [
            "data=synthetic",
            f"data.synthetic={{train: {batch * steps}, val: 7, test: 0}}",
            f"data.batch_size={batch}",
            "model=senet",
            "model.kwargs={widths: [8, 8], blocks: [1, 1], reduction: 4}",
            "trainer.max_epochs=3",
            "trainer.accelerator=cpu",
            "trainer.precision=32-true",
            "name=overhead",
            *more,
        ]
    )
    return checked(line, compose_line(line))


class Told(L.Callback):
    """Passes the end of a step on, and lets CUDA warn of what waits for it inside an epoch."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch_idx: int) -> None:
        if pl_module.device.type == "cuda":
            inside = trainer.current_epoch > 0 and 0 < batch_idx < int(trainer.num_training_batches) - 1
            torch.cuda.set_sync_debug_mode("warn" if inside else "default")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.watch(trainer.current_epoch)


def ours(cfg: TrainSettings, watch: Watch) -> None:
    """Trains as train.py does."""
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.filterwarnings("always", "called a synchronizing CUDA operation")
        train(cfg, Path(directory), [Told(watch)])
    if cfg.trainer["accelerator"] == "gpu":
        waits = [each for each in told if "synchronizing CUDA operation" in str(each.message)]
        places = Counter(f"{Path(each.filename).name}:{each.lineno}" for each in waits)
        print("waits for the device:", ", ".join(f"{place} ({count})" for place, count in places.items()) or "none")


def bare(cfg: TrainSettings, watch: Watch) -> None:
    """Trains the same network on the same faces, and does nothing else."""
    datamodule = FER2013DataModule(cfg.data, cfg.seed)
    datamodule.setup()
    augment = datamodule.augment
    assert augment is not None
    device = "cuda" if cfg.trainer["accelerator"] == "gpu" else "cpu"
    classifier = build_classifier(cfg, datamodule).train().to(device)
    optimizer = build_optimizer(classifier, cfg.optim)
    images, targets = (tensor.to(device) for tensor in datamodule.tensors(TRAIN))
    size = cfg.data.batch_size
    for epoch in range(cfg.trainer["max_epochs"]):
        order = torch.randperm(len(images), device=device)
        for start in range(0, len(images) - size + 1, size):
            rows = order[start : start + size]
            loss = classifier.loss(classifier(augment(images[rows])), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(classifier.parameters(), cfg.trainer["gradient_clip_val"])
            optimizer.step()
            watch(epoch)


def milliseconds(loop: Callable[[TrainSettings, Watch], None], cfg: TrainSettings) -> list[float]:
    """Time of one step, for every epoch but the first."""
    ends: dict[int, list[float]] = {}
    loop(cfg, lambda epoch: ends.setdefault(epoch, []).append(time.perf_counter()))
    return [1000 * (times[-1] - times[0]) / (len(times) - 1) for epoch, times in ends.items() if epoch > 0]


def main() -> None:
    """Prints milliseconds per step, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("words", nargs="*", metavar="SETTING=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine.quieten()
    warnings.filterwarnings("ignore")
    words = [f"trainer.accelerator={arguments.accelerator}", *arguments.words]
    if any(word.startswith("experiment=") for word in words):
        line = take_apart([*words, "trainer.max_epochs=4", "name=overhead"])
        times = milliseconds(ours, checked(line, compose_line(line)))
        print("ms per step:", *(f"{value:.2f}" for value in times))
        return
    cfg = settings(arguments.batch, STEPS, *words)
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(arguments.rounds):
        found["ours"] += milliseconds(ours, cfg)
        found["bare"] += milliseconds(bare, cfg)
    for name, values in found.items():
        print(f"{name}  {' '.join(f'{value:.2f}' for value in values)}")
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(f"host ms per step: {medians['ours']:.2f}, ours/bare: {medians['ours'] / medians['bare']:.2f}")


if __name__ == "__main__":
    main()
