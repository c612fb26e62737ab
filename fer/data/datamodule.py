"""`FER2013DataModule`: a data set on disk, or drawn by the program, as batches of augmented faces.

Knows nothing of networks. The one place where classes, labels, splits, balance and augmentation meet.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from fer.data.augment import Augment, Degrade, as_distributions, mixup
from fer.data.download import download, download_votes
from fer.data.exclude import Exclusion, check_reasons, read_list
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.ferplus import distribution, read_votes, voted, votes_of, winner
from fer.data.folder import resized
from fer.data.group_file import Groups, read_groups
from fer.data.join import join, short_names
from fer.data.loader import FaceLoader
from fer.data.official import use_official
from fer.data.reader import read
from fer.data.splits import assign_splits
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.files import at_home
from fer.labels import ALL_EMOTIONS, CONTEMPT, OWN_LABELS, emotions_with
from fer.settings.train import DataSettings


class FER2013DataModule(L.LightningDataModule):
    """Faces in memory, batches by index, augmentation per batch on the device.

    Args:
        settings: what is read, how it is divided, labelled and augmented.
        seed: of order and augmentation.
        judging: the classes are a trained network's, and nothing is trained: the data need not have training rows, nor
            all of the classes (`absent`).

    Attributes:
        classes: names, in the order of the targets; without those that are `absent`.
        absent: classes of which the data have no face, where that is no mistake (`judging`).
        unknown: faces of the source that show none of the classes, by emotion.
        ask: from faces (B, 1, S, S) to probabilities float (B, C): what teachers say. Training targets have the answers
            in C more columns. None adds none.
        ask_once: about each training face as it is; else about the augmented faces of every batch, before they are
            degraded: a student that sees less is to say the same.
        recorded: does what `augmented` does, in another way (see `fer.training.graphs`); None: as it is.
    """

    def __init__(self, settings: DataSettings, seed: int = 0, judging: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.judging = judging
        self.classes = settings.class_names
        self.absent: tuple[str, ...] = ()
        self.unknown: dict[str, int] = {}
        self.augment = None if settings.augment is None else Augment(**settings.augment.model_dump())
        self.eval_labels = settings.eval_labels or settings.labels
        self.ferplus_path = at_home(settings.ferplus_path)
        self.exclude_reasons = None if settings.exclude is None else check_reasons(settings.exclude_reasons)
        self.degrade = Degrade(settings.degrade) if settings.degrade > 0 else None
        self.ask: Callable[[Tensor], Tensor] | None = None
        self.ask_once = False
        self.recorded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        self._answers: Tensor | None = None
        self._faces: Faces | None = None
        self._listed: npt.NDArray[np.bool_] | None = None
        self._groups: dict[str, Groups] = {}
        self._soft_targets: Tensor | None = None
        self._vote_shares: Tensor | None = None
        self._train_loader: FaceLoader | None = None
        self._resume: dict[str, int] | None = None

    @property
    def source(self) -> str:
        """What messages call the data."""
        return self.settings.source if self.settings.paths else "drawn faces"

    @property
    def files(self) -> list[Path]:
        """What `setup` reads and `prepare_data` can fetch."""
        return [*self.settings.paths, *([self.ferplus_path] if self.settings.needs_votes else [])]

    def prepare_data(self) -> None:
        """Fetches FER2013 and the votes of FER+ where they are needed and missing (once, on one process)."""
        if missing := list(self.settings.missing()):
            raise UserError("\n".join(missing))
        for path in self.settings.paths:
            download(path)
        if self.settings.needs_votes:
            download_votes(self.ferplus_path)

    def setup(self, stage: str | None = None) -> None:
        """Reads the rows, divides them into splits, and chooses and labels those of the classes."""
        if self._faces is not None:
            return
        faces, placed = self._read()
        known = placed.copy()
        labels = {"fer2013": faces.labels}
        votes = None
        if self.settings.needs_votes:
            votes = votes_of(faces, read_votes(self.ferplus_path), self.ferplus_path)
            labels["ferplus"] = winner(votes)
            known &= votes.any(axis=1)
        groups = {} if self.settings.groups is None else read_groups(self.settings.groups, faces.ids)
        exclusion = None
        if self.settings.exclude is not None:
            exclusion = read_list(self.settings.exclude, faces, self.exclude_reasons)

        codes = [faces.emotions.index(name) for name in self.classes]
        own, judged = labels[self.settings.labels], labels[self.eval_labels]
        asked = CONTEMPT in self.classes and self.settings.labels != "ferplus" and not self.judging
        if asked and not (own == ALL_EMOTIONS.index(CONTEMPT)).any():
            raise UserError(
                f"data.classes: {self.source} has no {CONTEMPT}; for FER2013 add data.labels=ferplus, "
                "which votes for it, or leave it out"
            )
        others = judged[known & ~np.isin(judged, codes) & (judged < len(faces.emotions))]
        self.unknown = {faces.emotions[code]: int((others == code).sum()) for code in np.unique(others).tolist()}
        wanted = known & (np.isin(own, codes) | np.isin(judged, codes))
        if self.judging and not wanted.any():
            raise UserError(
                f"{self.source} holds no face of {', '.join(self.classes)}; give other data, or other classes"
            )
        # Divided before rows are chosen or relabelled: runs of other classes or labels are judged on the same rows.
        divided = self._divide(faces, placed, codes).select(wanted)
        train = divided.splits == TRAIN
        label = np.where(train, own[wanted], judged[wanted])
        kept = np.ones(len(divided), np.bool_)
        if exclusion is not None:
            exclusion = Exclusion(exclusion.listed[wanted], exclusion.suggested[wanted])
            relabelled = train & (exclusion.suggested >= 0) & (self.settings.exclude_action == "relabel")
            label[relabelled] = exclusion.suggested[relabelled]
            kept = ~(train & exclusion.listed) | relabelled
        kept &= np.isin(label, codes)
        if not (train & kept).any() and not self.judging:
            raise UserError("no training rows are left; check data.classes, data.labels and data.exclude_reasons")
        given = divided.labels[kept]
        self._faces = dataclasses.replace(divided.select(kept), labels=label[kept])
        if self.judging:
            self._leave_out_absent()
        self._listed = None if exclusion is None else exclusion.listed[kept]
        self._groups = {name: group[wanted][kept] for name, group in groups.items()}
        if votes is not None:
            train = self._faces.splits == TRAIN
            votes = votes[wanted][kept][train]
            if self.settings.labels == "ferplus":
                self._soft_targets = self._make_soft_targets(votes, given[train])
            if self.settings.ferplus_auxiliary > 0:
                self._vote_shares = torch.from_numpy(votes / votes.sum(axis=1, keepdims=True)).float()

    def _read(self) -> tuple[Faces, npt.NDArray[np.bool_]]:
        """All faces, and whether each has a place in a split."""
        asked = self.settings
        if not asked.paths:
            faces = resized(make_faces(**asked.synthetic.model_dump(), seed=asked.split_seed), asked.size)
            return faces, np.ones(len(faces), np.bool_)
        sources = []
        for path in asked.paths:
            faces = read(
                path,
                memory=asked.memory_gb * 1e9,
                size=asked.size,
                layout=asked.layout,
                names=asked.names,
                emotions=emotions_with(self.classes),
            )
            known = np.ones(len(faces), np.bool_)
            if asked.split in ("official", "holdout"):
                faces, known = use_official(faces, str(path))
            sources.append((faces, known))
        if len(sources) == 1:
            return sources[0]
        placed = [faces if known.all() else faces.select(known) for faces, known in sources]
        joined = join(placed, short_names(asked.paths), asked.memory_gb * 1e9)
        return joined, np.ones(len(joined), np.bool_)

    def _leave_out_absent(self) -> None:
        """Takes classes without any face out of `classes`."""
        shown = np.unique(self.faces.labels)
        present = [name for name in self.classes if self.faces.emotions.index(name) in shown]
        self.absent = tuple(name for name in self.classes if name not in present)
        self.classes = tuple(present)

    def _divide(self, faces: Faces, placed: npt.NDArray[np.bool_], codes: Sequence[int]) -> Faces:
        """The faces with the splits that they are used in; UNSPLIT where they are not `placed`."""
        asked = self.settings
        divided = assign_splits(
            faces if placed.all() else faces.select(placed),
            split=asked.split,
            val_fraction=asked.val_fraction,
            test_fraction=asked.test_fraction,
            folds=asked.folds,
            fold=asked.fold,
            seed=asked.split_seed,
            training=not self.judging,
            classes=codes,
        )
        splits = np.full(len(faces), UNSPLIT, np.int8)
        splits[placed] = divided.splits
        return dataclasses.replace(faces, splits=splits)

    def _make_soft_targets(self, votes: npt.NDArray[np.int64], own: npt.NDArray[np.int64]) -> Tensor | None:
        """Targets of the training rows, float32 (N, C); None where the hard labels say it all."""
        if self.settings.ferplus_target == "majority" and self.settings.fer2013_weight == 0:
            return None
        if self.settings.ferplus_target == "majority":
            targets = as_distributions(self.tensors(TRAIN)[1], len(self.classes))
        else:
            make = voted if self.settings.ferplus_target == "any" else distribution
            targets = torch.from_numpy(make(votes, self.classes))
        of_class = torch.from_numpy(self._class_of_emotion()[own])
        known = of_class >= 0  # FER2013's own label may be none of the classes
        mixed = as_distributions(of_class[known], len(self.classes))
        targets[known] = torch.lerp(targets[known], mixed, self.settings.fer2013_weight)
        return targets

    def _class_of_emotion(self) -> npt.NDArray[np.int64]:
        names = self.faces.emotions
        return np.array([self.classes.index(name) if name in self.classes else -1 for name in names], np.int64)

    def division(self) -> str:
        """How the rows were divided, in words."""
        asked = self.settings
        return f"split {asked.split}" if asked.folds is None else f"fold {asked.fold} of {asked.folds}"

    def digest(self) -> str:
        """SHA-256 over pixels, labels and splits of all rows, in hex."""
        found = hashlib.sha256()
        for part in (self.faces.images, self.faces.labels, self.faces.splits):
            found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()

    def clean(self, split: int) -> npt.NDArray[np.bool_] | None:
        """For each row of a split whether it is not on the list of `exclude`; None without one."""
        return None if self._listed is None else ~self._listed[self.faces.splits == split]

    def groups_of(self, split: int) -> dict[str, Groups]:
        """The group of each row of a split, by grouping; nothing without `groups`."""
        return {name: groups[self.faces.splits == split] for name, groups in self._groups.items()}

    def describe_labels(self) -> dict[str, str]:
        """In words, whose labels the rows of training and of evaluation have: keys "train" and "evaluation"."""
        names = {"fer2013": OWN_LABELS, "ferplus": "FER+ majority"}
        train = names[self.settings.labels]
        if self.settings.labels == "ferplus":
            kinds = {
                "majority": "FER+ majority",
                "soft": "FER+ vote distribution",
                "any": "any label voted for in FER+",
            }
            train = kinds[self.settings.ferplus_target]
            if self.settings.fer2013_weight > 0:
                train = f"{1 - self.settings.fer2013_weight:g} {train} + {self.settings.fer2013_weight:g} {OWN_LABELS}"
        if self.settings.ferplus_auxiliary > 0:
            train += f", and FER+'s votes as a second task of weight {self.settings.ferplus_auxiliary:g}"
        return {"train": train, "evaluation": names[self.eval_labels]}

    @property
    def faces(self) -> Faces:
        """All rows of the chosen classes, after `setup`."""
        assert self._faces is not None, "call setup() first"
        return self._faces

    def rows(self, split: int) -> Faces:
        """The rows of one split (TRAIN, VAL or TEST of `fer.data.faces`)."""
        return self.faces.select(self.faces.splits == split)

    def tensors(self, split: int) -> tuple[Tensor, Tensor]:
        """One split as faces uint8 (N, 1, S, S) and targets int64 (N,), positions in `classes`."""
        rows = self.rows(split)
        return torch.from_numpy(rows.images).unsqueeze(1), torch.from_numpy(self._class_of_emotion()[rows.labels])

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Rows per split and class: {"train": {"angry": 3995, ...}, ...}; splits without rows are left out."""
        counts = {}
        for split, name in SPLIT_NAMES.items():
            labels = self.faces.labels[self.faces.splits == split]
            if len(labels):
                counts[name] = {each: int((labels == self.faces.emotions.index(each)).sum()) for each in self.classes}
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
        if self.settings.balance != "loss":
            return None
        counts = torch.tensor([float(n) for n in self.class_counts()["train"].values()])
        return counts.sum() / (len(counts) * counts.clamp(min=1))

    def train_dataloader(self) -> FaceLoader:
        """Shuffled, or drawn with equal chances for every class; targets are float (B, C) where labels are soft, and
        10 columns more with `ferplus_auxiliary`, C more with `ask`."""
        images, targets = self.tensors(TRAIN)
        weights = None
        if self.settings.balance == "sampler":
            weights = (1 / torch.bincount(targets, minlength=len(self.classes)).double())[targets]
        targets = targets if self._soft_targets is None else self._soft_targets
        if self.ask is not None and self.ask_once and self._answers is None:
            self._answers = self._asked(self.ask, images)
        beside = [more for more in (self._vote_shares, self._answers) if more is not None]
        if beside:
            targets = torch.cat([as_distributions(targets, len(self.classes)), *beside], dim=1)
        self._train_loader = self._loader(images, targets, self.settings.batch_size, shuffle=True, weights=weights)
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
        return self._train_loader

    def _asked(self, ask: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Answers about all images, float32 (N, C), in the memory of the CPU."""
        batches = torch.split(images, self.settings.batch_size)
        if self.trainer is None:
            return torch.cat([ask(batch) for batch in batches])
        device = self.trainer.strategy.root_device
        with self.trainer.precision_plugin.forward_context():  # as in training
            return torch.cat([ask(batch.to(device)).cpu() for batch in batches])

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch. Lightning keeps it too, but forgets it when a schedule asks for the step count."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lets the training loader begin where the checkpoint was written."""
        self._resume = state_dict or None

    def val_dataloader(self) -> FaceLoader:
        """In the source's order."""
        return self._loader(*self.tensors(VAL), 4 * self.settings.batch_size)

    def test_dataloader(self) -> FaceLoader:
        """In the source's order."""
        return self._loader(*self.tensors(TEST), 4 * self.settings.batch_size)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Augments training batches on the device they are on, and asks teachers about them."""
        if self.trainer is None or not self.trainer.training:
            return batch
        return (self.recorded or self.augmented)(*batch)

    def augmented(self, faces: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A training batch as the network gets it; a function of tensors that can be recorded.

        Args:
            faces: uint8 (B, 1, S, S).
            targets: as the training loader has them.
        """
        for change in self.changes():
            faces, targets = change(faces, targets)
        return faces, targets

    def changes(self) -> list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        """What is done to a training batch, in order."""
        augment, ask, degrade = self.augment, self.ask, self.degrade
        changes: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
        if augment is not None:
            changes.append(lambda faces, targets: (augment(faces), targets))
        if self.settings.mixup_alpha > 0:
            changes.append(self._mixed)
        if ask is not None and not self.ask_once:
            changes.append(lambda faces, targets: (faces, self._answered(ask, faces, targets)))
        if degrade is not None:
            changes.append(lambda faces, targets: (degrade(faces.float()), targets))
        return changes

    def _mixed(self, faces: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return mixup(faces.float(), targets, len(self.classes), self.settings.mixup_alpha)

    def _answered(self, ask: Callable[[Tensor], Tensor], faces: Tensor, targets: Tensor) -> Tensor:
        assert self.trainer is not None
        with self.trainer.precision_plugin.forward_context():  # as in training
            answers = ask(faces)
        return torch.cat([as_distributions(targets, len(self.classes)), answers], dim=1)

    def _loader(self, images: Tensor, targets: Tensor, batch_size: int, **options: Any) -> FaceLoader:
        options["seed"] = self.seed
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            options.update(rank=self.trainer.global_rank, world_size=self.trainer.world_size, device=device)
            # Else each batch would be copied to the GPU, and waited for.
            if device.type == "cuda" and images.nbytes <= self.settings.memory_gb * 1e9:
                images, targets = images.to(device), targets.to(device)
        return FaceLoader(images, targets, batch_size, **options)


def print_class_counts(datamodule: FER2013DataModule) -> None:
    """What the data are and a table of the rows per class and split, on standard output."""
    counts = datamodule.class_counts()
    labels = datamodule.describe_labels()
    title = f"{datamodule.source}, {datamodule.division()}"
    if set(labels.values()) != {OWN_LABELS}:
        title += f", labels: {labels['train']}, judged by {labels['evaluation']}"
    console = Console()
    # No title of the table, which would be broken to its width.
    console.print(f"Data: {title}", highlight=False, markup=False, soft_wrap=True)
    table = Table()
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for name in datamodule.classes:
        table.add_row(escape(name), *(f"{rows[name]:,}" for rows in counts.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(rows.values()):,}" for rows in counts.values()))
    console.print(table)
