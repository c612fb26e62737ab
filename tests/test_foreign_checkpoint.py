"""Checkpoints of other projects, which a person says the network and the classes of."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fer.checkpoint import PREFIX, SPEC_KEY, ForeignSpec, load_network, write_checkpoint
from fer.errors import UserError
from fer.models.cnn import CNN
from fer.models.network import EmotionNetwork, NetworkSpec

CLASSES = ("angry", "happy", "sad", "neutral")
FACES = torch.randint(0, 256, (3, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

COLOUR = """
from torch import nn

class Colour(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.model = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, faces):
        return self.fc(self.norm(self.model(faces)).relu().mean((2, 3)))
"""


@pytest.fixture
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return CNN(num_classes=4, image_size=48).eval()


@pytest.fixture
def colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    (tmp_path / "theirs.py").write_text(COLOUR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    theirs = importlib.import_module("theirs")
    torch.manual_seed(0)
    network: nn.Module = theirs.Colour(4).eval()
    nn.init.normal_(network.get_parameter("fc.weight"))
    return network


def prefixed(network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "model.", "net.", "module.", "_orig_mod.", "model.module._orig_mod."])
def test_a_state_dict_whatever_the_network_is_called_in_it(theirs, tmp_path, prefix):
    torch.save(prefixed(theirs, prefix), tmp_path / "a.pth")
    network = load_network(tmp_path / "a.pth", foreign=ForeignSpec("cnn", CLASSES))
    assert not network.training
    assert (network.spec.classes, network.spec.size) == (CLASSES, 48)
    with torch.inference_mode():
        assert torch.allclose(network(FACES), theirs(FACES / 255), atol=1e-5)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "net"])
def test_a_lightning_checkpoint_and_the_like(theirs, tmp_path, key):
    ema = {f"ema.{name}": torch.zeros_like(tensor) for name, tensor in theirs.state_dict().items()}
    more = {"criterion.weight": torch.ones(4), **ema}
    content = {"epoch": 3, "optimizer": {"state": {}}, key: {**more, **prefixed(theirs, "net.")}}
    torch.save(content, tmp_path / "a.ckpt")
    network = load_network(tmp_path / "a.ckpt", foreign=ForeignSpec("cnn", CLASSES))
    with torch.inference_mode():
        assert torch.allclose(network(FACES), theirs(FACES / 255), atol=1e-5)


def test_channels_size_and_normalisation_are_theirs(colour, tmp_path):
    from safetensors.torch import save_file

    # "model." is the name of a layer here, and no prefix; and nothing has counted batches.
    state = {key: tensor for key, tensor in colour.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "a.safetensors")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    foreign = ForeignSpec("theirs:Colour", CLASSES, 64, channels=3, mean=mean, std=std)
    network = load_network(tmp_path / "a.safetensors", foreign=foreign)
    assert network.spec.size == 64
    faces = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    expected = (faces.repeat(1, 3, 1, 1) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.inference_mode():
        assert torch.allclose(network(faces), colour(expected), atol=1e-5)


def test_a_network_of_timm_in_colour(tmp_path):
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=4).eval()
    torch.save({"state_dict": prefixed(theirs, "backbone.")}, tmp_path / "a.ckpt")
    network = load_network(tmp_path / "a.ckpt", foreign=ForeignSpec("test_resnet", CLASSES, 96, channels=3))
    faces = torch.randint(0, 256, (2, 1, 96, 96), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(network(faces), theirs(faces.repeat(1, 3, 1, 1) / 255), atol=1e-5)
    with pytest.raises(
        UserError, match=r"conv1\.0\.weight.*have another shape.*takes 3 channels, and model\.channels=1"
    ):
        load_network(tmp_path / "a.ckpt", foreign=ForeignSpec("test_resnet", CLASSES, 96))


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (
            lambda state: state.pop("net.head.weight"),
            CLASSES,
            r"1 of its \d+ tensors are missing \(head\.weight\)",
        ),
        (
            lambda state: state.update({"net.fc9.bias": torch.ones(4)}),
            CLASSES,
            r"1 are there that it has not \(fc9\.bias",
        ),
        (lambda state: None, CLASSES[:3], "it answers for 4 classes, and classes= names 3"),
        (lambda state: state.clear(), CLASSES, "holds no tensor of that name"),
    ],
    ids=["missing", "unknown", "classes", "empty"],
)
def test_what_does_not_fit_is_said(theirs, tmp_path, change, classes, message):
    state = prefixed(theirs, "net.")
    change(state)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message) as raised:
        load_network(tmp_path / "a.pth", foreign=ForeignSpec("cnn", classes))
    assert "\n" not in str(raised.value)


def test_code_is_refused_and_infinite_weights_are(theirs, tmp_path):
    torch.save(theirs, tmp_path / "whole.pth")
    with pytest.raises(
        UserError, match=r"could run code; where it was made, torch\.save\(network\.state_dict\(\), FILE\)"
    ):
        load_network(tmp_path / "whole.pth", foreign=ForeignSpec("cnn", CLASSES))
    next(theirs.parameters()).data[0] = torch.nan
    torch.save(theirs.state_dict(), tmp_path / "nan.pth")
    with pytest.raises(UserError, match="not finite"):
        load_network(tmp_path / "nan.pth", foreign=ForeignSpec("cnn", CLASSES))


def test_numbers_that_cannot_be(tmp_path):
    with pytest.raises(UserError, match=r"model\.mean has 2 numbers: give one, or one for each channel"):
        ForeignSpec("cnn", CLASSES, channels=3, mean=(0.5, 0.5))
    with pytest.raises(UserError, match=r"model\.std must be above 0"):
        ForeignSpec("cnn", CLASSES, std=(0.0,))
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    for classes in ((), ("happy",), ("happy", "happy")):
        with pytest.raises(UserError, match=r"classes=\[\.\.\.\] names what it answers, each once"):
            load_network(tmp_path / "a.pth", foreign=ForeignSpec("cnn", classes))
    with pytest.raises(UserError, match=r"model\.channels=3: cnn takes gray faces"):
        load_network(tmp_path / "a.pth", foreign=ForeignSpec("cnn", CLASSES, channels=3))


def test_a_checkpoint_of_ours_says_itself_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(COLOUR.replace("Colour", "Gray").replace("Conv2d(3", "Conv2d(1"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    mine = importlib.import_module("mine")
    spec = NetworkSpec("mine:Gray", CLASSES)
    network = EmotionNetwork(spec, backbone=mine.Gray(4))
    state = {PREFIX + key: tensor for key, tensor in network.state_dict().items()}
    path = tmp_path / "a.ckpt"
    write_checkpoint({SPEC_KEY: spec.to_dict(), "state_dict": state}, path)
    with pytest.raises(UserError, match=r"name it yourself: model\.name=mine:Gray"):
        load_network(path)
    with pytest.raises(UserError, match=r"of this project and says itself what it is \(mine:Gray\)"):
        load_network(path, foreign=ForeignSpec("mine:Gray", CLASSES))
    assert load_network(path, foreign=ForeignSpec("mine:Gray", ())).spec == spec
