"""`FER2013DataModule`: a data set on disk, or drawn by the program, as batches of augmented faces.

Knows nothing of networks. The one place where classes, splits, balance and augmentation meet.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from fer.data.augment import Augment, mixup
from fer.data.download import download
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL, Faces
from fer.data.loader import FaceLoader
from fer.data.reader import read
from fer.data.splits import assign_splits
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.labels import EMOTIONS, resolve_classes


class FER2013DataModule(L.LightningDataModule):
    """Faces in memory, batches by index, augmentation per batch on the device.

    Args:
        path: CSV, archive or directory (see `fer.data.reader.read`); None draws synthetic faces.
        classes: a subset or a list of emotions (see `fer.labels.resolve_classes`); rows of others are left out.
        batch_size: faces per training batch and process; evaluation takes four times as many.
        split, val_fraction, test_fraction, folds, fold: see `fer.data.splits.assign_splits`.
        balance: "sampler" draws every class equally often; "loss" leaves the batches alone and offers
            `class_weights` for the loss; "none" does neither.
        augment: arguments of `fer.data.augment.Augment`; None trains on the faces as they are.
        mixup_alpha: strength of `fer.data.augment.mixup`; 0 turns it off.
        download: whether a missing `path` may be fetched from Kaggle.
        synthetic: number of faces per split, keys train, val and test, when `path` is None.
        split_seed: of random divisions and of synthetic faces; apart from `seed`, so that runs that differ in `seed`
            are trained and judged on the same rows.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        path: str | Path | None,
        classes: int | str | list[str] = 7,
        batch_size: int = 128,
        split: str = "official",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        balance: str = "none",
        augment: Mapping[str, Any] | None = None,
        mixup_alpha: float = 0.0,
        download: bool = True,
        synthetic: Mapping[str, int] | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.path = None if path is None else Path(path).expanduser()
        self.classes = resolve_classes(classes)
        self.batch_size = batch_size
        self.split = {
            "split": split,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "folds": folds,
            "fold": fold,
        }
        self.balance = balance
        self.augment = None if augment is None else Augment(**augment)
        self.mixup_alpha = mixup_alpha
        self.may_download = download
        self.synthetic = dict(synthetic or {})
        self.split_seed = split_seed
        self.seed = seed
        self._faces: Faces | None = None
        self._train_loader: FaceLoader | None = None
        self._resume: dict[str, int] | None = None

    def prepare_data(self) -> None:
        """Fetches FER2013 when the path does not exist (once, on one process)."""
        if self.path is not None and not self.path.exists():
            if not self.may_download:
                raise UserError(
                    f"data.path={self.path} does not exist and data.download is off; "
                    "put fer2013.csv there, give another data.path, or try data=synthetic"
                )
            download(self.path)

    def setup(self, stage: str | None = None) -> None:
        """Reads the rows of the chosen classes and divides them into splits."""
        if self._faces is None:
            faces = read(self.path) if self.path is not None else make_faces(**self.synthetic, seed=self.split_seed)
            wanted = np.isin(faces.labels, [EMOTIONS.index(name) for name in self.classes])
            self._faces = assign_splits(faces.select(wanted), **self.split, seed=self.split_seed)  # type: ignore[arg-type]

    @property
    def faces(self) -> Faces:
        """All rows of the chosen classes, after `setup`."""
        assert self._faces is not None, "call setup() first"
        return self._faces

    def rows(self, code: int) -> Faces:
        """The rows of one split (TRAIN, VAL or TEST of `fer.data.faces`)."""
        return self.faces.select(self.faces.splits == code)

    def tensors(self, code: int) -> tuple[Tensor, Tensor]:
        """One split as faces uint8 (N, 1, 48, 48) and targets int64 (N,), positions in `classes`."""
        rows = self.rows(code)
        class_of_emotion = np.array([self.classes.index(name) if name in self.classes else -1 for name in EMOTIONS])
        return torch.from_numpy(rows.images).unsqueeze(1), torch.from_numpy(class_of_emotion[rows.labels])

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Rows per split and class: {"train": {"angry": 3995, ...}, ...}; splits without rows are left out."""
        counts = {}
        for code, split in SPLIT_NAMES.items():
            labels = self.faces.labels[self.faces.splits == code]
            if len(labels):
                counts[split] = {name: int((labels == EMOTIONS.index(name)).sum()) for name in self.classes}
        return counts

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, both in [0, 1]."""
        images = self.faces.images[self.faces.splits == TRAIN]
        # Per image first: a float copy of all pixels would take eight times the memory of the data set.
        means = images.mean(axis=(1, 2))
        variances = images.var(axis=(1, 2), dtype=np.float32)
        return float(means.mean() / 255), float(np.sqrt(variances.mean() + means.var()) / 255)

    def class_weights(self) -> Tensor | None:
        """Weights for the loss, float32 (C,), rare classes more; None unless `balance` is "loss"."""
        if self.balance != "loss":
            return None
        counts = torch.tensor([float(n) for n in self.class_counts()["train"].values()])
        return counts.sum() / (len(counts) * counts.clamp(min=1))

    def train_dataloader(self) -> FaceLoader:
        """Shuffled, or drawn with equal chances for every class."""
        images, targets = self.tensors(TRAIN)
        weights = None
        if self.balance == "sampler":
            weights = (1 / torch.bincount(targets, minlength=len(self.classes)).double())[targets]
        self._train_loader = self._loader(images, targets, self.batch_size, shuffle=True, weights=weights)
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch. Lightning keeps it too, but forgets it when a schedule asks for the step count."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the training loader begin where the checkpoint was written."""
        self._resume = state_dict or None

    def val_dataloader(self) -> FaceLoader:
        """In the source's order."""
        return self._loader(*self.tensors(VAL), 4 * self.batch_size)

    def test_dataloader(self) -> FaceLoader:
        """In the source's order."""
        return self._loader(*self.tensors(TEST), 4 * self.batch_size)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augments training batches on the device they are on."""
        faces, targets = batch
        if self.trainer is None or not self.trainer.training:
            return faces, targets
        if self.augment is not None:
            faces = self.augment(faces)
        if self.mixup_alpha > 0:
            faces, targets = mixup(faces.float(), targets, len(self.classes), self.mixup_alpha)
        return faces, targets

    def _loader(self, images: Tensor, targets: Tensor, batch_size: int, **options: Any) -> FaceLoader:
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return FaceLoader(images, targets, batch_size, **options, seed=self.seed, rank=rank, world_size=world_size)
