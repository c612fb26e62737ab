"""Training speed of our loop against a loop written the usual way, on drawn faces.

    python benchmarks/training.py [--model senet] [--faces 1536] [--rounds 3] [--threads N] [--compile]

Ours: the faces in memory, batches by index, augmentation on the batch, bf16 where the processor has units for it,
channels-last, Lightning's Trainer with metrics and EMA, as train.py runs it.
Usual: a Dataset that opens a PIL image per face and transforms it with torchvision, a DataLoader with two worker
processes, float32, a plain PyTorch loop. The same network, optimiser, batch size and number of steps.
Both take turns, each time in a process of its own, `--rounds` times; what counts is the ratio of the medians, since
machines and their load differ.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fer import machine
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.machine import choose_precision
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.compose import checked, compose_line, take_apart
from fer.settings.train import TrainSettings
from fer.training.callbacks import EMA
from fer.training.run import build_classifier
from fer.training.weight_gradient import matrix_products


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """One face at a time, as most FER2013 projects read it."""

    def __init__(self, datamodule: FER2013DataModule) -> None:
        rows = datamodule.rows(TRAIN)
        _, targets = datamodule.tensors(TRAIN)
        mean, std = datamodule.statistics()
        self.images, self.targets = rows.images, targets.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, translate=(0.08, 0.08), scale=(0.9, 1.15)),
                transforms.ColorJitter(brightness=0.1, contrast=0.1),
                transforms.ToTensor(),
                transforms.Normalize([mean], [std]),
                transforms.RandomErasing(0.4, scale=(0.02, 0.2)),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


def usual(cfg: TrainSettings, datamodule: FER2013DataModule) -> float:
    """Images per second of the second epoch (the first one starts the workers)."""
    model = cfg.model
    spec = NetworkSpec(model.name, datamodule.classes, stem_stride=model.stem_stride, kwargs=dict(model.kwargs))
    network = EmotionNetwork(spec).backbone.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss_function = torch.nn.CrossEntropyLoss(label_smoothing=cfg.label_smoothing)
    loader = DataLoader(
        Pictures(datamodule), cfg.data.batch_size, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True
    )
    for _ in range(2):
        start = time.perf_counter()
        right = 0
        for images, targets in loader:
            logits = network(images)
            loss = loss_function(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(1) == targets).sum())
        elapsed = time.perf_counter() - start
    return len(loader) * cfg.data.batch_size / elapsed


class EpochTimes(L.Callback):
    """Seconds of each training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def ours(cfg: TrainSettings, datamodule: FER2013DataModule) -> float:
    """Images per second of the second epoch."""
    machine.use_huge_pages()
    times = EpochTimes()
    assert cfg.ema is not None
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        precision=choose_precision("auto", "cpu"),
        callbacks=[times, EMA(cfg.ema)],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with matrix_products():
        trainer.fit(build_classifier(cfg, datamodule), datamodule)
    return len(datamodule.train_dataloader()) * cfg.data.batch_size / times.seconds[-1]


def measure(loop: Callable[[TrainSettings, FER2013DataModule], float], cfg: TrainSettings, threads: int) -> float:
    """What `loop` says in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measure, loop, cfg, threads).result()


def _measure(loop: Callable[[TrainSettings, FER2013DataModule], float], cfg: TrainSettings, threads: int) -> float:
    torch.set_num_threads(threads)
    machine.quieten()
    warnings.filterwarnings("ignore")
    datamodule = FER2013DataModule(cfg.data, cfg.seed)
    datamodule.setup()
    return loop(cfg, datamodule)


def main() -> None:
    """Prints images per second and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="senet")
    parser.add_argument("--faces", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="ours with compile=true")
    arguments = parser.parse_args()
    line = take_apart(["data=synthetic", f"model={arguments.model}", f"data.synthetic.train={arguments.faces}"])
    cfg = checked(line, compose_line(line)).model_copy(update={"compile": arguments.compile})
    speeds: dict[str, list[float]] = {"usual": [], "ours": []}
    for _ in range(arguments.rounds):
        speeds["usual"].append(measure(usual, cfg, arguments.threads))
        speeds["ours"].append(measure(ours, cfg, arguments.threads))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    how = f"{choose_precision('auto', 'cpu')}{', compiled' if arguments.compile else ''}"
    print(f"{arguments.model}, {arguments.threads} threads, {how}, images per second:")
    for name, values in speeds.items():
        print(f"  {name:<6} {medians[name]:8.0f}   ({', '.join(f'{value:.0f}' for value in values)})")
    print(f"  ratio  {medians['ours'] / medians['usual']:8.2f}")


if __name__ == "__main__":
    main()
