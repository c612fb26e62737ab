"""Search for settings with Optuna (`fer.commands.search`).

Optuna proposes the settings that a file under configs/search/ names, trains, and stops what falls behind the median of
earlier trials at the same epoch. It sees validation accuracy only, never the test split. The study is a file: the same
command goes on where it was stopped or killed, a trial that was cut off from its own last.ckpt, and several of these
commands, also on several machines that share the directory, work at one study.

Needs the extra [optuna]. Hydra's own sweeper for Optuna is not used: it requires optuna<3.
"""

import csv
import hashlib
import logging
import math
import shlex
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import yaml
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from fer import machine, rundir
from fer.errors import UserError, first_line
from fer.files import is_file, make_directory
from fer.settings.base import shown
from fer.settings.compose import checked, compose_line, take_apart
from fer.settings.train import TrainSettings
from fer.training.run import train

log = logging.getLogger(__name__)

_FAILURES = 3  # in a row, after which it is not the luck of one trial
_HEARTBEAT_S = 20  # between the signs of life of a running trial; after three without one it is another's to go on with


class Pruning(Callback):
    """Tells Optuna the validation accuracy of every epoch, and stops the trial when it asks for that.

    Args:
        trial: the trial.
        told: epochs of which it knows.
    """

    def __init__(self, trial: optuna.Trial, told: Collection[int]) -> None:
        self.trial = trial
        self.told = set(told)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raises `optuna.TrialPruned`."""
        if trainer.current_epoch not in self.told:
            self.trial.report(float(trainer.callback_metrics["val/accuracy"]), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def read_space(file: Path) -> dict[str, dict[str, Any]]:
    """The settings to search and their ranges: {low, high, log} or {choices}.

    Raises:
        UserError: there is no such file, or it says something else.
    """
    if not is_file(file):
        raise UserError(f"{file} does not exist; configs/search/recipe.yaml is an example")
    try:
        space: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML: {first_line(error)}") from error
    for key, values in space.items() if isinstance(space, dict) else [(file, None)]:
        if not isinstance(values, dict) or set(values) not in ({"choices"}, {"low", "high"}, {"low", "high", "log"}):
            raise UserError(f"{file}: {key} must be {{low: ..., high: ..., log: true}} or {{choices: [...]}}")
        if mistake := _mistake(values):
            raise UserError(f"{file}: {key}: {mistake}")
    return dict(space)


def _mistake(values: Mapping[str, Any]) -> str | None:
    """What Optuna could not draw from."""
    if "choices" in values:
        choices = values["choices"]
        return None if isinstance(choices, list) and choices else f"choices: {choices} must be a list of at least one"
    for end in ("low", "high"):
        value = values[end]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{end}: {value} must be a finite number, in YAML with a point: 1.0e-4"
    low, high, log = values["low"], values["high"], values.get("log", False)
    if low > high:
        return f"low: {low} must not be above high: {high}"
    if not isinstance(log, bool):
        return f"log: {log} must be true or false"
    return f"low: {low} must be above 0 where log is true" if log and low <= 0 else None


def suggest(trial: optuna.Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One value per setting; whole numbers where both ends of a range are."""
    values: dict[str, Any] = {}
    for key, among in space.items():
        if "choices" in among:
            values[key] = trial.suggest_categorical(key, among["choices"])
        elif isinstance(among["low"], int) and isinstance(among["high"], int):
            values[key] = trial.suggest_int(key, among["low"], among["high"], log=among.get("log", False))
        else:
            values[key] = trial.suggest_float(key, among["low"], among["high"], log=among.get("log", False))
    return values


