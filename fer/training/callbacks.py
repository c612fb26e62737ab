"""What a run needs besides Lightning's own callbacks. Knows nothing of data sets or of the command line."""

import csv
import io
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from fer import machine
from fer.checkpoint import read_checkpoint, write_checkpoint
from fer.classifier import EmotionClassifier, EpochCounts
from fer.errors import UserError
from fer.files import write_whole
from fer.models.network import EmotionNetwork

_EVERY = 50  # batches between two looks at the running figures


class EMA(Callback):
    """Exponential moving average of weights and batch-norm statistics, used for validation and in checkpoints.

    It begins with the weights after the first step. The decay rises as (1 + n) / (10 + n) over the next n steps, as
    TensorFlow's ExponentialMovingAverage does, so that a short run is not dominated by its random start.

    A step costs one operator and waits for nothing. (Lightning's WeightAveraging takes a hundred, and asks the device
    for its count of steps; checkpoints are those of that class.)

    Args:
        decay: its final value; 0.998 averages over about 500 steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._count = 0  # of steps averaged; a buffer would be averaged itself, and overwritten by DDP
        self._step = 0  # the trainer's count after the last of them
        self._resumed: dict[str, Tensor] | None = None
        self._averaged: dict[str, Tensor] = {}
        self._current: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Makes the average. Not earlier: to move a module to its device makes new buffers."""
        # A tensor that two modules share has two names in a checkpoint. Whole numbers, such as batch norm's count of
        # batches, have no average.
        tensors = [
            *pl_module.named_parameters(remove_duplicate=False),
            *pl_module.named_buffers(remove_duplicate=False),
        ]
        self._current = {name: tensor.detach() for name, tensor in tensors if tensor.is_floating_point()}
        self._averaged = {name: tensor.clone() for name, tensor in self._current.items()}
        if self._resumed is None:
            self._count = 0
        else:
            for name in self._averaged.keys() & self._resumed.keys():
                self._averaged[name].copy_(self._resumed[name])
        self._resumed = None
        self._lists = list(self._averaged.values()), list(self._current.values())

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Averages the weights after a step of the optimiser."""
        if trainer.global_step == self._step:
            return  # gradients were accumulated only
        self._step = trainer.global_step
        decay = min(self.decay, (1 + self._count) / (10 + self._count)) if self._count > 0 else 0.0
        torch._foreach_lerp_(*self._lists, 1 - decay)
        self._count += 1

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the average into the network."""
        self._swap()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Puts the weights that are trained back."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for averaged, current in zip(self._averaged.values(), self._current.values(), strict=True):
            kept = current.clone()
            current.copy_(averaged)
            averaged.copy_(kept)

    @torch.no_grad()
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leaves the average in the network."""
        for name, tensor in self._current.items():
            tensor.copy_(self._averaged[name])

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes the average the `state_dict`; the weights that are trained become `current_model_state`."""
        if not self._averaged:
            return  # nothing was trained
        current = checkpoint["state_dict"]
        checkpoint["current_model_state"] = current
        checkpoint["state_dict"] = {name: self._averaged.get(name, tensor) for name, tensor in current.items()}
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._count)}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes both up again. From a run without an average, a new one begins."""
        if trainer.state.fn == TrainerFn.FITTING and "averaging_state" in checkpoint:
            self._count = int(checkpoint["averaging_state"]["n_averaged"])
            self._resumed = checkpoint["state_dict"]
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def state_dict(self) -> dict[str, Any]:
        """The step after which it was averaged last."""
        return {"latest_update_step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The reverse."""
        self._step = state_dict["latest_update_step"]


