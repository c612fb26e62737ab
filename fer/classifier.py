"""`EmotionClassifier`, the LightningModule: an EmotionNetwork with its loss and its metrics.

Knows nothing of files, augmentation or the command line. The optimiser is handed in as a function.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from fer.checkpoint import PREFIX, SEEN_KEY, SPEC_KEY, load_network
from fer.errors import UserError
from fer.labels import VOTED_ON
from fer.models.network import EmotionNetwork

ConfigureOptimizers = Callable[["EmotionClassifier"], Any]
Gradients = list[Tensor | None]  # one for each parameter that is trained
COUNTS_KEY = "train_counts"  # of a checkpoint from the middle of an epoch


@dataclass(frozen=True)
class Distillation:
    """The share that the answers of trained networks have in the training loss (Hinton et al., arXiv 1503.02531).

    Attributes:
        weight: that share, above 0 and up to 1; the labels have the rest.
        temperature: at which the answers were made, and the student's are compared with them.
    """

    weight: float
    temperature: float

    def loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        """The mean divergence of the student's answers, at the temperature, from others."""
        softened = nn.functional.log_softmax(logits.float() / self.temperature, dim=1)
        # Times the square, else its gradients would be the smaller the higher the temperature.
        return self.temperature**2 * nn.functional.kl_div(softened, answers, reduction="batchmean")


