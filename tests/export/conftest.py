"""A small network that has learnt something, as a checkpoint, and what is exported of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
from fer.data.synthetic import make_faces
from fer.export.run import export
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.export import ExportSettings

CLASSES = ("angry", "happy", "sad", "neutral")


def save(network: EmotionNetwork, path: Path) -> Path:
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two are many times slower where a core is busy
    kwargs = {"widths": [16, 32, 64], "dropout": 0.0, "stage_dropout": 0.0}
    spec = NetworkSpec("net", CLASSES, image_size=24, kwargs=kwargs, mean=0.45, std=0.2, temperatures={"none": 1.3})
    network = EmotionNetwork(spec)
    faces = make_faces(1400, 1, 1, seed=1)
    faces = faces.select(np.isin(faces.labels, (0, 3, 4, 6)))
    images = torch.from_numpy(faces.images)[:, None]
    targets = torch.tensor([{0: 0, 3: 1, 4: 2, 6: 3}[int(label)] for label in faces.labels])
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.005)
    for _ in range(100):
        rows = torch.randint(len(images), (64,))
        loss = torch.nn.functional.cross_entropy(network(images[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return save(network.eval(), tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture(scope="session")
def onnx_file(checkpoint: Path) -> Path:
    return export(ExportSettings(ckpt=str(checkpoint)))
