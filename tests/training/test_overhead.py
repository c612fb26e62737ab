"""What a training step does besides the network, counted in operators; benchmarks/overhead.py takes the time."""

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tiny import ROOT
from torch.utils._python_dispatch import TorchDispatchMode

SPEC = importlib.util.spec_from_file_location("overhead", ROOT / "benchmarks" / "overhead.py")
assert SPEC is not None
assert SPEC.loader is not None
overhead = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(overhead)


class Operators(TorchDispatchMode):
    """Counts the operators of each step, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Counter[str]] = []
        self.now: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.now[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    def step(self, epoch: int) -> None:
        self.steps.append(self.now)
        self.now = Counter()


def operators_of_a_step(loop: Callable[..., None], *words: str) -> Counter[str]:
    """Of one in the middle of the second epoch."""
    steps = 6
    cfg = overhead.settings(4, steps, *words)
    with Operators() as operators:
        loop(cfg, operators.step)
    assert len(operators.steps) == 3 * steps
    step: Counter[str] = operators.steps[steps + 3]
    return step


def test_a_step_costs_few_operators() -> None:
    more = operators_of_a_step(overhead.ours, "optim=sgd") - operators_of_a_step(overhead.bare, "optim=sgd")
    assert 0 < more.total() <= 40, more.most_common()


@pytest.mark.parametrize("words", [[], ["data.mixup_alpha=0.2", "data.degrade=0.5"]])
def test_a_step_does_nothing_that_makes_the_host_wait_for_a_gpu(words: list[str]) -> None:
    found = operators_of_a_step(
        overhead.ours, "optim=sgd", *words
    )  # torch's AdamW asks for its count of steps on a CPU
    waiting = {"bincount", "_local_scalar_dense", "nonzero", "masked_select", "_unique2"}
    assert waiting & found.keys() == set()