def search(
    directory: Path, words: Sequence[str], space: Mapping[str, Mapping[str, Any]], trials: int, heartbeat_s: int
) -> optuna.Study:
    """Goes on with the study in `directory` until it has `trials` trials that were completed or pruned.

    A trial that ends with an error, such as a diverged one or one that the memory cannot hold, is told in a line.

    Args:
        directory: of study.db and of the trials' runs.
        words: settings of train.py that all trials share, KEY=VALUE.
        space: see `read_space`.
        trials: in all, earlier starts included.
        heartbeat_s: seconds between the signs of life of a trial.

    Raises:
        UserError: several trials in a row failed.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the heartbeat, since 2.8
    make_directory(directory)
    storage = RDBStorage(
        f"sqlite:///{directory.absolute() / 'study.db'}",
        engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=heartbeat_s,
        grace_period=3 * heartbeat_s,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True),
    )
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
    )
    # Another seed for every start: with the same one it would propose again what it began with.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))

    failures: list[str] = []  # in a row

    def objective(trial: optuna.Trial) -> float:
        try:
            accuracy = attempt(trial)
        except optuna.TrialPruned:
            failures.clear()
            raise
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            failures.append(f"{kind}{first_line(error)}")
            log.info("trial %d failed: %s", trial.number, failures[-1])
            raise
        failures.clear()
        return accuracy

    def attempt(trial: optuna.Trial) -> float:
        chosen = [f"{key}={shown(value)}" for key, value in suggest(trial, space).items()]
        settings = _settings([*words, *chosen])
        before = study.get_trials(deepcopy=False)[trial.number]  # has something to say if another one was cut off
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(before)
        run_dir = directory / f"trial_{trial.number if first is None else first:04d}"
        last = rundir.checkpoint(run_dir, rundir.LAST)
        if last.is_file():
            settings.ckpt = str(last)
        log.info("trial %d: %s", trial.number, " ".join(chosen))
        with rundir.claimed(run_dir, settings, [*words, *chosen]):
            train(settings, run_dir, [Pruning(trial, before.intermediate_values)])
        with (run_dir / rundir.HISTORY).open(newline="", encoding="utf-8") as file:
            reached = [float(value) for row in csv.DictReader(file) if (value := row.get("val/accuracy"))]
        if not reached:
            raise UserError("no epoch was validated, and val/accuracy is what a search goes by; validate every epoch")
        return max(reached)

    while (done := len(finished(study))) < trials:
        study.optimize(objective, n_trials=1, catch=(Exception,))
        if len(failures) == _FAILURES:
            raise UserError(
                f"{_FAILURES} trials in a row failed, the last one by: {failures[-1]}; mend that, or narrow the space, "
                "and start the search again"
            )
        if len(finished(study)) > done and study.trials[-1].state == TrialState.PRUNED:
            log.info("trial %d was behind the others and was stopped", study.trials[-1].number)
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were completed or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def plot(study: optuna.Study) -> Figure:
    """What mattered: the weight of each setting for being among the best tenth (PED-ANOVA, Watanabe et al., arXiv
    2304.10255), and every trial by each setting.
    """
    completed = study.get_trials(states=(TrialState.COMPLETE,))
    names = list(completed[0].params)
    shares: dict[str, float] = {}
    if len(completed) > 3 and len({trial.value for trial in completed}) > 1:
        shares = optuna.importance.get_param_importances(study)
        names = list(shares)
    columns = 4
    rows = 1 + math.ceil(len(names) / columns)
    figure = Figure(figsize=(13, 3.1 * rows), layout="constrained", dpi=100)
    grid = figure.add_gridspec(rows, columns)

    bars = figure.add_subplot(grid[0, :2])
    bars.barh(names[::-1], [shares.get(name, 0.0) for name in names[::-1]], color="tab:blue")
    bars.set_title(f"what takes a trial into the best tenth of {len(completed)} (PED-ANOVA)")
    bars.set_xlim(0, 1)
    course = figure.add_subplot(grid[0, 2:])
    values = [trial.value or 0.0 for trial in completed]
    numbers = [trial.number for trial in completed]
    course.plot(numbers, values, "o", color="tab:blue", alpha=0.6, label="trial")
    course.step(numbers, [max(values[: i + 1]) for i in range(len(values))], where="post", color="k", label="best")
    course.set_title("val/accuracy by trial; below, dark trials were early")
    course.legend()
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns])
        settings = [trial.params[name] for trial in completed]
        spread = completed[0].distributions[name]
        if isinstance(spread, optuna.distributions.CategoricalDistribution):
            settings = [spread.choices.index(value) for value in settings]
            axes.set_xticks(range(len(spread.choices)), [str(choice) for choice in spread.choices])
        elif getattr(spread, "log", False):
            axes.set_xscale("log")
        axes.scatter(settings, values, c=numbers, cmap="viridis", s=22)
        axes.set_xlabel(name)
        axes.set_ylabel("val/accuracy")
    return figure


def _settings(words: Sequence[str]) -> TrainSettings:
    line = take_apart(words)
    settings = checked(line, compose_line(line))
    settings.refuse_contradictions()
    return settings


def run(space_file: Path, words: Sequence[str], trials: int) -> None:
    """A whole search, with its picture and the best command.

    Raises:
        UserError: the space or the settings make no sense, or no trial was completed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings are tracebacks of failed trials
    machine.quieten()
    machine.use_huge_pages()
    space = read_space(space_file)
    for key, among in space.items():  # both ends of every range, before the first trial
        for value in among.get("choices", [among.get("low"), among.get("high")]):
            settings = _settings([*words, f"{key}={shown(value)}"])
            if settings.mode != "train" or settings.ckpt is not None:
                raise UserError("mode=, ckpt=: each trial is a training of its own; model.weights=FILE is its start")
            if settings.trainer.get("limit_val_batches") == 0:
                raise UserError("trainer.limit_val_batches=0: a search goes by val/accuracy; leave it out")
    digest = hashlib.sha256(repr((sorted(words), space)).encode()).hexdigest()[:8]
    directory = rundir.OUTPUTS / "searches" / f"{space_file.stem}_{digest}"
    log.info("Study in %s", directory)
    study = search(directory, words, space, trials, _HEARTBEAT_S)
    if not study.get_trials(states=(TrialState.COMPLETE,)):
        raise UserError("no trial was completed; the messages above say why")
    plot(study).savefig(directory / "search.png")
    pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
    log.info("%d trials, of which %d were stopped early", len(finished(study)), pruned)
    log.info("What mattered: %s", directory / "search.png")
    log.info("Best: trial %d, val/accuracy %.4f; train and test it with", study.best_trial.number, study.best_value)
    best = [f"{key}={shown(value)}" for key, value in study.best_params.items()]
    log.info("  python train.py %s", shlex.join([*words, *best]))
