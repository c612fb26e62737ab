"""`FER2013DataModule`: a data set on disk, or drawn by the program, as batches of augmented faces.

Knows nothing of networks. The one place where classes, labels, splits, balance and augmentation meet.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer.data.augment import Augment, mixup
from fer.data.download import download
from fer.data.exclude import Exclusion, check_reasons, read_list
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL, Faces
from fer.data.ferplus import distribution, download_votes, read_votes, voted, votes_of, winner
from fer.data.group_file import Groups, read_groups
from fer.data.loader import FaceLoader
from fer.data.reader import read
from fer.data.splits import assign_splits
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, CONTEMPT, resolve_classes

OWN_LABELS = "the given labels"


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
        memory_gb: faces of which the pixels take more stay on the disk and are mapped into memory (see
            `fer.data.reader.read`).
        seed: of order and augmentation.
        labels: "fer2013" trains on the data set's own labels, "ferplus" on those that FER+ votes for (see
            `fer.data.ferplus`); rows whose label is none of the classes, or that FER+ calls unknown or not a face, are
            left out of training.
        eval_labels: the same for validation and test rows; None takes `labels`. Which row is in which split does not
            depend on either.
        ferplus_path: the votes, `fer2013new.csv`; fetched when it is missing and `download` is on.
        ferplus_target: what training with "ferplus" aims at: "majority", the label with most votes; "soft", the votes
            as a distribution over the classes; "any", whichever label the network finds likeliest of those that many
            voted for. Metrics always take the label with most votes.
        fer2013_weight: share of FER2013's own label in the targets of "ferplus"; the rest is `ferplus_target`.
        ferplus_auxiliary: above 0, training targets are float (B, C + 10): behind those of the classes stand the shares
            of FER+'s ten votes, for a second task of that weight in the loss. Whatever `labels` is.
        exclude: a `cleaning.csv` of `fer.data.clean`; None keeps every row.
        exclude_reasons: why rows are left out (keys of `fer.data.exclude.REASONS`); None for those that are facts about
            pictures.
        groups: what `fer.data.group_file.read_groups` reads: the groups of people that the report tells apart.
        exclude_action: "drop" trains without the listed rows; "relabel" gives them the label that the list suggests,
            and drops those for which it suggests none. Validation and test rows all stay; `clean` tells them apart.
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
        memory_gb: float = 1.0,
        labels: str = "fer2013",
        eval_labels: str | None = None,
        ferplus_path: str | Path = "data/fer2013new.csv",
        ferplus_target: str = "majority",
        fer2013_weight: float = 0.0,
        ferplus_auxiliary: float = 0.0,
        exclude: str | Path | None = None,
        exclude_reasons: Sequence[str] | None = None,
        exclude_action: str = "drop",
        groups: str | Path | None = None,
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
        self.memory = memory_gb * 1e9
        self.seed = seed
        self.labels = labels
        self.eval_labels = eval_labels or labels
        self.ferplus_path = Path(ferplus_path).expanduser()
        self.ferplus_target = ferplus_target
        self.fer2013_weight = fer2013_weight
        self.ferplus_auxiliary = ferplus_auxiliary
        self.exclude = exclude
        self.exclude_reasons = None if exclude is None else check_reasons(exclude_reasons)
        self.exclude_action = exclude_action
        self.groups = groups
        if CONTEMPT in self.classes and labels != "ferplus":
            raise UserError(f"data.classes: only FER+ votes for {CONTEMPT}; add data.labels=ferplus, or leave it out")
        self._faces: Faces | None = None
        self._listed: npt.NDArray[np.bool_] | None = None
        self._groups: dict[str, Groups] = {}
        self._soft_targets: Tensor | None = None
        self._vote_shares: Tensor | None = None
        self._train_loader: FaceLoader | None = None
        self._resume: dict[str, int] | None = None

    @property
    def files(self) -> list[Path]:
        """What `setup` reads and `prepare_data` can fetch."""
        return [*([] if self.path is None else [self.path]), *([self.ferplus_path] if self._needs_votes else [])]

    def prepare_data(self) -> None:
        """Fetches FER2013 and the votes of FER+ where they are needed and missing (once, on one process)."""
        if self.path is not None and not self.path.exists():
            if not self.may_download:
                raise UserError(
                    f"data.path={self.path} does not exist and data.download is off; "
                    "put fer2013.csv there, give another data.path, or try data=synthetic"
                )
            download(self.path)
        if self._needs_votes and not self.ferplus_path.exists():
            if not self.may_download:
                raise UserError(
                    f"data.ferplus_path={self.ferplus_path} does not exist and data.download is off; put the FER+ "
                    "votes fer2013new.csv there, or leave data.labels=ferplus out"
                )
            download_votes(self.ferplus_path)

    def setup(self, stage: str | None = None) -> None:
        """Reads the rows of the chosen classes, divides them into splits, and labels them."""
        if self._faces is not None:
            return
        if self.path is not None:
            faces = read(self.path, memory=self.memory)
        else:
            faces = make_faces(**self.synthetic, seed=self.split_seed)
        labels = {"fer2013": faces.labels}
        votes = None
        if self._needs_votes:
            votes = votes_of(faces, read_votes(self.ferplus_path), self.ferplus_path)
            labels["ferplus"] = winner(votes)
        groups = {} if self.groups is None else read_groups(self.groups, faces.rows)
        exclusion = None if self.exclude is None else read_list(self.exclude, faces, self.exclude_reasons)

        codes = [ALL_EMOTIONS.index(name) for name in self.classes]
        wanted = np.isin(labels[self.labels], codes) | np.isin(labels[self.eval_labels], codes)
        # Divided before anything is relabelled or excluded: runs with other labels are judged on the same rows.
        divided = assign_splits(faces.select(wanted), **self.split, seed=self.split_seed)  # type: ignore[arg-type]
        train = divided.splits == TRAIN
        label = np.where(train, labels[self.labels][wanted], labels[self.eval_labels][wanted])
        kept = np.ones(len(divided), np.bool_)
        if exclusion is not None:
            exclusion = Exclusion(exclusion.listed[wanted], exclusion.suggested[wanted])
            relabelled = train & (exclusion.suggested >= 0) & (self.exclude_action == "relabel")
            label[relabelled] = exclusion.suggested[relabelled]
            kept = ~(train & exclusion.listed) | relabelled
        kept &= np.isin(label, codes)
        if not (train & kept).any():
            raise UserError("no training rows are left; check data.classes, data.labels and data.exclude_reasons")
        own = divided.labels[kept]
        self._faces = dataclasses.replace(divided.select(kept), labels=label[kept])
        self._listed = None if exclusion is None else exclusion.listed[kept]
        self._groups = {name: group[wanted][kept] for name, group in groups.items()}
        if votes is not None:
            train = self._faces.splits == TRAIN
            votes = votes[wanted][kept][train]
            if self.labels == "ferplus":
                self._soft_targets = self._make_soft_targets(votes, own[train])
            if self.ferplus_auxiliary > 0:
                self._vote_shares = torch.from_numpy(votes / votes.sum(axis=1, keepdims=True)).float()

    @property
    def _needs_votes(self) -> bool:
        return "ferplus" in (self.labels, self.eval_labels) or self.ferplus_auxiliary > 0

    def _make_soft_targets(self, votes: npt.NDArray[np.int64], own: npt.NDArray[np.int64]) -> Tensor | None:
        """Targets of the training rows, float32 (N, C); None where the hard labels say it all."""
        if self.ferplus_target == "majority" and self.fer2013_weight == 0:
            return None
        if self.ferplus_target == "majority":
            targets = nn.functional.one_hot(self.tensors(TRAIN)[1], len(self.classes)).float()
        else:
            make = voted if self.ferplus_target == "any" else distribution
            targets = torch.from_numpy(make(votes, self.classes))
        of_class = torch.from_numpy(self._class_of_emotion()[own])
        known = of_class >= 0  # FER2013's own label may be none of the classes
        mixed = nn.functional.one_hot(of_class[known], len(self.classes)).float()
        targets[known] = torch.lerp(targets[known], mixed, self.fer2013_weight)
        return targets

    def _class_of_emotion(self) -> npt.NDArray[np.int64]:
        return np.array([self.classes.index(name) if name in self.classes else -1 for name in ALL_EMOTIONS], np.int64)

    def clean(self, code: int) -> npt.NDArray[np.bool_] | None:
        """For each row of a split whether it is not on the list of `exclude`; None without one."""
        return None if self._listed is None else ~self._listed[self.faces.splits == code]

    def groups_of(self, code: int) -> dict[str, Groups]:
        """The group of each row of a split, by grouping; nothing without `groups`."""
        return {name: groups[self.faces.splits == code] for name, groups in self._groups.items()}

    def describe_labels(self) -> dict[str, str]:
        """In words, whose labels the rows of training and of evaluation have: keys "train" and "evaluation"."""
        names = {"fer2013": OWN_LABELS, "ferplus": "FER+ majority"}
        train = names[self.labels]
        if self.labels == "ferplus":
            kinds = {
                "majority": "FER+ majority",
                "soft": "FER+ vote distribution",
                "any": "any label voted for in FER+",
            }
            train = kinds[self.ferplus_target]
            if self.fer2013_weight > 0:
                train = f"{1 - self.fer2013_weight:g} {train} + {self.fer2013_weight:g} {OWN_LABELS}"
        if self.ferplus_auxiliary > 0:
            train += f", and FER+'s votes as a second task of weight {self.ferplus_auxiliary:g}"
        return {"train": train, "evaluation": names[self.eval_labels]}

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
        return torch.from_numpy(rows.images).unsqueeze(1), torch.from_numpy(self._class_of_emotion()[rows.labels])

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Rows per split and class: {"train": {"angry": 3995, ...}, ...}; splits without rows are left out."""
        counts = {}
        for code, split in SPLIT_NAMES.items():
            labels = self.faces.labels[self.faces.splits == code]
            if len(labels):
                counts[split] = {name: int((labels == ALL_EMOTIONS.index(name)).sum()) for name in self.classes}
        return counts

    def statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels, both in [0, 1]."""
        images = self.rows(TRAIN).images
        # Some faces at a time: a float copy of all pixels would take four times the memory of the data set.
        chunks = [images[start : start + 4096] for start in range(0, len(images), 4096)]
        means = np.concatenate([chunk.mean(axis=(1, 2)) for chunk in chunks])
        variances = np.concatenate([chunk.var(axis=(1, 2), dtype=np.float32) for chunk in chunks])
        return float(means.mean() / 255), float(np.sqrt(variances.mean() + means.var()) / 255)

    def class_weights(self) -> Tensor | None:
        """Weights for the loss, float32 (C,), rare classes more; None unless `balance` is "loss"."""
        if self.balance != "loss":
            return None
        counts = torch.tensor([float(n) for n in self.class_counts()["train"].values()])
        return counts.sum() / (len(counts) * counts.clamp(min=1))

    def train_dataloader(self) -> FaceLoader:
        """Shuffled, or drawn with equal chances for every class; targets are float (B, C) where labels are soft, and
        (B, C + 10) with `ferplus_auxiliary`."""
        images, targets = self.tensors(TRAIN)
        weights = None
        if self.balance == "sampler":
            weights = (1 / torch.bincount(targets, minlength=len(self.classes)).double())[targets]
        targets = targets if self._soft_targets is None else self._soft_targets
        if self._vote_shares is not None:
            if targets.ndim == 1:
                targets = nn.functional.one_hot(targets, len(self.classes)).float()
            targets = torch.cat([targets, self._vote_shares], dim=1)
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
