"""`EmotionClassifier`, the LightningModule: an EmotionNetwork with its loss and its metrics.

Knows nothing of files, augmentation or the command line. The optimiser is handed in as a function.
"""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from fer.checkpoint import SPEC_KEY
from fer.errors import UserError
from fer.labels import VOTED_ON
from fer.models.network import EmotionNetwork

ConfigureOptimizers = Callable[["EmotionClassifier"], Any]


class EmotionClassifier(L.LightningModule):
    """Trains and validates an `EmotionNetwork` by cross-entropy. Its metrics are logged for callbacks, by epoch.

    Args:
        network: raw uint8 faces to logits.
        configure: returns what Lightning's `configure_optimizers` may return; None for a module that only predicts.
        label_smoothing: of the training loss (Szegedy et al., arXiv 1512.00567); validation loss is plain.
        class_weights: float (C,), weights of the classes in the training loss.
        any_target: targets are float (B, C), and whichever class above 0 the network finds likeliest is the one to
            learn (Barsoum et al., arXiv 1608.01041, multi-label learning).
        auxiliary: weight of a second task, to tell how people voted on the face from what the network's last linear
            layer sees (auxiliary supervision, as in Caruana, "Multitask learning", 1997). Training targets are then
            float (B, C + 10), the shares of the votes last. The layer for it is trained with the network and left
            out of it; inference knows nothing of it.
    """

    def __init__(
        self,
        network: EmotionNetwork,
        configure: ConfigureOptimizers | None = None,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        any_target: bool = False,
        auxiliary: float = 0.0,
    ) -> None:
        super().__init__()
        # Channels-last weights make the convolutions run on the fast path of CPUs and GPUs. Here, before anybody copies
        # the network (averaging) or makes buffers of its shape (DDP).
        self.network = network.to(memory_format=torch.channels_last)
        self._configure = configure
        self.provenance: dict[str, Any] = {}  # plain data on what made the weights, for the checkpoint
        self.any_target = any_target
        self.loss = nn.CrossEntropyLoss(weight=class_weights, label_smoothing=label_smoothing)
        self.auxiliary = auxiliary
        if auxiliary > 0:
            last = _last_linear(network)
            self.votes_head = nn.Linear(last.in_features, len(VOTED_ON))
            last.register_forward_pre_hook(self._keep_features)
        metrics = headline_metrics(len(network.spec.classes))
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = metrics.clone(prefix="val/")
        self.val_loss = MeanMetric()  # Lightning's own mean over processes rounds the number of rows per process

    def forward(self, faces: Tensor) -> Tensor:
        """Logits (B, C) of raw faces, uint8 (B, 1, H, W)."""
        logits: Tensor = self.network(faces)
        return logits

    def configure_optimizers(self) -> Any:
        """What the function given as `configure` returns."""
        assert self._configure is not None, "this module was loaded to predict, not to train"
        return self._configure(self)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one augmented batch; targets are int64 (B,), or float (B, C) if soft or mixed, or (B, C + 10)."""
        faces, targets = batch
        logits = self(faces)
        votes = targets[:, logits.shape[1] :] if self.auxiliary > 0 else None
        if votes is not None:
            targets = targets[:, : logits.shape[1]]
        hard = targets if targets.ndim == 1 else targets.argmax(dim=1)
        if self.any_target:
            targets = logits.detach().masked_fill(targets == 0, -torch.inf).argmax(dim=1)
        loss: Tensor = self.loss(logits, targets)
        self.train_metrics.update(logits.detach(), hard)
        epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(faces), "logger": False}
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, **epoch)  # of the first task, as val/loss is
        if votes is not None:
            of_votes = nn.functional.cross_entropy(self.votes_head(self._features), votes)
            self.log("train/loss_of_votes", of_votes, sync_dist=True, **epoch)
            loss = loss + self.auxiliary * of_votes
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], sync_dist=True, **epoch)
        self.log_dict(self.train_metrics, **epoch)
        return loss

    def _keep_features(self, last: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Metrics and plain cross-entropy of one batch."""
        faces, targets = batch
        logits = self(faces)
        self.val_metrics.update(logits, targets)
        self.val_loss.update(nn.functional.cross_entropy(logits.float(), targets), len(faces))
        epoch: dict[str, Any] = {"batch_size": len(faces), "logger": False}
        self.log("val/loss", self.val_loss, prog_bar=True, **epoch)
        self.log("val/accuracy", self.val_metrics["accuracy"], prog_bar=True, **epoch)
        others = {f"val/{name}": self.val_metrics[name] for name in ("f1", "precision", "recall")}
        self.log_dict(others, **epoch)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Float32 logits (B, C) and the targets (B,)."""
        faces, targets = batch
        return self(faces).float(), targets

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description that lets the file be loaded on its own (see `fer.checkpoint`)."""
        checkpoint[SPEC_KEY] = self.network.spec.to_dict() | {"provenance": self.provenance}


def _last_linear(network: EmotionNetwork) -> nn.Linear:
    """The layer that makes the logits."""
    linear = [module for module in network.backbone.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != len(network.spec.classes):
        raise UserError(
            f"data.ferplus_auxiliary: {network.spec.name} does not end in a linear layer; leave it at 0, or take "
            "another network"
        )
    return linear[-1]


def headline_metrics(num_classes: int) -> MetricCollection:
    """Accuracy over all images, and F1, precision and recall as the mean over classes."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "f1": MulticlassF1Score(num_classes, average="macro"),
            "precision": MulticlassPrecision(num_classes, average="macro"),
            "recall": MulticlassRecall(num_classes, average="macro"),
        }
    )
