"""One training run, from settings to checkpoints: the data, the network, the optimiser and the trainer, by name.

Knows nothing of test reports: those read the checkpoint afterwards (`fer.evaluation.run`).
"""

import logging
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fer import cluster
from fer.checkpoint import read_checkpoint, read_spec
from fer.classifier import EmotionClassifier
from fer.config import import_by_name
from fer.data.datamodule import OWN_LABELS, FER2013DataModule
from fer.data.faces import TRAIN
from fer.errors import UserError
from fer.files import write_whole
from fer.models import load_weights
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.training.callbacks import (
    EMA,
    AtomicCheckpointIO,
    History,
    LastCheckpoint,
    ProgressiveResizing,
    RunLogger,
    StopAfterBatch,
    StopOnDivergence,
    progress,
)
from fer.training.optim import configure_optimizers
from fer.training.plots import save_samples, save_training_progress

log = logging.getLogger(__name__)

_DOWNLOAD_S = 1800  # that other processes wait for the first one's download


def train(cfg: DictConfig, run_dir: Path, more: Sequence[Callback] = ()) -> Path:
    """Trains as `cfg` (a `TrainConfig`) says, with `more` callbacks, and writes everything under `run_dir`.

    Of several processes (`trainer=ddp`) each calls this; the first one writes the files and prints.

    Returns:
        The checkpoint with the best validation accuracy.

    Raises:
        UserError: the data, the network or the trainer cannot be had as asked for; or training diverged.
        SystemExit: the run was interrupted; 130 by Ctrl-C, 143 by SIGTERM or SIGUSR1. `last.ckpt` is whole then, and
            after SIGUSR1 or a preemption a job of SLURM is back in the queue.
    """
    if cluster.is_first():
        for left in run_dir.rglob(".*.tmp"):  # by a run that was killed while it wrote (`fer.files`)
            left.unlink()
        write_whole(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True).encode())
    L.seed_everything(cfg.seed, verbose=False)

    datamodule = build_datamodule(cfg)
    if cluster.is_first():
        datamodule.prepare_data()
    else:
        _wait_for(datamodule.files)
    datamodule.setup()
    if cluster.is_first():
        print_class_counts(datamodule)
        (run_dir / "plots").mkdir(exist_ok=True)
        _save_samples(datamodule, run_dir / "plots" / "samples.png")

    classifier = build_classifier(cfg, datamodule)
    step = 0 if cfg.ckpt is None else _check_resumable(cfg.ckpt, classifier.network.spec)
    history = History(run_dir / "history.csv")
    stop = StopAfterBatch()
    best = ModelCheckpoint(
        run_dir / "checkpoints", "best", monitor="val/accuracy", mode="max", enable_version_counter=False
    )
    # `best` before `last`, so that last.ckpt knows of the best of its own epoch: else a resumed run could overwrite it.
    callbacks = [best, *_callbacks(cfg, run_dir), history, *more, stop]
    trainer = build_trainer(cfg, run_dir, callbacks, RunLogger(run_dir, step))

    _print_network(classifier, cfg, trainer)
    log.info("Training in %s; watch it with: tensorboard --logdir outputs", run_dir)
    try:
        trainer.fit(classifier, datamodule, ckpt_path=cfg.ckpt)
    except SIGTERMException:
        _stop(stop, trainer.current_epoch + 1, run_dir / "checkpoints" / "last.ckpt")
    except UserError:
        if not cluster.is_first():
            sys.exit(0)  # the first process tells; and see `_stop`
        raise
    if stop.received is not None:  # in the last validation
        _stop(stop, trainer.current_epoch, run_dir / "checkpoints" / "last.ckpt")
    if trainer.is_global_zero and history.rows:
        save_training_progress(run_dir / "plots" / "training_progress.png", history.rows)
    return Path(best.best_model_path or run_dir / "checkpoints" / "last.ckpt")


def _wait_for(files: list[Path]) -> None:
    """Lets the first process fetch the data."""
    end = time.monotonic() + _DOWNLOAD_S
    while missing := [file for file in files if not file.exists()]:
        if time.monotonic() > end:
            raise UserError(f"{missing[0]} did not come; download it before several processes start")
        time.sleep(1)


def _stop(stop: StopAfterBatch, epoch: int, last: Path) -> NoReturn:
    """Ends this process after a signal, or puts its job back into the queue."""
    if not cluster.is_first():
        sys.exit(0)  # another code would let Lightning kill the first process, which may still be writing
    log.info("Stopped in epoch %d. Go on with: python train.py ckpt=%s", epoch, last)
    # A job that ends within the grace of a preemption counts as failed, and SLURM does not put it back.
    back = stop.received == signal.SIGTERM and cluster.is_preempted()
    if (back or getattr(stop.received, "name", "") == "SIGUSR1") and cluster.requeue():
        log.info("The job is back in the queue and will go on from there.")
    stop.pass_on()
    sys.exit(130 if stop.received == signal.SIGINT else 143)


def quieten() -> None:
    """Turns off what Lightning tells everybody at every start, and warnings that a person here need not heed."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning 2.6 on torch 2.15
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # a resumed run
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a login node


def build_datamodule(cfg: DictConfig, classes: tuple[str, ...] | None = None) -> FER2013DataModule:
    """The data that `cfg` names; `classes` of a checkpoint take the place of `data.classes`."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    if classes is not None:
        settings["classes"] = list(classes)
    return FER2013DataModule(**settings, seed=cfg.seed)


