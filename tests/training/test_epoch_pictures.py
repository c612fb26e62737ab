"""What can be looked at while a network trains: pictures, TensorBoard, and what is said."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import scalars

from fer.classifier import EmotionClassifier
from fer.settings.train import TrainSettings
from fer.training import plots
from fer.training.run import train

SHOWN = [
    "network/architecture",
    *(f"while_training/{name}" for name in ("answers_val", "confusion_matrix_val", "samples")),
]


class Look(Callback):
    """Which pictures are there after each epoch."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: list[set[str]] = []

    def on_train_epoch_end(self, *_: object) -> None:
        self.seen.append({file.stem for file in self.directory.glob("*.png")})


def texts_of(run: Path) -> dict[str, str]:
    """TensorBoard's text tab."""
    events = EventAccumulator(str(run)).Reload()
    return {
        name.removesuffix("/text_summary"): events.Tensors(name)[0].tensor_proto.string_val[0].decode()
        for name in events.Tags()["tensors"]
    }


@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_training_can_be_watched(
    settings: Callable[..., TrainSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: int,
) -> None:
    monkeypatch.setattr("fer.training.pictures._FIRST_S", seconds)
    monkeypatch.setattr("fer.training.pictures._SHARE", 1.0)
    monkeypatch.setattr("fer.training.callbacks._EVERY", 6)  # as many batches as an epoch has
    look = Look(tmp_path / "plots")
    with caplog.at_level(logging.INFO):
        train(settings("trainer.max_epochs=3"), tmp_path, [look], ["trainer.max_epochs=3"])
    first, running = {"architecture", "samples"}, {"training_progress", "confusion_matrix_val"}
    assert look.seen == [first | running if seconds == 0 else first] * 3
    look.on_train_epoch_end()
    assert look.seen[-1] == first | running  # the last epoch is drawn in any case

    assert "Network: net, 3.52 k parameters, 1.12 M multiply-adds per face of 48x48" in caplog.text
    assert "Machine: CPU, " in caplog.text
    assert "Stopped early" not in caplog.text
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == SHOWN
    steps = [image.step for image in events.Images("while_training/confusion_matrix_val")]
    assert steps == ([5, 11, 17] if seconds == 0 else [17])
    picture = events.Images("network/architecture")[0]
    png = (tmp_path / "plots" / "architecture.png").read_bytes()
    assert picture.encoded_image_string == png
    assert (picture.width, picture.height) == Image.open(io.BytesIO(png)).size
    texts = texts_of(tmp_path)
    assert "train.py trainer.max_epochs=3" in texts["command"]
    assert "widths:" in texts["config"]
    assert "| `head` | Linear | 7 |" in texts["architecture"]
    curves = scalars(tmp_path)
    assert {name for name in curves if name.endswith("epoch/accuracy")} == {
        "train: epoch/accuracy",
        "val: epoch/accuracy",
    }
    assert len(curves["val: epoch/accuracy"]) == 3
    assert [step for step, _ in curves["train: step/loss"]] == [5, 11, 17]
    for by_step, by_epoch in zip(curves["train: step/loss"], curves["train: epoch/loss"], strict=True):
        assert by_step[1] == pytest.approx(by_epoch[1], rel=1e-5)
    assert not [name for name in curves if name.startswith(".")]


def test_early_stopping_is_said_and_marked_and_secrets_are_not_shown(
    settings: Callable[..., TrainSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("fer.training.pictures._FIRST_S", 1000)  # one picture, at the end
    accuracies = [0.3, 0.6, 0.5, 0.4, 0.3]
    marked = []
    draw = plots.save_training_progress

    def pretend(self: EmotionClassifier, batch: object, batch_idx: int) -> None:
        self.log("val/accuracy", accuracies[self.current_epoch], batch_size=1)

    def note(file: Path, rows: list[dict[str, float]], stopped_early: bool = False) -> bytes:
        marked.append(stopped_early)
        return draw(file, rows, stopped_early)

    monkeypatch.setattr(EmotionClassifier, "validation_step", pretend)
    monkeypatch.setattr(plots, "save_training_progress", note)
    with caplog.at_level(logging.INFO):
        train(settings("trainer.max_epochs=5", "early_stopping=2"), tmp_path, secret=True)
    said = (
        "Stopped early after epoch 4: for 2 epochs val/accuracy was not above the 0.6000 of epoch 2 (early_stopping=2)."
    )
    assert said in caplog.text
    assert marked == [True]
    assert "early_stopping" not in texts_of(tmp_path)["config"]


def test_samples_keep_away_from_the_edge(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 200, (4, 48, 48)).astype(np.uint8)
    file = tmp_path / "samples.png"
    plots.save_samples(file, faces, faces, np.array([0, 0, 1, 1]), ("surprise", "sad"))
    pixels = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("L"))
    assert (pixels[:, :10] == 255).all()
    assert (pixels[-3:] == 255).all()
    assert (pixels[:, :60] < 255).any()
