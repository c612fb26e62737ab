"""The table of a network's stages: what it adds up to, and that to make it changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from fer.models import hand_over
from fer.models.architecture import OUTSIDE, Row, markdown, rows, totals
from fer.models.network import EmotionNetwork, NetworkSpec

CLASSES = ("angry", "happy", "sad")


class Wrapped(nn.Module):
    """A network inside another one, whose first layer gives a tuple, and whose last layer is used twice."""

    class Inner(nn.Module):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, stride=2)
            self.second = nn.Conv2d(4, 4, 3, stride=2)
            self.last = nn.Linear(4, num_classes)

        def forward(self, faces: Tensor) -> Tensor:
            features = self.second(self.first(faces))
            mean, most = self.last(features.mean(dim=(2, 3))), self.last(features.amax(dim=(2, 3)))
            return mean + most  # type: ignore[no-any-return]

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.inner = self.Inner(num_classes)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, faces: Tensor) -> Tensor:
        logits: Tensor = self.inner(faces) * self.scale
        return logits


def network(name: str, **kwargs: object) -> EmotionNetwork:
    return EmotionNetwork(NetworkSpec(name, CLASSES, kwargs=kwargs))


def test_net_by_hand() -> None:
    found = rows(network("net", widths=[4, 8]))
    layers = "2 x Conv2d 3x3, 2 x BatchNorm2d, 2 x ReLU, MaxPool2d"
    assert found == [
        Row("face", "normalised", (1, 48, 48), 0, 0),
        Row("stages.0-6", layers, (4, 24, 24), 9 * (4 + 16) + 16, 48 * 48 * 9 * (4 + 16)),
        Row("stages.8-14", layers, (8, 12, 12), 9 * (32 + 64) + 32, 24 * 24 * 9 * (32 + 64)),
        Row("", "pooled to one vector", (8,), 0, 0),
        Row("head", "Linear", (3,), 27, 24),
    ]
    lines = markdown(found).splitlines()
    assert len(lines) == 2 + len(found) + 1
    assert lines[3] == f"| `stages.0-6` | {layers} | 4 x 24 x 24 | 196 | 414,720 |"


def test_attention_is_counted() -> None:
    found = {row.stage: row for row in rows(network("vit_tiny_patch16_224", patch_size=6, depth=2))}
    tokens, width = 65, 192
    # Queries, keys and values, the output, and a hidden layer of four times the width; then two products of matrices.
    assert found["blocks.0-1"].multiply_adds == 2 * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    assert found[OUTSIDE].parameters == tokens * width + width  # positions, and the token of the class


@pytest.mark.parametrize("name", ["senet", "cnn", "resnet18", "swin_tiny_patch4_window7_224", "own"])
def test_the_rows_add_up_and_nothing_is_changed(name: str) -> None:
    if name == "own":
        name = f"{__name__}:Wrapped"
        hand_over(name, Wrapped)
    asked = network(name, window_size=6) if name.startswith("swin") else network(name)
    asked.backbone.train()
    before = {key: tensor.clone() for key, tensor in asked.state_dict().items()}
    random = torch.get_rng_state()
    found = rows(asked)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[key]) for key, tensor in asked.state_dict().items())
    assert all(module.training for module in asked.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in asked.modules())
    assert totals(found)[0] == sum(parameter.numel() for parameter in asked.parameters())
    assert 5 <= len(found) <= 20
    assert found[0].shape == (1, 48, 48)
    assert [row.shape for row in found if row.stage != OUTSIDE][-1] == (len(CLASSES),)
    assert len({row.stage for row in found if row.stage}) == len([row for row in found if row.stage])
