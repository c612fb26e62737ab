import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer.classifier import EmotionClassifier
from fer.errors import UserError
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import OptimSettings, TrainSettings
from fer.training.optim import configure_optimizers
from fer.training.run import train

SETTINGS = {
    "optimizer": {"_target_": "torch.optim.SGD", "momentum": 0.9},
    "lr": 0.1,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 2,
    "min_lr": 1e-3,
    "factor": 0.75,
    "patience": 5,
}


class Trainer:
    """The numbers that a schedule asks a trainer for."""

    fit_loop = SimpleNamespace(setup_data=lambda: None)
    num_training_batches = 10
    estimated_stepping_batches = 100
    accumulate_grad_batches = 1


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> EmotionClassifier:
    module = EmotionClassifier(EmotionNetwork(NetworkSpec("net", ("happy", "sad"), kwargs={"widths": [4, 8]})))
    monkeypatch.setattr(EmotionClassifier, "trainer", Trainer())
    return module


def rates(module: EmotionClassifier, **changes: object) -> list[float]:
    built = configure_optimizers(module, OptimSettings.checked({**SETTINGS, **changes}))
    seen = []
    for _ in range(Trainer.estimated_stepping_batches):
        seen.append(built["optimizer"].param_groups[0]["lr"])
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    return seen


def test_no_decay_on_norms_and_biases(module: EmotionClassifier) -> None:
    optimizer = configure_optimizers(module, OptimSettings.checked(SETTINGS))["optimizer"]
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in module.network.named_parameters():
        assert decay[id(parameter)] == (0.01 if parameter.ndim > 1 else 0.0), name
    assert len(decay) == len(list(module.network.parameters()))


def test_cosine_rises_for_the_warm_up_and_falls_to_the_lowest(module: EmotionClassifier) -> None:
    seen = rates(module)
    assert seen[:21] == sorted(seen[:21])
    assert seen[20] == pytest.approx(0.1)
    assert seen[20:] == sorted(seen[20:], reverse=True)
    assert seen[60] == pytest.approx(1e-3 + 0.099 * (1 + math.cos(math.pi / 2)) / 2)
    assert seen[-1] < 0.0012


def test_one_cycle_peaks_after_the_warm_up(module: EmotionClassifier) -> None:
    seen = rates(module, schedule="onecycle")
    assert max(seen) == pytest.approx(0.1)
    assert seen.index(max(seen)) == 20


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_very_short_run(module: EmotionClassifier, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "estimated_stepping_batches", steps)
    assert all(0 < rate <= 0.1 for rate in rates(module, schedule="onecycle"))


def test_plateau_follows_the_validation_loss(module: EmotionClassifier) -> None:
    built = configure_optimizers(module, OptimSettings.checked({**SETTINGS, "schedule": "plateau"}))
    scheduler = built["lr_scheduler"]["scheduler"]
    assert built["lr_scheduler"]["monitor"] == "val/loss"
    for _ in range(7):
        scheduler.step(1.0)
    assert built["optimizer"].param_groups[0]["lr"] == pytest.approx(0.075)
    for _ in range(200):
        scheduler.step(1.0)
    assert built["optimizer"].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_the_warm_up_is_of_epochs_also_where_steps_end_the_training(
    module: EmotionClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "accumulate_grad_batches", 4)  # 3 steps per epoch
    seen = rates(module)
    assert seen.index(max(seen)) == 6


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_what_is_a_setting_of_its_own_is_no_argument(module: EmotionClassifier, name: str) -> None:
    with pytest.raises(UserError, match=f"optim.optimizer.{name}: set optim.{name} instead"):
        configure_optimizers(module, OptimSettings.checked({**SETTINGS, "optimizer": {"_target_": "x", name: 0.5}}))


@pytest.mark.parametrize("optim", ["adamw", "sgd", "adam"])
def test_a_run_that_ends_by_steps_alone_has_its_schedule(
    settings: Callable[..., TrainSettings], tmp_path: Path, optim: str
) -> None:
    """210 faces in batches of 32 are 6 steps an epoch; plateau has no patience with an epoch that is not better."""
    words = [
        f"optim={optim}",
        "trainer.max_epochs=-1",
        "trainer.max_steps=19",
        "optim.warmup_epochs=1",
        "optim.min_lr=0",
    ]
    words += ["optim.patience=0", "optim.factor=0.5", "optim.lr=1e-7"] if optim == "adam" else []
    train(settings(*words, "logger=csv"), tmp_path)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/lr")
    seen = [float(line.split(",")[column]) for line in lines[1:]]
    assert len(seen) == 4
    assert seen[1] > seen[2] > seen[3]
