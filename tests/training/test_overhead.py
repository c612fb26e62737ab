"""What a training step does besides the network, counted in operators; benchmarks/overhead.py takes the time."""

import importlib.util
from collections import Counter
from typing import Any

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


def test_a_step_costs_few_operators_and_waits_for_nothing() -> None:
    steps = 6
    cfg = overhead.settings(4, steps, "optim=sgd")  # torch's AdamW asks for its count of steps when on the CPU
    counts = {}
    for loop in (overhead.bare, overhead.ours):
        with Operators() as operators:
            loop(cfg, operators.step)
        assert len(operators.steps) == 3 * steps
        counts[loop.__name__] = operators.steps[steps + 3]  # in the middle of the second epoch
    more = counts["ours"] - counts["bare"]
    assert 0 < more.total() <= 40, more.most_common()
    # Both would make the host wait for a GPU.
    assert "bincount" not in counts["ours"]
    assert "_local_scalar_dense" not in counts["ours"]
