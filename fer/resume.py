"""The settings of a run that goes on, or is tested: what was saved, and what the command line may still change."""

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fer import rundir
from fer.errors import UserError
from fer.settings.base import at, fields_of, flat
from fer.settings.compose import Composed, Line, checked, overrides_of, targets_of_configs
from fer.settings.target import find
from fer.settings.train import TrainSettings
from fer.settings.words import with_value

# What a training decided when it began, and its checkpoint carries on: another value would be recorded and not used.
_DECIDED = (
    *("optim", "model", "seed", "label_smoothing", "ema", "image_sizes", "early_stopping", "teacher", "distil"),
    *("data.classes", "data.batch_size", "data.size", "data.split", "data.val_fraction", "data.test_fraction"),
    *("data.folds", "data.fold", "data.split_seed", "data.balance", "data.augment", "data.mixup_alpha"),
    *("data.degrade", "data.labels", "data.eval_labels"),
    *("data.ferplus_target", "data.fer2013_weight", "data.ferplus_auxiliary", "data.exclude_reasons"),
    *("data.exclude_action", "data.synthetic", "trainer.accumulate_grad_batches", "trainer.limit_train_batches"),
)

# Arguments of Lightning's loggers: places, which are the run's own by themselves, and what is put behind one.
_PLACES = ("save_dir", "root_dir", "dir", "tracking_uri", "artifact_location")
_PARTS = ("name", "version", "sub_dir", "prefix")


def settings_of(line: Line, composed: Composed) -> tuple[TrainSettings, Path | None]:
    """What a command line asks for, on top of the settings of the run that its checkpoint lies in.

    Returns:
        The settings, and the directory of the run that goes on, if one does.

    Raises:
        UserError: a group is chosen for a run that has one, something is changed that its checkpoint has decided, the
            saved file makes no sense or names code of others; every mistake in a line each.
    """
    asked = checked(line, composed)
    run = rundir.of_checkpoint(next(iter(asked.checkpoints), None))
    if run is None:
        return asked, None
    saved_values = rundir.saved_values(run)
    given = overrides_of(line)
    if asked.mode == "train" and composed.run_dir is not None and composed.run_dir.resolve() != run.resolve():
        raise UserError(f"hydra.run.dir={composed.run_dir}: a run goes on in its own directory, {run}; leave it out")
    for key in given:
        if key in ("model", "optim", "trainer", "experiment", "sweep") or (key == "data" and asked.mode == "train"):
            raise UserError(f"{key}=...: {asked.ckpt} belongs to a run with settings of its own; leave {key}= out")
    _refuse_foreign_targets(saved_values, run, list(given), trains=asked.mode == "train")
    saved = rundir.load(run)
    values: dict[str, Any] = saved.plain()
    for key, deleted in given.items():
        if key.startswith("hydra."):  # no setting of ours: where the report goes
            continue
        if deleted:
            values = without(values, key)
        elif key in ("logger", "data"):
            values[key] = composed.values[key]
        else:
            values = with_value(values, key, at(composed.values, key))
    values |= {"mode": asked.mode, "ckpt": composed.values["ckpt"]}
    settings = checked(line, dataclasses.replace(composed, values=values))
    if asked.mode == "train":
        _refuse_decided(saved, settings, run)
        return settings, run
    return settings, None


def without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A copy of nested settings that lacks a dotted key."""
    head, _, rest = key.partition(".")
    if rest and isinstance(values.get(head), Mapping):
        return {**values, head: without(values[head], rest)}
    return {name: value for name, value in values.items() if name != head}


def _refuse_decided(saved: TrainSettings, settings: TrainSettings, run: Path) -> None:
    before, after = saved.plain(), settings.plain()
    decided = [*_DECIDED]
    if saved.optim.schedule in ("cosine", "onecycle") or saved.image_sizes:
        decided.append("trainer.max_epochs")
    leaves = [key for key, _ in fields_of(TrainSettings) if any(f"{key}.".startswith(f"{each}.") for each in decided)]
    leaves += [key for key in decided if key.startswith("trainer.")]
    changed = [key for key in leaves if at(before, key) != at(after, key)]
    if changed:
        named = ", ".join(f"{key} ({_short(at(before, key))} to {_short(at(after, key))})" for key in changed)
        raise UserError(
            f"{run} cannot go on with another {named}: its checkpoint has decided that; to start anew from its "
            "weights: model.weights=CHECKPOINT without ckpt="
        )


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).partition("\n")[0]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse_foreign_targets(saved: dict[str, Any], run: Path, given: list[str], trains: bool) -> None:
    """A class that a saved config.yaml names is used only if configs/ names it, too, or it is an optimiser of torch,
    and the loggers of a training write into the run; a person may name others on the command line, but not a file.

    Raises:
        UserError: it names another class or place; says what to repeat.
    """
    known = targets_of_configs()
    network = str(at(saved, "model.name"))
    named = {"model.name": network} if ":" in network else {}
    named |= {
        key: target
        for key, target in rundir.targets(saved)
        if target not in known and not _is_optimiser_of_torch(key, target)
    }
    if trains:
        named |= {key: value for key, value in flat(saved.get("logger"), "logger").items() if _leads_out(key, value)}
    foreign = [
        f"{key}={value}" for key, value in named.items() if not any(f"{key}.".startswith(f"{each}.") for each in given)
    ]
    if foreign:
        raise UserError(
            f"{run / rundir.SETTINGS} names code that is not this project's, or a place outside of the run; if you "
            f"trust it, repeat it on the command line: {shlex.join(foreign)}"
        )


def _leads_out(key: str, value: Any) -> bool:
    """Whether an argument of a logger is a place other than the run's own directory, or leads out of it."""
    argument = key.rpartition(".")[2]
    if not isinstance(value, str) or argument not in (*_PLACES, *_PARTS):
        return False
    return argument in _PLACES or Path(value).is_absolute() or value.startswith("~") or ".." in Path(value).parts


def _is_optimiser_of_torch(key: str, target: Any) -> bool:
    if key != "optim.optimizer._target_" or re.fullmatch(r"torch\.optim\.\w+", str(target)) is None:
        return False
    import torch

    try:
        find("optim.optimizer", target, torch.optim.Optimizer)
    except UserError:
        return False
    return True