class CrossEntropy(nn.CrossEntropyLoss):
    """torch's mean cross-entropy, which of weighted classes with smoothed labels waits for the device at every step."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits (B, C) and targets int64 (B,), none of them to be ignored, or float (B, C)."""
        if self.weight is None or self.label_smoothing == 0 or targets.is_floating_point():
            return super().forward(logits, targets)
        # As torch computes it, but for the selection of labels that are not to be ignored.
        logarithms = nn.functional.log_softmax(logits.float(), dim=1)  # autocast leaves it in half precision on a CPU
        of_label = nn.functional.nll_loss(logarithms, targets, self.weight)
        of_all = -(logarithms * self.weight).sum(dim=1).sum() / self.weight.gather(0, targets).sum()
        return (1 - self.label_smoothing) * of_label + self.label_smoothing / logits.shape[1] * of_all


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
        distillation: what it learns from others besides, if anything.

    Attributes:
        recorded: does what `gradients` does, in another way (see `fer.training.graphs`); None: Lightning's loop goes
            forward and back itself.
    """

    def __init__(
        self,
        network: EmotionNetwork,
        configure: ConfigureOptimizers | None = None,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        any_target: bool = False,
        auxiliary: float = 0.0,
        distillation: Distillation | None = None,
    ) -> None:
        super().__init__()
        # Channels-last weights make the convolutions run on the fast path of CPUs and GPUs. Here, before anybody copies
        # the network (averaging) or makes buffers of its shape (DDP).
        self.network = network.to(memory_format=torch.channels_last)
        self._configure = configure
        self.provenance: dict[str, Any] = {}  # plain data on what made the weights, for the checkpoint
        self.seen: npt.NDArray[np.uint64] | None = None  # what they were trained on, see fer.data.seen, likewise
        self.any_target = any_target
        self.loss = CrossEntropy(weight=class_weights, label_smoothing=label_smoothing)
        self.auxiliary = auxiliary
        self._features: Tensor | None = None  # what the last linear layer saw, for the second task
        self.distillation = distillation
        if auxiliary > 0:
            last = _last_linear(network)
            self.votes_head = nn.Linear(last.in_features, len(VOTED_ON))
            last.register_forward_pre_hook(self._keep_features)
        self.recorded: Callable[[Tensor, Tensor], tuple[Tensor, Gradients]] | None = None
        self._gradients: Gradients = []
        self.counts = self._no_counts()
        self.val_counts = EpochCounts(len(network.spec.classes), [])
        self.validated = False  # in this epoch
        self.val_confusion: list[list[int]] = []  # of the last validation, of all processes: labels are rows
        self.val_metrics = headline_metrics(len(network.spec.classes))
        # Lightning's own mean over processes rounds the number of rows per process. A loss that is no number makes the
        # mean none; nan_strategy="disable" would do that, too, but leaves the number of rows out.
        self.val_loss = MeanMetric(nan_strategy=math.nan)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> "EmotionClassifier":
        """The module of a checkpoint of this project, to predict, validate or test; only the path is needed.

        Always read as plain data and strictly, whatever the arguments that Lightning's own method has say; its
        `map_location` is whatever torch.load takes.

        Raises:
            UserError: see `fer.checkpoint.load_network`.
        """
        network = load_network(checkpoint_path)
        if not isinstance(map_location, str | int | torch.device | None):
            # By where the tensors were when they were saved, which torch.load knows.
            saved = torch.load(checkpoint_path, map_location=map_location, weights_only=True)["state_dict"]
            map_location = next(tensor.device for name, tensor in saved.items() if name.startswith(PREFIX))
        return cls(network).to("cpu" if map_location is None else map_location)

    def forward(self, faces: Tensor) -> Tensor:
        """Logits (B, C) of raw faces, uint8 (B, 1, H, W)."""
        logits: Tensor = self.network(faces)
        return logits

    def configure_optimizers(self) -> Any:
        """What the function given as `configure` returns."""
        assert self._configure is not None, "this module was loaded to predict, not to train"
        return self._configure(self)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one augmented batch; targets are int64 (B,), or float (B, C) if soft or mixed.

        With a second task 10 more columns follow, then with distillation C more, the answers of others.
        """
        if self.recorded is None:
            loss = self._loss_of(*batch)
        else:
            loss, self._gradients = self.recorded(*batch)
        self.counts.step(float(self.trainer.optimizers[0].param_groups[0]["lr"]))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's way back; or what has been computed already becomes the parameters' gradients."""
        if self.recorded is None:
            super().backward(loss, *args, **kwargs)
        else:
            for parameter, gradient in zip(self._trained(), self._gradients, strict=True):
                parameter.grad = gradient

    def gradients(self, faces: Tensor, targets: Tensor) -> tuple[Tensor, Gradients]:
        """The loss of a batch, counted, and its gradients; a function of tensors that can be recorded.

        Not by `loss.backward()`: what adds gradients up belongs to the stream that it was made on.
        """
        kind = faces.device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        with torch.autocast(kind, dtype, enabled, cache_enabled=False):  # a cache would keep the first step's weights
            loss = self._loss_of(faces, targets)
        trained = self._trained()
        with torch.autocast(kind, enabled=False):
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
        self._features = None  # which would keep the step's graph alive
        # Like the parameters in memory, as the optimiser wants them.
        return loss.detach(), [
            gradient if gradient is None or gradient.stride() == parameter.stride() else _like(gradient, parameter)
            for gradient, parameter in zip(gradients, trained, strict=True)
        ]

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def _loss_of(self, faces: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, which is counted."""
        logits = self(faces)
        classes = logits.shape[1]
        answers = None if self.distillation is None else targets[:, -classes:]
        votes = targets[:, classes : classes + len(VOTED_ON)] if self.auxiliary > 0 else None
        if targets.ndim == 2:
            targets = targets[:, :classes]
        hard = targets if targets.ndim == 1 else targets.argmax(dim=1)
        if self.any_target:
            targets = logits.detach().masked_fill(targets == 0, -torch.inf).argmax(dim=1)
        loss: Tensor = self.loss(logits, targets)
        losses = [loss]  # of the first task, as val/loss is
        if self.distillation is not None and answers is not None:
            losses.append(self.distillation.loss(logits, answers))
            loss = (1 - self.distillation.weight) * loss + self.distillation.weight * losses[-1]
        if votes is not None:
            assert self._features is not None
            losses.append(nn.functional.cross_entropy(self.votes_head(self._features), votes))
            loss = loss + self.auxiliary * losses[-1]
        self.counts.add(logits, hard, losses)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the metrics of the epoch after its last batch."""
        # Not in `on_train_epoch_end`: the callbacks that read them are called before that.
        if self.trainer.is_last_batch or self.trainer.fit_loop.epoch_loop.done:
            total = self.counts.copied(self._sum)
            self.counts.clear()
            epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": 1, "logger": False}
            for name, value in total.metrics().items():
                self.log(f"train/{name}", value, prog_bar=name == "loss", sync_dist=True, **epoch)

    def recent_loss(self, batches: int) -> Tensor:
        """The mean training loss of so many batches, all of this epoch since the last call; on the device."""
        total = self._sum(self.counts.recent)
        self.counts.recent.zero_()
        return total / (batches * self.trainer.world_size)

    def _no_counts(self) -> "EpochCounts":
        losses = ["loss"]
        if self.distillation is not None:
            losses.append("loss_of_teacher")
        if self.auxiliary > 0:
            losses.append("loss_of_votes")
        return EpochCounts(len(self.network.spec.classes), losses)

    def _sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        total: Tensor = self.trainer.strategy.reduce(tensor.clone(), reduce_op="sum")
        return total

    def _keep_features(self, last: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Metrics and plain cross-entropy of one batch; returns its logits (B, C), for callbacks."""
        logits = self._judge(batch, "val")
        self.val_counts.add(logits, batch[1], [])
        return logits

    def on_train_epoch_start(self) -> None:
        """Forgets the last epoch's validation."""
        self.validated = False

    def on_validation_epoch_end(self) -> None:
        """Sums the confusion matrix over all processes."""
        self.validated = True
        total = self.val_counts.copied(self._sum)
        self.val_counts = EpochCounts(total.num_classes, [])
        self.val_confusion = total.confusion.reshape(total.num_classes, total.num_classes).tolist()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same of the test split."""
        self._judge(batch, "test")

    def _judge(self, batch: tuple[Tensor, Tensor], split: str) -> Tensor:
        faces, targets = batch
        logits: Tensor = self(faces)
        self.val_metrics.update(logits, targets)
        self.val_loss.update(nn.functional.cross_entropy(logits.float(), targets), len(faces))
        # While it trains, `History` writes an epoch's row itself.
        options: dict[str, Any] = {"batch_size": len(faces), "logger": self.trainer.state.fn != TrainerFn.FITTING}
        self.log(f"{split}/loss", self.val_loss, prog_bar=True, **options)
        self.log(f"{split}/accuracy", self.val_metrics["accuracy"], prog_bar=True, **options)
        self.log_dict({f"{split}/{name}": self.val_metrics[name] for name in ("f1", "precision", "recall")}, **options)
        return logits

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Float32 logits (B, C) and the targets (B,)."""
        faces, targets = batch
        return self(faces).float(), targets

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the description that lets the file be loaded on its own (see `fer.checkpoint`)."""
        checkpoint[SPEC_KEY] = self.network.spec.to_dict() | {"provenance": self.provenance}
        if self.seen is not None:
            checkpoint[SEEN_KEY] = torch.from_numpy(self.seen.view(np.int64))
        if self.counts.steps > 0:  # in the middle of an epoch
            checkpoint[COUNTS_KEY] = self.counts.copied(self._sum).state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting where the checkpoint was written."""
        if COUNTS_KEY in checkpoint:
            self.counts.load_state_dict(checkpoint[COUNTS_KEY], first=self.global_rank == 0)