class ProgressiveResizing(Callback):
    """Trains on small faces first: each size for an equal share of the epochs (Tan and Le, arXiv 2104.00298).

    Validation and everything after training see the network's own image size.

    Args:
        sizes: pixels per side, in the order of training.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tries every size on the network.

        Raises:
            UserError: the network takes faces of one size only.
        """
        assert isinstance(pl_module.network, EmotionNetwork)
        network = pl_module.network
        training = network.training
        network.eval()  # batch norm shall not learn from this
        try:
            for size in self.sizes:
                with torch.no_grad():
                    network.backbone(torch.zeros(1, 1, size, size, device=pl_module.device))
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"image_sizes: {network.spec.name} cannot take faces of {size}x{size}; leave image_sizes at null, or "
                "take a network that ends in global pooling, such as senet"
            ) from error
        finally:
            network.train(training)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Sets the size for this epoch."""
        # Not in `on_train_epoch_start`: Lightning does not call that for an epoch which it resumes in the middle.
        assert isinstance(pl_module.network, EmotionNetwork)
        assert trainer.max_epochs is not None
        stage = trainer.current_epoch * len(self.sizes) // trainer.max_epochs
        pl_module.network.training_size = self.sizes[stage]


class StopOnDivergence(Callback):
    """Ends a run whose loss or weights are not finite, before a checkpoint holds them.

    The device is asked at an epoch's end and before a checkpoint, not at every step: a sum of losses stays what it is
    once one of them was infinite or no number.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Looks at the epoch's losses after its last batch, before validation.

        Raises:
            UserError: one is not finite; of several processes all raise it.
        """
        assert isinstance(pl_module, EmotionClassifier)
        if trainer.is_last_batch:
            self._check(trainer, pl_module.counts.losses)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks at the weights, also the averaged ones, and at the losses so far.

        Raises:
            UserError: as above.
        """
        assert isinstance(pl_module, EmotionClassifier)
        weights = [*checkpoint["state_dict"].values(), *checkpoint.get("current_model_state", {}).values()]
        self._check(trainer, weights, pl_module.counts.losses)

    def _check(self, trainer: L.Trainer, *groups: Sequence[Tensor]) -> None:
        """Of tensors that are on one device each."""
        finite = all(torch.stack([tensor.isfinite().all() for tensor in group]).all().item() for group in groups)
        if not trainer.strategy.reduce_boolean_decision(finite):
            rate = float(trainer.optimizers[0].param_groups[0]["lr"])
            raise UserError(
                f"training diverged: loss or weights are not finite in epoch {trainer.current_epoch + 1}, at a learning"
                f" rate of {rate:.2g}; lower optim.lr, raise optim.warmup_epochs, or clip gradients more with "
                "trainer.gradient_clip_val; checkpoints written before are whole"
            )


class History(Callback):
    """One row of metrics per epoch: in TensorBoard, in a CSV file, and in the checkpoint for a run that is resumed.

    Lightning itself would log them after the epoch's checkpoint was written: a run that is killed between the two would
    be resumed without them.

    Args:
        file: rewritten after every epoch.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the epoch's row."""
        if self.rows and self.rows[-1]["epoch"] == trainer.current_epoch:
            return  # Lightning ends the last epoch of a checkpoint once more
        metrics = {name: float(value) for name, value in _of_epoch(trainer, pl_module).items() if "/" in name}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **metrics})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, trainer.global_step - 1)
            logger.save()
        if trainer.is_global_zero:
            write_whole(self.file, _as_csv(self.rows).encode())

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the rows of the run that is resumed."""
        self.rows = state_dict["rows"]


def _of_epoch(trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Tensor]:
    """The metrics at an epoch's end, without those of a validation in an earlier one."""
    assert isinstance(pl_module, EmotionClassifier)
    of_now = pl_module.validated
    return {name: value for name, value in trainer.callback_metrics.items() if of_now or not name.startswith("val/")}


