"""What matrix products gain for the weight gradients of small maps: single convolutions, then a whole training step.

    python benchmarks/weight_gradient.py [--model senet] [--stem-stride 1] [--batch 128] [--steps 24] [--compile]

Both ways take turns in one process. The step is forward, backward and SGD in bf16 and channels last on random faces;
what counts is the ratio of the medians, since machines and their load differ.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from fer import machine
from fer.models import create
from fer.training.weight_gradient import matrix_products, weight_gradient

# Channels in and out, pixels per side, stride.
CONVOLUTIONS = (
    (128, 128, 12, 1),
    (256, 256, 6, 1),
    (128, 256, 12, 2),
    (256, 512, 6, 2),
    (512, 512, 3, 1),
    (512, 512, 2, 1),
)
PADDING = (1, 1)


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def in_turn(first: Callable[[], object], second: Callable[[], object], times: int) -> tuple[float, float]:
    """Medians of both, in milliseconds, after three calls of each."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 3):
        for call, taken in zip((first, second), found, strict=True):
            taken.append(milliseconds(call))
        if turn == 2:
            for taken in found:
                taken.clear()
    return statistics.median(found[0]), statistics.median(found[1])


def convolution(inputs: int, outputs: int, side: int, stride: int, batch: int, times: int) -> tuple[float, float]:
    """oneDNN's gradient of 3x3 weights, and the product."""

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.bfloat16).to(memory_format=torch.channels_last)

    features, weight = drawn(batch, inputs, side, side), drawn(outputs, inputs, 3, 3)
    both = (stride, stride)
    gradient = torch.randn_like(torch.nn.functional.conv2d(features, weight, None, both, PADDING))
    rest = (None, both, PADDING, (1, 1), False, (0, 0), 1, (False, True, False))
    return in_turn(
        lambda: torch.ops.aten.convolution_backward(gradient, features, weight, *rest),
        lambda: weight_gradient(gradient, features, (3, 3), both, PADDING),
        times,
    )


def step(name: str, stem_stride: int | None, batch: int, times: int, compiled: bool) -> tuple[float, float]:
    """A training step without products and with them."""
    network = create(name, 7, stem_stride=stem_stride).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    faces, targets = torch.randn(batch, 1, 48, 48), torch.randint(0, 7, (batch,))
    forward = torch.compile(network) if compiled else network

    def usual() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(faces), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    def with_products() -> None:
        with matrix_products():
            usual()

    return in_turn(usual, with_products, times)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="senet", help="a network of ours, or of timm")
    parser.add_argument("--stem-stride", type=int, help="of its first convolution; its own where none is given")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--compile", action="store_true", help="the step of a compiled network")
    given = parser.parse_args()
    machine.use_huge_pages()
    table = Table("gradient of 3x3 weights", "oneDNN, ms", "product, ms", "ratio")
    for inputs, outputs, side, stride in CONVOLUTIONS:
        usual, product = convolution(inputs, outputs, side, stride, given.batch, given.steps)
        maps = " to ".join(f"{each}x{each}" for each in sorted({side, side // stride}, reverse=True))
        table.add_row(f"{inputs} to {outputs}, {maps}", f"{usual:.1f}", f"{product:.1f}", f"{product / usual:.2f}")
    Console().print(table)
    usual, product = step(given.model, given.stem_stride, given.batch, given.steps, given.compile)
    how = f"{given.model}{', compiled' if given.compile else ''}, {torch.get_num_threads()} threads"
    print(f"step of {how}: {usual:.0f} ms, with products {product:.0f} ms, ratio {product / usual:.2f}")


if __name__ == "__main__":
    main()
