"""Lightning's Trainer of a run, its callbacks and its loggers, from the settings."""

import csv
import inspect
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from fer import machine, rundir
from fer.errors import UserError, first_line
from fer.machine import choose_precision
from fer.settings.base import unknown
from fer.settings.target import build, find
from fer.settings.train import TrainSettings
from fer.tensorboard import RunLogger
from fer.training.callbacks import (
    EMA,
    AtomicCheckpointIO,
    EpochBar,
    EpochLine,
    LastCheckpoint,
    ProgressiveResizing,
    StaysStopped,
    StopOnDivergence,
)

# Arguments of Lightning's Trainer that are this program's own, and what to use instead.
_REFUSED = {
    "logger": "choose with logger=tensorboard, csv, wandb, mlflow, or logger=[]",
    "callbacks": "add one by callbacks.NAME._target_=package.Class",
    "plugins": "this program writes its checkpoints by a plugin of its own",
    "default_root_dir": "the run's directory is hydra.run.dir",
    "enable_checkpointing": "a run without checkpoints would leave nothing to evaluate",
    "barebones": "it would leave no checkpoint to evaluate; benchmarks/training.py measures speed",
    "use_distributed_sampler": "the loader shares rows out itself",
    "reload_dataloaders_every_n_epochs": "the rows are in memory",
    "model_registry": "checkpoints lie in the run's directory",
}


def build_trainer(
    settings: TrainSettings, run_dir: Path, callbacks: list[Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """Lightning's Trainer with the arguments under `trainer`.

    Raises:
        UserError: one of them is unknown, not to be set here, or refused by Lightning.
    """
    arguments: dict[str, Any] = dict(settings.trainer)
    check_arguments(arguments)
    _check_devices(arguments)
    arguments["precision"] = choose_precision(arguments.get("precision", "auto"), arguments.get("accelerator", "auto"))
    own: dict[str, Any] = {
        "enable_model_summary": False,
        "enable_progress_bar": sys.stdout.isatty(),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    try:
        return L.Trainer(
            **own | arguments,
            callbacks=callbacks,
            logger=list(loggers),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run_dir,
        )
    except Exception as error:  # plugins that are not installed, devices that are not there
        raise UserError(f"trainer: {first_line(error)}") from error


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Looks at arguments of Lightning's Trainer, whatever machine they are for.

    Raises:
        UserError: one is unknown, this program's own, or one with which Lightning would do nothing, or too much.
    """
    known = [name for name in inspect.signature(L.Trainer).parameters if name not in _REFUSED]
    found = [f"trainer.{name}: {way}" for name, way in _REFUSED.items() if name in arguments]
    found += [
        unknown(f"trainer.{name}", [f"trainer.{each}" for each in known])
        for name in arguments
        if name not in known and name not in _REFUSED
    ]
    for name in ("max_epochs", "accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes"):
        value = arguments.get(name)
        if value is None or (name == "max_epochs" and value == -1):  # endless
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            found.append(f"trainer.{name}={value}: it must be a whole number, at least 1")
    if re.fullmatch("64(-true)?|double|(bf)?16-true|transformer-engine.*", str(arguments.get("precision"))):
        found.append(
            f"trainer.precision={arguments['precision']}: networks are trained in 32-true, bf16-mixed or 16-mixed"
        )
    if found:
        raise UserError("\n".join(found))


def _check_devices(arguments: Mapping[str, Any]) -> None:
    devices = arguments.get("devices")
    asked = devices if isinstance(devices, int) and not isinstance(devices, bool) else 0
    on_cpu = arguments.get("accelerator") == "cpu" or not torch.accelerator.is_available()
    there = machine.cores() if on_cpu else torch.accelerator.device_count()
    if asked > there:
        kind = "cores" if on_cpu else "devices"
        raise UserError(f"trainer.devices={devices}: there are {there} {kind} here")


def build_callbacks(settings: TrainSettings, run_dir: Path) -> list[Callback]:
    """What the settings ask for: progress, averaging, sizes of faces, early stopping, last.ckpt, and `callbacks`.

    Raises:
        UserError: one of `callbacks` cannot be had as asked for.
    """
    bar = sys.stdout.isatty() and settings.trainer.get("enable_progress_bar") is not False
    progress: Callback = EpochBar() if bar else EpochLine()
    callbacks: list[Callback] = [StopOnDivergence(), progress, LastCheckpoint(run_dir / rundir.CHECKPOINTS)]
    if settings.ema is not None:
        callbacks.insert(0, EMA(settings.ema))  # before the callback that looks at what a checkpoint would hold
    if settings.image_sizes:
        callbacks.append(ProgressiveResizing(settings.image_sizes))
    if settings.early_stopping is not None:
        callbacks.append(EarlyStopping("val/accuracy", mode="max", patience=settings.early_stopping))
    callbacks.append(StaysStopped())
    for name, target in settings.callbacks.items():
        callbacks.append(build(f"callbacks.{name}", target, Callback))
    return callbacks


def build_loggers(settings: TrainSettings, run_dir: Path, resumed_at: int | None) -> list[Logger]:
    """What `logger` names, each writing into the run's directory where it can be told to.

    `resumed_at` is the step from which a run goes on; entries of this one and later ones are written anew.

    Raises:
        UserError: one cannot be had as asked for, or is given a credential.
    """
    loggers: list[Logger] = []
    for name, target in settings.logger.items():
        key = f"logger.{name}"
        for argument in target:
            if re.search("token|password|secret|api_?key", argument, re.IGNORECASE):
                raise UserError(f"{key}.{argument}: a credential does not belong into settings; use the environment")
        found = find(key, target.get("_target_"), Logger)
        if found is TensorBoardLogger:
            if more := [f"{key}.{argument}" for argument in target if argument != "_target_"]:
                raise UserError(
                    f"{more[0]}: TensorBoard's events lie in the run's directory and have no settings; leave it out"
                )
            loggers.append(RunLogger(run_dir, resumed_at))
        elif found is CSVLogger:
            table = build(key, {"name": "", "version": "csv", **target}, CSVLogger, save_dir=run_dir)
            _keep_rows(table, resumed_at or 0)
            loggers.append(table)
        else:
            if str(target["_target_"]).endswith(".MLFlowLogger") and "MLFLOW_TRACKING_URI" not in os.environ:
                target = _in_the_run(run_dir) | target
            loggers.append(build(key, target, Logger, save_dir=run_dir))
    return loggers


def _keep_rows(logger: CSVLogger, resumed_at: int) -> None:
    """Lets a resumed run's table go on behind the rows of the steps before; Lightning begins with an empty one."""
    file = Path(logger.log_dir) / "metrics.csv"
    if resumed_at > 0 and file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["step"]) < resumed_at]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Experiment logs directory")  # that it deletes the file
            logger.experiment.metrics = [{name: value for name, value in row.items() if value} for row in rows]
        logger.save()


def _in_the_run(run_dir: Path) -> dict[str, str]:
    """Where MLflow keeps a run that goes to no server; by itself it would take files, which it no longer accepts."""
    here = run_dir.absolute()
    return {"tracking_uri": f"sqlite:///{here / 'mlflow.db'}", "artifact_location": (here / "mlflow").as_uri()}
