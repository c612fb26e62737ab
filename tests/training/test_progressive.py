"""Training on smaller faces first."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch

from fer.classifier import EmotionClassifier
from fer.errors import UserError
from fer.models.net import Net
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import TrainSettings
from fer.training.callbacks import ProgressiveResizing
from fer.training.run import train

pytestmark = pytest.mark.usefixtures("unrendered")


def test_each_size_has_its_share_of_the_epochs_and_validation_its_own(
    settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    forward = Net.forward

    def watch(self: Net, faces: torch.Tensor) -> torch.Tensor:
        seen.append((self.training, faces.shape[-1]))
        return forward(self, faces)

    monkeypatch.setattr(Net, "forward", watch)
    train(settings("image_sizes=[24,32]", "trainer.max_epochs=4"), tmp_path)
    trained = [size for training, size in seen if training]
    steps = len(trained) // 4
    assert trained == [24] * 2 * steps + [32] * 2 * steps
    assert {size for training, size in seen[3:] if not training} == {
        48
    }  # the first three draw the network, and try the sizes


def test_a_network_of_one_size_refuses_others() -> None:
    network = EmotionNetwork(NetworkSpec("cnn", ("happy", "sad")))
    with pytest.raises(UserError, match="cnn cannot take faces of 24x24"):
        ProgressiveResizing([48, 24]).on_fit_start(L.Trainer(logger=False), EmotionClassifier(network))
    assert network.training