def build_trainer(cfg: DictConfig, run_dir: Path, callbacks: list[Callback], logger: RunLogger) -> L.Trainer:
    """Lightning's Trainer with the arguments under `trainer`."""
    settings: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    settings["precision"] = choose_precision(settings.get("precision", "auto"), settings.get("accelerator", "auto"))
    try:
        return L.Trainer(
            **settings,
            callbacks=callbacks,
            logger=logger,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run_dir,
            enable_model_summary=False,
            enable_progress_bar=sys.stdout.isatty(),
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error


def choose_precision(wanted: Any, accelerator: str) -> Any:
    """`wanted`, or for "auto" bf16 where the processor has units for it (elsewhere it would be slower than float32)."""
    if wanted != "auto":
        return wanted
    if accelerator != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator != "cpu" and torch.backends.mps.is_available():
        fast = False
    else:
        units = torch.cpu.get_capabilities()
        fast = bool(units.get("amx_bf16") or units.get("avx512_bf16") or units.get("bf16"))  # the last is Arm's
    return "bf16-mixed" if fast else "32-true"


def print_class_counts(datamodule: FER2013DataModule) -> None:
    """A table of the rows per class and split on standard output."""
    counts = datamodule.class_counts()
    source = datamodule.path or "synthetic faces"
    labels = datamodule.describe_labels()
    how = datamodule.split
    division = f"split {how['split']}" if how["folds"] is None else f"fold {how['fold']} of {how['folds']}"
    title = f"{source}, {division}"
    if set(labels.values()) != {OWN_LABELS}:
        title += f", labels: {labels['train']}, judged by {labels['evaluation']}"
    table = Table(title=title, title_justify="left")
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    for name in datamodule.classes:
        table.add_row(name, *(f"{rows[name]:,}" for rows in counts.values()))
    table.add_section()
    table.add_row("all", *(f"{sum(rows.values()):,}" for rows in counts.values()))
    Console().print(table)


def build_classifier(cfg: DictConfig, datamodule: FER2013DataModule) -> EmotionClassifier:
    """The network that `cfg` names, for the classes and the pixel statistics of the data, with its loss."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    weights, pretrained = model.pop("weights"), model.pop("pretrained")
    mean, std = datamodule.statistics()
    network = EmotionNetwork(NetworkSpec(classes=datamodule.classes, mean=mean, std=std, **model), pretrained)
    if weights is not None:
        fresh = load_weights(network.backbone, weights, datamodule.classes)
        log.info("Weights from %s; not in it and left as initialised: %s", weights, ", ".join(fresh) or "nothing")
    if cfg.compile:
        network.compile()  # in place: `torch.compile(network)` would prefix every name in the checkpoint
    optim: Any = OmegaConf.to_container(cfg.optim, resolve=True)
    return EmotionClassifier(
        network,
        lambda module: configure_optimizers(module, **optim),
        label_smoothing=cfg.label_smoothing,
        class_weights=datamodule.class_weights(),
        any_target=datamodule.labels == "ferplus" and datamodule.ferplus_target == "any",
        auxiliary=datamodule.ferplus_auxiliary,
    )


def _check_resumable(ckpt: str, spec: NetworkSpec) -> int:
    """Refuses to go on with a checkpoint of another network or other classes; its number of steps."""
    content = read_checkpoint(ckpt)
    saved = read_spec(ckpt, content)
    for what, theirs, ours in (
        ("network", (saved.name, saved.kwargs), (spec.name, spec.kwargs)),
        ("image size", saved.image_size, spec.image_size),
        ("standardisation of faces", saved.standardise, spec.standardise),
        ("classes", saved.classes, spec.classes),
    ):
        if theirs != ours:
            raise UserError(
                f"checkpoint {ckpt} cannot be resumed: its {what} is {theirs}, this run's is {ours}; "
                "to start from its weights instead, use model.weights=FILE"
            )
    if "optimizer_states" not in content:
        raise UserError(f"checkpoint {ckpt} holds no training state; resume from a run's checkpoints/last.ckpt")
    return int(content["global_step"])


def _callbacks(cfg: DictConfig, run_dir: Path) -> list[Callback]:
    callbacks: list[Callback] = [StopOnDivergence(), progress(), LastCheckpoint(run_dir / "checkpoints")]
    if cfg.ema is not None:
        callbacks.insert(0, EMA(cfg.ema))  # before the callback that looks at what a checkpoint would hold
    if cfg.image_sizes:
        callbacks.append(ProgressiveResizing(list(cfg.image_sizes)))
    if cfg.early_stopping is not None:
        callbacks.append(EarlyStopping("val/accuracy", mode="max", patience=cfg.early_stopping))
    for settings in cfg.callbacks.values():
        arguments: Any = OmegaConf.to_container(settings, resolve=True)
        callbacks.append(import_by_name(arguments.pop("_target_"))(**arguments))
    return callbacks


def _print_network(classifier: EmotionClassifier, cfg: DictConfig, trainer: L.Trainer) -> None:
    spec = classifier.network.spec
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    processes = "" if trainer.world_size == 1 else f", {trainer.world_size} processes of {cfg.data.batch_size} faces"
    log.info(
        "%s, %.2f million parameters, %d classes, faces of %dx%d, %s%s",
        spec.name,
        parameters / 1e6,
        len(spec.classes),
        spec.image_size,
        spec.image_size,
        choose_precision(cfg.trainer.get("precision", "auto"), cfg.trainer.get("accelerator", "auto")),
        processes,
    )


def _save_samples(datamodule: FER2013DataModule, file: Path) -> None:
    """Five random training faces per class, beside their augmented copies."""
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
    save_samples(file, originals[:, 0].numpy(), augmented[:, 0].numpy(), targets.numpy()[chosen], datamodule.classes)
