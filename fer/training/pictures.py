"""The pictures of a run while it trains: in plots/, and in TensorBoard where that is written."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor

from fer.classifier import EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.files import as_png
from fer.sheets import gallery
from fer.tensorboard import RunLogger
from fer.training import plots
from fer.training.callbacks import History

_SHARE = 0.1  # of the time that drawing may take: where epochs take a second or two, not every one is drawn
_FIRST_S = 5  # without a picture; what is done by then is drawn once
_FACES = 16  # of the validation split whose answers are shown


def save_samples(datamodule: FER2013DataModule, file: Path) -> bytes:
    """Five random training faces per class, beside their augmented copies; returns the PNG."""
    faces, targets = datamodule.tensors(TRAIN)
    rng = np.random.default_rng(datamodule.seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(targets.numpy() == index))[:5] for index in range(len(datamodule.classes))]
    )
    originals = faces[torch.from_numpy(chosen)]
    augmented = originals
    if datamodule.augment is not None:
        with torch.random.fork_rng(devices=[]):
            augmented = datamodule.augment(originals).to(torch.uint8)
    return plots.save_samples(
        file, originals[:, 0].numpy(), augmented[:, 0].numpy(), targets.numpy()[chosen], datamodule.classes
    )


class EpochPictures(Callback):
    """Draws after an epoch, so that a training can be watched: progress, confusion matrix, answers to some faces.

    Args:
        directory: of training_progress.png and confusion_matrix_val.png; the report will replace the latter.
        history: the rows to draw; has to come before in the trainer's list.
    """

    def __init__(self, directory: Path, history: History) -> None:
        self._directory = directory
        self._history = history
        self._drawn = -1  # the last epoch that was
        self._next = time.monotonic() + _FIRST_S
        self._answers: list[tuple[Tensor, ...]] = []  # faces, targets and logits of some batches

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keeps, on the device, what the network says of the first faces of some batches from all over the split."""
        if batch_idx == 0:
            self._answers = []
        batches = int(trainer.num_val_batches[0])
        if trainer.is_global_zero and outputs is not None and batch_idx % max(1, batches // _FACES) == 0:
            count = -(-_FACES // batches)
            self._answers.append(tuple(tensor[:count].clone() for tensor in (*batch, outputs)))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws, where the last picture is not too fresh."""
        if time.monotonic() >= self._next:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draws the last epoch."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, EmotionClassifier)
        rows = self._history.rows
        if not trainer.is_global_zero or not rows or rows[-1]["epoch"] == self._drawn:
            return
        started = time.monotonic()
        self._drawn, step = int(rows[-1]["epoch"]), int(rows[-1]["step"]) - 1
        loggers = [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]
        early = stopped_early(trainer, self._drawn) is not None
        plots.save_training_progress(self._directory / "training_progress.png", rows, early)
        if "val/accuracy" in rows[-1] and module.val_confusion:
            classes = module.network.spec.classes
            title = f"val after epoch {self._drawn + 1}: accuracy {rows[-1]['val/accuracy']:.3f}"
            file = self._directory / "confusion_matrix_val.png"
            matrix = plots.save_confusion_matrix(file, module.val_confusion, classes, title)
            for logger in loggers:
                logger.log_picture("while_training/confusion_matrix_val", matrix, step)
            if loggers and self._answers:
                faces, targets, logits = (torch.cat(parts)[:_FACES] for parts in zip(*self._answers, strict=True))
                probabilities = logits.float().softmax(dim=1).cpu().numpy()
                png = as_png(gallery(faces[:, 0].cpu().numpy(), targets.cpu().numpy(), probabilities, classes, title))
                for logger in loggers:
                    logger.log_picture("while_training/answers_val", png, step)
        for logger in loggers:
            logger.save()
        now = time.monotonic()
        self._next = now + (now - started) * (1 / _SHARE - 1)


def stopped_early(trainer: L.Trainer, epoch: int) -> EarlyStopping | None:
    """The callback that ended the training after this epoch, from 0, if one did and it was not the last one anyway."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch == epoch > 0:
            return callback if epoch + 1 != trainer.max_epochs else None
    return None
