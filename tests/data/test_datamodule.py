from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN, VAL
from fer.errors import UserError
from fer.settings.train import DataSettings

SYNTHETIC = {"train": 70, "val": 21, "test": 14}


def ready(**settings: object) -> FER2013DataModule:
    chosen = {"path": None, "synthetic": SYNTHETIC, "batch_size": 16, "augment": None, **settings}
    datamodule = FER2013DataModule(DataSettings.checked(chosen))
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def of(path: Path, **settings: object) -> FER2013DataModule:
    return FER2013DataModule(DataSettings.checked({"path": str(path), "augment": None, **settings}))


def test_a_batch_is_uint8_faces_and_int64_targets() -> None:
    faces, targets = next(iter(ready().train_dataloader()))
    assert (faces.dtype, tuple(faces.shape)) == (torch.uint8, (16, 1, 48, 48))
    assert (targets.dtype, tuple(targets.shape)) == (torch.int64, (16,))


def test_rows_of_other_classes_are_left_out_of_every_split_and_targets_follow_the_list() -> None:
    datamodule = ready(classes=["neutral", "angry"])
    counts = datamodule.class_counts()
    assert counts["train"] == {"neutral": 10, "angry": 10}
    assert sum(counts["val"].values()) + sum(counts["test"].values()) == 6 + 4
    _, targets = datamodule.tensors(TRAIN)
    emotions = datamodule.rows(TRAIN).labels
    assert set(zip(targets.tolist(), emotions.tolist(), strict=True)) == {(0, 6), (1, 0)}


def test_statistics_are_those_of_the_training_pixels() -> None:
    datamodule = ready()
    pixels = datamodule.rows(TRAIN).images / 255
    mean, std = datamodule.statistics()
    assert mean == pytest.approx(pixels.mean(), abs=1e-6)
    assert std == pytest.approx(pixels.std(), abs=1e-5)


def test_balance(write_tree: Callable[..., Path], tmp_path: Path) -> None:
    names = [f"happy/{i}.png" for i in range(60)] + [f"sad/{i}.png" for i in range(20)]
    path = write_tree(tmp_path / "faces", names)
    classes = ["happy", "sad"]
    weights = of(path, classes=classes, balance="loss", split="random", test_fraction=0.0)
    weights.setup()
    assert weights.class_weights() == pytest.approx(torch.tensor([36 / 54, 36 / 18]), abs=0.01)
    sampler = of(path, classes=classes, batch_size=36, balance="sampler", split="random", test_fraction=0.0)
    sampler.setup()
    assert sampler.class_weights() is None
    loader = sampler.train_dataloader()
    drawn = []
    for epoch in range(30):
        loader.set_epoch(epoch)
        drawn += [targets for _, targets in loader]
    assert float(torch.cat(drawn).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_evaluation_batches_are_not_augmented() -> None:
    datamodule = ready(augment={"flip": 1.0})
    faces, targets = next(iter(datamodule.val_dataloader()))
    assert np.array_equal(faces[:, 0].numpy(), datamodule.rows(VAL).images)
    assert torch.equal(datamodule.on_after_batch_transfer((faces, targets), 0)[0], faces)


def test_a_missing_path_without_download_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.download is off.*data=synthetic"):
        of(tmp_path / "fer2013.csv", download=False).prepare_data()


def test_the_real_rows_of_every_subset(fer2013_zip: Path) -> None:
    """Training rows as FER2013 has them; the other rows here are PublicTest, 3,589 of them in 7 classes."""
    per_class = {
        "angry": 3995,
        "disgust": 436,
        "fear": 4097,
        "happy": 7215,
        "sad": 4830,
        "surprise": 3171,
        "neutral": 4965,
    }
    for classes, others in ((7, 3589), ("5-surprise", 3037), (5, 3118), (4, 2622)):
        datamodule = of(fer2013_zip, classes=classes)
        datamodule.setup()
        counts = datamodule.class_counts()
        assert counts["train"] == {name: per_class[name] for name in datamodule.classes}
        assert sum(counts["val"].values()) == others
        assert "test" not in counts


@pytest.mark.parametrize("size", [64, 96, 112])
def test_faces_are_stored_at_the_size_that_is_asked_for(size: int, tmp_path: Path) -> None:
    path = tmp_path / "faces"
    for number in range(30):
        for name in ("happy", "sad"):
            (path / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (size, size), np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.png")
    chosen = {"classes": ["happy", "sad"], "batch_size": 8, "split": "random", "size": size}
    mapped = of(path, **chosen, memory_gb=0, augment={})
    held = of(path, **chosen)
    for data in (mapped, held):
        data.setup()
        faces, _ = next(iter(data.val_dataloader()))
        assert (faces.dtype, tuple(faces.shape[1:])) == (torch.uint8, (1, size, size))
        for image, row in zip(data.faces.images, data.faces.ids, strict=True):
            with Image.open(path / row) as picture:
                assert np.array_equal(image, np.asarray(picture))  # nothing is scaled that has the size
    assert np.array_equal(mapped.faces.images, held.faces.images)
    faces, _ = next(iter(mapped.train_dataloader()))
    assert mapped.augment is not None
    assert tuple(mapped.augment(faces).shape[1:]) == (1, size, size)
    assert held.statistics() == pytest.approx(mapped.statistics())
    small = of(path, classes=["happy", "sad"], split="random")
    small.setup()
    assert small.faces.images.shape[1:] == (48, 48)  # the other size's cache entry is not handed out


def test_drawn_faces_and_those_of_a_csv_are_scaled(tmp_path: Path, csv_text: Callable[..., str]) -> None:
    drawn = ready(size=64)
    assert drawn.faces.images.shape[1:] == (64, 64)
    faces = drawn.rows(TRAIN)
    kept = ready()
    (tmp_path / "fer2013.csv").write_text(csv_text(kept.rows(TRAIN)))
    csv = of(tmp_path / "fer2013.csv", size=64, split="random", val_fraction=0.0, test_fraction=0.0)
    csv.setup()
    assert np.array_equal(csv.faces.images, faces.images)


def test_contempt_needs_rows_of_it() -> None:
    with pytest.raises(UserError, match=r"drawn faces has no contempt; for FER2013 add data\.labels=ferplus"):
        ready(classes=8)
