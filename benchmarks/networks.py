"""Which network learns most in a given time: networks of this size range, trained equally long on FER2013.

    python benchmarks/networks.py data/fer2013.csv [--minutes 8] [--only senet net] [--out outputs/networks]

Every network is trained by train.py with its default recipe (AdamW, one cosine over all epochs), half of the epochs on
faces of 32 px and half on 48 px; how many epochs fit into the minutes is found by timing a few steps first. Accuracy is
that on the validation rows after the last epoch, by averaged weights. "faces/s" is one face at a time, float32, eager.
"params, M" are millions of parameters, "mult-adds, M" millions of multiplications and additions for one face. "minutes"
are those of the whole command, with its start and its report.
"""

import argparse
import csv
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from fer.machine import choose_precision
from fer.models import create
from fer.settings.compose import checked, compose_line, take_apart

ROOT = Path(__file__).resolve().parents[1]
FACES, BATCH = 28_709, 128  # FER2013's training rows
SIZES = (32, 48)

VARIANTS = {
    "senet": ["model=senet"],
    "senet, full-resolution stem": [
        "model=senet",
        "model.kwargs.stem_width=null",
        "model.kwargs.widths=[32,64,128,256]",
        "model.kwargs.blocks=[1,1,2,2]",
    ],
    "senet, a block per stage": ["model=senet", "model.kwargs.blocks=[1,1,1]"],
    "senet, narrower, deeper": ["model=senet", "model.kwargs.widths=[48,96,192]", "model.kwargs.blocks=[2,3,3]"],
    "senet, four stages": ["model=senet", "model.kwargs.widths=[48,96,192,384]", "model.kwargs.blocks=[1,1,1,1]"],
    "senet, half as wide": ["model=senet", "model.kwargs.widths=[32,64,128]"],
    "net": ["model=net"],
    "resnet18, stem as published": ["model=resnet18", "model.stem_stride=2"],
    "mobilenetv4_conv_small": ["model=timm", "model.name=mobilenetv4_conv_small", "model.stem_stride=1"],
    "efficientnet_b0": ["model=efficientnet"],
    "convnext_atto": ["model=timm", "model.name=convnext_atto", "model.stem_stride=2"],
}
COLUMNS = ("network", "params, M", "mult-adds, M", "faces/s", "epochs", "minutes", "accuracy, % (95 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="FER2013, in any form that data.path takes")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, each network")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("outputs/networks"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    table = Table(*COLUMNS)
    for name in given.only:
        row = [name, *measure(VARIANTS[name], given.data, given.minutes, given.out / name.replace(", ", "_"))]
        table.add_row(*row)
        with (given.out / "networks.csv").open("a", newline="") as stream:
            csv.writer(stream).writerow(row)
    Console().print(table)


def measure(overrides: list[str], data: Path, minutes: float, directory: Path) -> list[str]:
    """Trains one network; its row of the table."""
    network = build(overrides)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    face = torch.zeros(1, 1, 48, 48)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(face)
    speed = 1 / seconds(lambda: network(face), 30)

    per_epoch = [FACES / BATCH * step_seconds(network.train(), size) for size in SIZES]
    fitting = minutes * 60 * len(SIZES) / sum(per_epoch)
    epochs = len(SIZES) * math.ceil(fitting / len(SIZES))
    start = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "train.py"), *overrides, f"data.path={data.resolve()}", "test_split=val"),
            *(f"image_sizes={list(SIZES)}".replace(" ", ""), f"data.batch_size={BATCH}", f"hydra.run.dir={directory}"),
            *(f"trainer.max_epochs={epochs}", f"trainer.limit_train_batches={fitting / epochs:.4f}"),
        ],
        check=True,
    )
    elapsed = (time.monotonic() - start) / 60
    last = list(csv.DictReader((directory / "history.csv").open()))[-1]
    val = json.loads((directory / "metrics.json").read_text())["val"]
    accuracy = float(last["val/accuracy"])
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / val["images"])
    return [
        f"{parameters / 1e6:.2f}",
        f"{counter.get_total_flops() / 2e6:.0f}",
        f"{speed:.0f}",
        f"{fitting:.1f}",
        f"{elapsed:.1f}",
        f"{100 * accuracy:.1f} ({100 * (accuracy - half):.1f} to {100 * (accuracy + half):.1f})",
    ]


def build(overrides: list[str]) -> torch.nn.Module:
    """The network that train.py would build."""
    line = take_apart(overrides)
    model = checked(line, compose_line(line)).model
    return create(model.name, 7, stem_stride=model.stem_stride, kwargs=dict(model.kwargs))


def step_seconds(network: torch.nn.Module, size: int) -> float:
    """One training step as train.py takes it: a batch, forward, backward, AdamW, channels last."""
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    faces = torch.randn(BATCH, 1, size, size).to(memory_format=torch.channels_last)
    targets = torch.randint(7, (BATCH,))
    bf16 = choose_precision("auto", "cpu") == "bf16-mixed"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(network(faces), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return seconds(step, 8)


def seconds(call: Callable[[], object], times: int) -> float:
    """Seconds of one call, the mean of `times` after three."""
    for repeat in range(3 + times):
        if repeat == 3:
            start = time.perf_counter()
        call()
    return (time.perf_counter() - start) / times


if __name__ == "__main__":
    main()