def _as_csv(rows: list[dict[str, float]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


class Arrival:
    """When all that was asked of a device has reached the host, where `to_host` brings it: nobody waits for it.

    Args:
        device: where it comes from; from other devices than CUDA's it is there at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda":
            self._event = torch.Event("cuda")
            self._event.record()

    def __bool__(self) -> bool:
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Until it has."""
        if self._event is not None:
            self._event.synchronize()


def to_host(tensor: Tensor) -> Tensor:
    """A copy, whose content is there once an `Arrival` that was made afterwards is true."""
    return tensor.detach().to("cpu", non_blocking=tensor.device.type == "cuda", copy=True)


class StepLoss(Callback):
    """The mean training loss of every 50 batches, for the loggers, as soon as it is known: no step waits for it."""

    def __init__(self) -> None:
        self._coming: list[tuple[int, Tensor, Arrival]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Fetches it, and logs what has arrived."""
        assert isinstance(pl_module, EmotionClassifier)
        if pl_module.counts.steps % _EVERY == 0:
            loss = to_host(pl_module.recent_loss(_EVERY))
            self._coming.append((trainer.global_step - 1, loss, Arrival(pl_module.device)))
        while self._coming and self._coming[0][2]:
            self._log(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Waits for what a run that is resumed from here would not log again."""
        while self._coming:
            self._coming[0][2].wait()
            self._log(trainer)

    def _log(self, trainer: L.Trainer) -> None:
        """Logs the oldest one, and flushes: somebody may be watching."""
        step, loss, _ = self._coming.pop(0)
        for logger in trainer.loggers:
            logger.log_metrics({"train/step/loss": float(loss)}, step)
            logger.save()


class StopAfterBatch(Callback):
    """Lets signals finish the step at hand, so that `last.ckpt` is written between two steps and not inside one.

    Ctrl-C, SIGTERM, a closed terminal, and SIGUSR1 and SIGUSR2, by which SLURM and submitit announce that a job's time
    is up. Of several processes all stop after the same batch, whichever was told. Then Lightning's own way out for
    SIGTERM is taken: it raises `SIGTERMException`. A second Ctrl-C stops at once.

    Attributes:
        received: the signal that this process was sent.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._lightnings: Any = None
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over, also from Lightning, whose handler for SIGTERM talks to the other processes from
        wherever it interrupts this one. Lightning gives all signals back when it is done.
        """
        self._step = trainer.global_step
        self._lightnings = signal.getsignal(signal.SIGTERM)
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            # Windows has not all of them; nohup ignores SIGHUP, and a shell's background job SIGINT.
            number = signal.Signals.__members__.get(name)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, signum: int, frame: Any) -> None:
        if self.received is None:
            self.received = signal.Signals(signum)
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Lets all processes stop when one was told to."""
        if trainer.global_step == self._step:
            return  # gradients were accumulated only, and no checkpoint holds them
        self._step = trainer.global_step
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self._lightnings(signal.SIGTERM, None)

    def pass_on(self) -> None:
        """Hands the signal to whoever listened to it before; submitit, for one, puts its job back into the queue."""
        if self.received in (None, signal.SIGINT):
            return
        listener = signal.getsignal(self.received)
        if callable(listener) and listener is not machine.terminate:  # which would only end what is ending
            signal.raise_signal(self.received)


class OwnCheckpoint(ModelCheckpoint):
    """A checkpoint of one name in a run's directory, wherever the file that is resumed says that it lay.

    The run may have been moved since. And what a file names Lightning would delete, for being no longer the best:
    a folder of whoever resumes a stranger's checkpoint.

    Args:
        directory: of the run's checkpoints.
        name: without ".ckpt".
        more: arguments of `ModelCheckpoint`.
    """

    def __init__(self, directory: Path, name: str, **more: Any) -> None:
        super().__init__(directory, name, enable_version_counter=False, **more)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the score of the file that is there, which may be later than the one that is resumed; no place."""
        own = self.format_checkpoint_name({})
        score = None
        if self.monitor is not None and Path(own).is_file():
            score = state_dict.get("best_model_score")
            with suppress(UserError, KeyError):  # a damaged file, or a copy without the state of a training
                score = read_checkpoint(own)["callbacks"][self.state_key]["best_model_score"]
        known = {} if score is None else {own: score}
        state = {"dirpath": self.dirpath, "best_model_score": score, "best_k_models": known, "last_model_path": ""}
        state["best_model_path"] = state["kth_best_model_path"] = own if known else ""
        super().load_state_dict(state | ({"kth_value": score} if known else {}))


class BestCheckpoint(OwnCheckpoint):
    """`best.ckpt`, of the epoch with the best validation accuracy."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "best", monitor="val/accuracy", mode="max")

    @property
    def state_key(self) -> str:
        """As of Lightning's class, which wrote it up to version 0.1."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)


class LastCheckpoint(OwnCheckpoint):
    """`last.ckpt`, rewritten after every epoch and when a signal has stopped the run after a batch.

    Also after an epoch that was not validated, for which Lightning writes none. Not after any other exception, as
    Lightning would: that may have come in the middle of a step, or before a resumed run had read this very file. Of an
    epoch that `trainer.max_time` or `max_steps` cuts short it is written at the cut: at the epoch's end Lightning
    counts it as done, and a resumed run would leave out the rest.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "last", save_on_exception=True)
        self._step = 0
        self._ends = False  # after the step for which gradients are being accumulated

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *of_batch: Any) -> None:
        """Writes what no later step follows on, in this process, though the epoch has more."""
        super().on_train_batch_end(trainer, pl_module, *of_batch)
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        self._ends = trainer.should_stop = trainer.should_stop or self._ends
        if not stepped:
            trainer.should_stop = False
        enough = trainer.current_epoch >= (trainer.min_epochs or 0) and self._step >= (trainer.min_steps or 0)
        ends = (trainer.should_stop and enough) or 0 < trainer.max_steps <= self._step
        if stepped and ends and not trainer.is_last_batch and not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes what no validation has written."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same of an epoch that was not trained to its end."""
        super().on_train_end(trainer, pl_module)
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_checkpoint(trainer, self.format_checkpoint_name({}))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Writes the state between two steps."""
        if isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)


class StaysStopped(Callback):
    """Ends a run at once that early stopping had ended, and that is resumed: Lightning would train one epoch more."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Asks the states that the checkpoint has brought."""
        trainer.should_stop = any(each.wait_count >= max(1, each.patience) for each in trainer.early_stopping_callbacks)


class EpochLine(Callback):
    """One line per epoch on standard output, for log files, where a progress bar would be noise."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prints the epoch's figures."""
        of_val = ("loss", "accuracy", "f1", "precision", "recall")
        shown = ("train/loss", "train/accuracy", *(f"val/{name}" for name in of_val))
        metrics = _of_epoch(trainer, pl_module)
        figures = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in shown if name in metrics)
        if trainer.is_global_zero:
            of = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
            print(f"epoch {trainer.current_epoch + 1}{of}  {figures}", flush=True)


class EpochBar(RichProgressBar):
    """A progress bar on one line of 80 columns: epochs from 1, time left, loss and accuracy so far, and the last
    validation's accuracy.
    """

    def __init__(self) -> None:
        # Drawn 10 times a second: 100, as Lightning would, takes a tenth of a small network's time.
        super().__init__(refresh_rate=10, leave=True, theme=RichProgressBarTheme(metrics_format=".3f"))
        self._running: dict[str, float] = {}
        self._coming: tuple[EpochCounts, Arrival] | None = None
        self._validated: tuple[Tensor, float] | None = None

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """Without the speed, which the time left says better."""
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        ]

    def _get_train_description(self, current_epoch: int) -> str:
        description = f"Epoch {current_epoch + 1}"
        if self.trainer.max_epochs is not None and self.trainer.max_epochs > 0:
            description += f"/{self.trainer.max_epochs}"
        return description

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Of the epoch so far every 50 steps, as soon as they are known."""
        assert isinstance(pl_module, EmotionClassifier)
        due = trainer.global_step % _EVERY == 0 or not self._running
        if trainer.training and pl_module.counts.steps and due and self._coming is None:
            self._coming = pl_module.counts.copied(to_host), Arrival(pl_module.device)
        if self._coming is not None and self._coming[1]:
            found = self._coming[0].metrics()
            self._running, self._coming = {"loss": found["loss"], "acc": found["accuracy"]}, None
        validated = trainer.callback_metrics.get("val/accuracy")
        if validated is None:
            return dict(self._running)
        if self._validated is None or self._validated[0] is not validated:
            self._validated = validated, float(validated)  # once: it lies on the device
        return self._running | {"val": self._validated[1]}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole at any moment, also after a kill or on a full disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Temporary file, fsync, rename (see `fer.checkpoint.write_checkpoint`)."""
        write_checkpoint(checkpoint, path)

    def remove_checkpoint(self, path: Any) -> None:
        """One file, and a checkpoint; Lightning would delete folders with all that is in them."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file():
            file.unlink()