def _last_linear(network: EmotionNetwork) -> nn.Linear:
    """The layer that makes the logits."""
    linear = [module for module in network.backbone.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != len(network.spec.classes):
        raise UserError(
            f"data.ferplus_auxiliary: {network.spec.name} does not end in a linear layer; leave it at 0, or take "
            "another network"
        )
    return linear[-1]


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(gradient)


class EpochCounts:
    """What a training epoch has come to so far, added up on the device: no step waits for it.

    Not in buffers of the module, since averaging would average them, and DDP overwrite them.

    Args:
        num_classes: C.
        losses: what they are called.
    """

    def __init__(self, num_classes: int, losses: Sequence[str]) -> None:
        self.num_classes = num_classes
        self.names = losses
        self.steps = 0
        self.rate = 0.0  # learning rate, summed over the steps
        # The confusion matrix as one row, C times the true class plus the predicted one. Not by bincount, which has to
        # ask the device how long its answer is. Apple's GPUs cannot do this with int64.
        self.confusion = torch.zeros(num_classes * num_classes, dtype=torch.int32)
        self.losses = [torch.zeros(()) for _ in losses]  # summed over the faces
        self.recent = torch.zeros(())  # the first loss, summed over the batches since `recent_loss` was asked for

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Tensor, losses: Sequence[Tensor]) -> None:
        """Counts a batch on the device: logits (B, C), targets int64 (B,), and its mean losses."""
        if self.confusion.device != logits.device:
            self.confusion = self.confusion.to(logits.device)
            self.losses = [total.to(logits.device) for total in self.losses]
            self.recent = self.recent.to(logits.device)
        cells = torch.add(logits.argmax(dim=1), targets, alpha=self.num_classes)
        self.confusion.index_add_(0, cells, torch.ones_like(cells, dtype=torch.int32))
        for total, loss in zip(self.losses, losses, strict=True):
            total.add_(loss, alpha=len(logits))
        if losses:
            self.recent.add_(losses[0])

    def step(self, rate: float) -> None:
        """Counts a step on the host: its learning rate."""
        self.steps += 1
        self.rate += rate

    def clear(self) -> None:
        """Begins anew, in the same memory, which a recorded step writes to."""
        self.steps, self.rate = 0, 0.0
        for tensor in (self.confusion, self.recent, *self.losses):
            tensor.zero_()

    def copied(self, by: Callable[[Tensor], Tensor]) -> "EpochCounts":
        """A copy, each tensor `by` a function: that sums it over processes, say, or brings it to the host."""
        counts = EpochCounts(self.num_classes, self.names)
        counts.steps, counts.rate = self.steps, self.rate
        counts.confusion, counts.recent, *counts.losses = map(by, [self.confusion, self.recent, *self.losses])
        return counts

    def metrics(self) -> dict[str, float]:
        """Means over the faces, by name. Waits for the device."""
        confusion = self.confusion.cpu()
        cells = torch.arange(len(confusion)).repeat_interleave(confusion)  # one for each face
        metrics = headline_metrics(self.num_classes, sync_on_compute=False)
        metrics.update(cells % self.num_classes, cells // self.num_classes)
        means = {name: float(total) / len(cells) for name, total in zip(self.names, self.losses, strict=True)}
        rates = {name: float(value) for name, value in metrics.compute().items()}
        return {**means, "lr": self.rate / self.steps, **rates}

    def state_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        tensors = {"confusion": self.confusion, "losses": self.losses, "recent": self.recent}
        return {"steps": self.steps, "rate": self.rate, **tensors}

    def load_state_dict(self, state: dict[str, Any], first: bool) -> None:
        """The reverse; of several processes the first one takes the sums over all of them."""
        self.steps, self.rate = state["steps"], state["rate"]
        if first:
            self.confusion, self.losses = state["confusion"], list(state["losses"])
            self.recent = state.get("recent", self.recent)  # checkpoints before version 0.2 have none


def headline_metrics(num_classes: int, sync_on_compute: bool = True) -> MetricCollection:
    """Accuracy over all images, and F1, precision and recall as the mean over classes; of all processes, or not."""
    sync: dict[str, Any] = {"sync_on_compute": sync_on_compute}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro", **sync),
            "f1": MulticlassF1Score(num_classes, average="macro", **sync),
            "precision": MulticlassPrecision(num_classes, average="macro", **sync),
            "recall": MulticlassRecall(num_classes, average="macro", **sync),
        }
    )
