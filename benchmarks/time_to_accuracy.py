"""How long a recipe trains until its networks reach an accuracy on FER2013's PublicTest rows.

    python benchmarks/time_to_accuracy.py data/fer2013.csv [SETTING=VALUE ...] [--epochs 20 30 40] [--seeds 5]
                                          [--against experiment=net_7class] [--out outputs/time_to_accuracy]

The rules are those of the speed runs on CIFAR-10 (Jordan, arXiv 2404.00498, and the DAWNBench entries before it):

- A recipe has a fixed length. Each of `--epochs` is one recipe, trained with every seed from 0 to `--seeds` - 1.
- Official Training rows only. Nothing is chosen: the last weights count, averaged where the recipe averages.
- The clock begins before the first batch and ends when the accuracy is known, mirrored faces and checkpoints included.
  Reading the data and compiling stand outside it: every shape is trained on once before, and what that changed undone.
- A target counts as reached when the mean over the seeds reaches it.

Without settings the recipe is `experiment=fast_7`. `--against` trains another one once, as long as its file says, for
the ratio of times at equal accuracy; both stand in the table.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from fer import machine
from fer.checkpoint import load_network
from fer.data.faces import VAL
from fer.predict import predict
from fer.settings.compose import checked, compose_line, take_apart
from fer.settings.train import TrainSettings
from fer.training.run import train

TARGETS = (0.65, 0.68, 0.70, 0.72)
SETTINGS = ["logger=[]", "early_stopping=null", "trainer.limit_val_batches=0", "trainer.enable_progress_bar=false"]


class Clock(L.Callback):
    """Starts when the first batch could."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.start = 0.0

    # Any: L.Trainer does not declare its datamodule.
    def on_train_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        network: Any = pl_module.network
        before = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        size, devices = network.training_size, [] if pl_module.device.type == "cpu" else [pl_module.device]
        with torch.random.fork_rng(devices):
            for network.training_size in self.sizes:
                faces = torch.randint(0, 256, (trainer.datamodule.settings.batch_size, 1, 48, 48)).float()
                for _ in range(3):
                    with trainer.precision_plugin.forward_context():
                        loss = pl_module(faces.to(pl_module.device)).float().square().mean()
                    loss.backward()
        network.training_size = size
        pl_module.zero_grad(set_to_none=True)
        pl_module.load_state_dict(before)
        _wait(pl_module.device)
        self.start = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="FER2013, in any form that data.path takes; synthetic to try the benchmark")
    parser.add_argument("words", nargs="*", metavar="SETTING=VALUE", help="the recipe, as for train.py")
    parser.add_argument("--epochs", type=int, nargs="+", help="lengths of the recipe; its own where none is given")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--against", nargs="+", metavar="SETTING=VALUE", help="another recipe, seed 0")
    parser.add_argument("--out", type=Path, default=Path("outputs/time_to_accuracy"))
    given = parser.parse_intermixed_args()
    machine.quieten()
    recipe = given.words or ["experiment=fast_7"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    table = Table("recipe", "epochs", "seeds", "seconds", "accuracy, %", "reached", title=f"Time to accuracy, {device}")
    lengths = given.epochs or [None]
    runs = [(recipe, length, given.seeds) for length in lengths]
    runs += [(given.against, None, 1)] if given.against else []
    for words, length, seeds in runs:
        longer = [] if length is None else [f"trainer.max_epochs={length}"]
        measured = [measure([*words, *longer], given.data, seed, given.out) for seed in range(seeds)]
        table.add_row(" ".join(words), *row(measured))
    Console().print(table)


def measure(words: Sequence[str], data: str, seed: int, out: Path) -> tuple[int, float, float]:
    """Trains once: epochs, seconds, accuracy."""
    rows = "data=synthetic" if data == "synthetic" else f"data.path={data}"
    settings = compose([*words, rows, f"seed={seed}", *SETTINGS])
    sizes = sorted({settings.image_size, *settings.image_sizes}) if settings.image_sizes else [settings.image_size]
    directory = out / f"{settings.run_name}_{settings.trainer['max_epochs']}_{seed}"
    clock = Clock(sizes)
    trained = train(settings, directory, more=[clock])
    faces, targets = trained.datamodule.tensors(VAL)
    found = predict(load_network(trained.checkpoint), faces, settings.trainer, "flip").probabilities(1.0)
    accuracy = float((found.argmax(dim=1) == targets).double().mean())
    seconds = time.perf_counter() - clock.start
    with (out / "runs.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow([" ".join(words), seed, f"{seconds:.1f}", f"{accuracy:.4f}"])
    print(f"{settings.run_name}, seed {seed}: {accuracy:.2%} in {seconds:.1f} s", flush=True)
    return int(settings.trainer["max_epochs"]), seconds, accuracy


def compose(words: Sequence[str]) -> TrainSettings:
    """The settings that train.py would have."""
    line = take_apart(words)
    return checked(line, compose_line(line))


def row(measured: Sequence[tuple[int, float, float]]) -> list[str]:
    """A recipe's cells: means over the seeds, with the standard error of the accuracy."""
    epochs, seconds, accuracies = zip(*measured, strict=True)
    mean, count = statistics.mean(accuracies), len(measured)
    error = f" ± {100 * statistics.stdev(accuracies) / count**0.5:.2f}" if count > 1 else ""
    reached = [f"{target:.0%}" for target in TARGETS if mean >= target]
    return [
        str(epochs[0]),
        str(count),
        f"{statistics.mean(seconds):.1f}",
        f"{100 * mean:.2f}{error}",
        ", ".join(reached) or "none",
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
