"""The progress bar: epochs from 1, one line, figures within the first epoch."""

from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from fer.classifier import EmotionClassifier
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.training.callbacks import EpochBar


def test_a_line_of_80_columns_says_what_a_person_wants_to_know() -> None:
    bar = EpochBar()
    module = EmotionClassifier(EmotionNetwork(NetworkSpec("net", ("happy", "sad"), kwargs={"widths": [4, 8]})))
    trainer: Any = SimpleNamespace(max_epochs=120, training=True, global_step=1, callback_metrics={})
    bar._trainer = trainer
    assert bar.get_metrics(trainer, module) == {}
    module.counts.add(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]), [torch.tensor(0.5)])
    module.counts.step(0.1)
    assert bar.get_metrics(trainer, module) == {"loss": 0.5, "acc": 0.5}
    trainer.callback_metrics = {"val/accuracy": torch.tensor(0.25)}
    metrics = bar.get_metrics(trainer, module)
    assert metrics == {"loss": 0.5, "acc": 0.5, "val": 0.25}

    console = Console(width=80, record=True, force_terminal=True)
    progress = Progress(*bar.configure_columns(trainer), console=console)
    progress.add_task(bar._get_train_description(99), total=1000, completed=400)
    console.print(progress)
    (line,) = [text for text in console.export_text().splitlines() if text.strip()]
    assert line.startswith("Epoch 100/120 ")
    figures = "  ".join(f"{name}: {value:.3f}" for name, value in metrics.items())
    assert len(line.rstrip()) + 1 + len(figures) <= 80
