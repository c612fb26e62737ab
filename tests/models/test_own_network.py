"""A network of another package: trained, resumed, tested and loaded, and never imported because a file names it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from tiny import ROOT, TINY
from torch import nn

from fer import models
from fer.checkpoint import PREFIX, SPEC_KEY, load_network, write_checkpoint
from fer.commands.train import main
from fer.errors import UserError
from fer.models.network import EmotionNetwork, NetworkSpec

CODE = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_name("imported").touch()
class Tiny(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, width), nn.ReLU(), nn.Linear(width, num_classes))
    def forward(self, faces):
        return self.layers(faces)
class Wrong(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
    def forward(self, faces):
        return faces
"""


class Flat(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(48 * 48, num_classes)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(faces.flatten(1))
        return logits


@pytest.fixture(autouse=True)
def nothing_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_HANDED_OVER", {})


def test_the_class_is_handed_over_with_the_path(tmp_path: Path) -> None:
    models.hand_over("theirs.nets:Flat", Flat)
    network = EmotionNetwork(NetworkSpec("theirs.nets:Flat", ("happy", "sad")))
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, tmp_path / "a.ckpt")
    models._HANDED_OVER.clear()
    with pytest.raises(UserError, match=r"a\.ckpt.*not run because a file names it.*backbone=Flat"):
        load_network(tmp_path / "a.ckpt")
    loaded = load_network(tmp_path / "a.ckpt", backbone=Flat)
    assert torch.equal(loaded.backbone.head.weight, network.backbone.head.weight)  # type: ignore[union-attr, arg-type]


def test_an_installed_package_registers_its_network(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(CODE)
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fer.networks]\ntheirs:Tiny = theirs:Tiny\n")
    code = "from fer.models import create; print(type(create('theirs:Tiny', 3)).__module__)"
    for path, expected in ((f"{ROOT}:{tmp_path}", "theirs\n"), (str(ROOT), "")):
        done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True)
        assert done.stdout == expected, done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch.module:Net", "no such class"),
        ("os:getcwd", "no torch.nn.Module"),
        ("torch.nn:Nothing", "no such class"),
    ],
)
def test_a_name_that_is_no_network(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.hand_over(name)


def test_a_network_from_the_command_line(
    command: Callable[..., "CompletedProcess[str]"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.setenv("FER_MORE_PATH", str(tmp_path))
    words = [*(word for word in TINY if "model" not in word), "test_split=val"]
    wrong = command(*words, "model.name=mine:Wrong")
    assert wrong.returncode == 2
    assert "must return logits of shape (B, 7)" in wrong.stderr
    run = tmp_path / "outputs" / "own"
    own = ["model.name=mine:Tiny", "model.kwargs={width: 6}"]
    trained = command(*words, *own, "trainer.max_epochs=1", f"hydra.run.dir={run}")
    assert trained.returncode == 0, trained.stderr
    assert (run / "report.html").is_file()
    (tmp_path / "imported").unlink()
    for mode in ("mode=test", "mode=train"):
        with pytest.raises(UserError, match=r"model\.name=mine:Tiny"):
            main([mode, f"ckpt={run / 'checkpoints' / 'last.ckpt'}"])
    assert not (tmp_path / "imported").exists()
    tested = command("mode=test", f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "model.name=mine:Tiny")
    assert tested.returncode == 0, tested.stderr


def test_a_sweep_takes_a_network_from_the_command_line(
    command: Callable[..., "CompletedProcess[str]"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.setenv("FER_MORE_PATH", str(tmp_path))
    words = [*(word for word in TINY if "model" not in word), "test_split=val"]
    trained = command("-m", *words, "model.name=mine:Tiny", "model.kwargs.width=6", "trainer.max_epochs=1", "seed=1,2")
    assert trained.returncode == 0, trained.stderr
    one, _ = sorted((tmp_path / "outputs" / "sweeps").rglob("best.ckpt"))
    tested = command("-m", "mode=test", f"ckpt={one}", "model.name=mine:Tiny")
    assert tested.returncode == 0, tested.stderr
