"""How OpenMP's threads should wait for each other in training: spinning, sleeping, or spinning a while.

    python benchmarks/waiting.py [--rounds 3] [--steps 12] [--batch 128]

A spinning thread goes on at once, but holds a core that somebody else may need. Each rule of the table is what is set
in the environment before torch is imported. A training step (forward, backward, SGD) of `senet` is timed alone and
beside a process that keeps one core busy; the rules take turns, and the ratios are to sleeping on a quiet machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

RULES = {
    "spinning (OpenMP's default)": {},
    "sleeping (OMP_WAIT_POLICY=PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spinning 10,000 times": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
    "spinning 300,000 times": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300000"},
    "one thread less than cores": {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1))},
}
SET = {key for rule in RULES.values() for key in rule}
REFERENCE = "sleeping (OMP_WAIT_POLICY=PASSIVE)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(step_seconds(given.batch, given.steps))
        return
    found: dict[tuple[str, bool], list[float]] = {(rule, busy): [] for rule in RULES for busy in (False, True)}
    for _ in range(given.rounds):
        for rule, busy in found:
            found[rule, busy].append(measure(RULES[rule], busy, given.batch, given.steps))
    quiet = statistics.median(found[REFERENCE, False])
    table = Table("threads wait by", "alone, ms", "ratio", "beside one busy process, ms", "ratio")
    for rule in RULES:
        cells = []
        for busy in (False, True):
            median = statistics.median(found[rule, busy])
            cells += [f"{1000 * median:.0f}", f"{median / quiet:.2f}"]
        table.add_row(rule, *cells)
    Console().print(table)


def measure(rule: dict[str, str], busy: bool, batch: int, steps: int) -> float:
    """Seconds of a step in a process of its own."""
    kept = {key: value for key, value in os.environ.items() if key not in SET}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        child = [sys.executable, __file__, "--child", "--batch", str(batch), "--steps", str(steps)]
        return float(subprocess.run(child, env=kept | rule, check=True, capture_output=True, text=True).stdout)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def step_seconds(batch: int, steps: int) -> float:
    """The median, after three steps."""
    import torch

    from fer.machine import choose_precision, use_huge_pages
    from fer.models import create

    use_huge_pages()

    network = create("senet", 7).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    faces = torch.randn(batch, 1, 48, 48).to(memory_format=torch.channels_last)
    targets = torch.randint(7, (batch,))
    times = []
    for _ in range(3 + steps):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=choose_precision("auto", "cpu") == "bf16-mixed"):
            loss = torch.nn.functional.cross_entropy(network(faces), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
