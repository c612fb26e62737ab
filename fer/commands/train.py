"""`python train.py`, `fer-train`: trains and evaluates; with -m, many times."""

import logging
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer import machine, rundir, sweep
from fer.commands.frame import complain, in_words, run
from fer.errors import EXIT_CODE, UserError
from fer.resume import settings_of
from fer.settings.base import as_yaml
from fer.settings.compose import (
    CONFIGS,
    Composed,
    Line,
    checked,
    compose_line,
    help_text,
    implied,
    register,
    sweep_parameters,
    take_apart,
)
from fer.settings.train import TrainSettings

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    line = take_apart(arguments)
    if line.of_hydra or line.flags.get("cfg", "job") != "job":
        return _by_hydra(arguments)
    composed = compose_line(line)
    if "help" in line.flags:
        print(help_text(line, composed))
        return 0
    if "cfg" in line.flags:
        print(as_yaml(checked(line, composed).plain()))
        return 0
    _log()
    if line.sweeping or sweep_parameters(line):
        line.flags["multirun"] = ""
        checked(line, composed).refuse_contradictions()
        return _sweep(line)

    settings, resumed = settings_of(line, composed)
    settings.refuse_contradictions()
    _check(settings)
    job = machine.job()
    if resumed is not None:
        run_dir = resumed
    elif composed.run_dir is not None:
        run_dir = composed.run_dir
        if job is None and machine.is_first():
            rundir.refuse_occupied(run_dir)
    else:
        named = any(word.startswith("name=") for word in line.typed)
        name = rundir.test_name(settings, named) if settings.mode == "test" else settings.run_name
        run_dir = rundir.of_job(job, name, line.typed) if job is not None else rundir.new(name)
    if job is not None:
        one_of_many(settings, run_dir, line.typed)
    else:
        whole(settings, run_dir, line.typed, composed.secret)
    return 0


def whole(settings: TrainSettings, run_dir: Path, words: Sequence[str], secret: bool = False) -> float | None:
    """Trains where that is asked for, and evaluates; of several processes the first one evaluates.

    Returns:
        Its validation accuracy, for sweepers that optimise.
    """
    machine.quieten()
    machine.use_huge_pages()
    if not machine.is_first():
        return _whole(settings, run_dir, words, secret)
    with rundir.claimed(run_dir, settings, words, secret):
        return _whole(settings, run_dir, words, secret)


def _whole(settings: TrainSettings, run_dir: Path, words: Sequence[str], secret: bool) -> float | None:
    from fer.calibration import calibrate
    from fer.data.faces import VAL
    from fer.evaluation.run import evaluate
    from fer.training.publish import publish
    from fer.training.run import train

    if settings.mode == "test":
        if not machine.is_first():
            return None
        return sweep.val_accuracy(evaluate(settings, settings.checkpoints, run_dir, secret=secret))
    trained = train(settings, run_dir, words=words, secret=secret)
    if not machine.is_first():
        return None
    if settings.trainer.get("fast_dev_run"):
        log.info("trainer.fast_dev_run: the batches went through; such a run keeps no checkpoint and has no report.")
        return None
    try:
        calibrate(trained.checkpoint, *trained.datamodule.tensors(VAL), settings.trainer)
        report = evaluate(settings, [trained.checkpoint], run_dir, trained.datamodule, secret)
        publish(trained.loggers, report, run_dir, max(trained.steps - 1, 0))
        return sweep.val_accuracy(report)
    except (KeyboardInterrupt, machine.Terminated):
        again = shlex.quote(f"ckpt={trained.checkpoint}")
        log.info("The training is done, its report is not. Make one with: python train.py mode=test %s", again)
        raise


def one_of_many(settings: TrainSettings, run_dir: Path, words: Sequence[str]) -> float | None:
    """One run of a sweep or of a cluster, or only what an earlier start of the same job left to do."""
    accuracy = sweep.finished_accuracy(settings, run_dir)
    if accuracy is None:
        return whole(settings, run_dir, words)
    log.info("%s was finished before", run_dir)
    return accuracy


def job(cfg: DictConfig) -> float | None:
    """One job of a sweep, as Hydra starts it, perhaps in another process or on another machine."""
    from hydra.core.hydra_config import HydraConfig

    _log()
    hydra = HydraConfig.get()
    run_dir, words = Path(hydra.runtime.output_dir), list(hydra.overrides.task)
    typed = [word for word in words if word != "model=timm"]
    if implied(Line(words=typed)):  # nobody has typed it: no settings that a resumed or tested run would refuse
        words = typed
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    settings: TrainSettings | None = None
    try:
        line = Line(words=words, typed=words)
        settings = TrainSettings.checked(values)
        machine.refuse_second_sweep(settings.trainer, hydra.launcher._target_)
        if settings.checkpoints:
            settings, _ = settings_of(line, Composed(values, None, False))
        settings.refuse_contradictions()
        _check(settings)
        return one_of_many(settings, run_dir, words)
    except rundir.InUse as error:  # whose process is at it: nothing is written into its directory
        complain([str(error)])
        return None
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = in_words(error)
    except Exception as error:
        traceback.print_exc()  # one broken job must not cost the others
        message = f"{type(error).__name__}: {error}"
    complain(message.splitlines())
    try:
        sweep.note_failure(values if settings is None else settings, run_dir, words, message)
    except OSError as error:  # a full disk, as a rule
        complain([in_words(error)])
    return None


def _sweep(line: Line) -> int:
    """All jobs that are still to be done, by Hydra, and their summary."""
    grid = sweep_parameters(line)
    for word in line.words:
        if word.partition("=")[0].lstrip("+~") in grid:
            raise UserError(f"{word}: configs/sweep/ varies this already; leave it out, or take a copy of that file")
    flags = ["-m", *([f"--config-dir={line.folders[1]}"] if line.folders[1:] else [])]
    try:
        words = [*implied(line), *line.words]
        _by_hydra([*flags, *words, *sweep.arguments(words, grid, line.folders)])
    except sweep.Refused as refused:
        raise refused.mistake from None
    finally:
        if sweep.OnSweep.directory is not None:
            _summarise(sweep.OnSweep.directory)
    if sweep.OnSweep.directory is not None and (failed := sweep.failed_jobs(sweep.OnSweep.directory)):
        complain([f"{len(failed)} of the jobs failed: {', '.join(failed)}"])
        return EXIT_CODE
    return 0


def _by_hydra(arguments: Sequence[str]) -> int:
    import hydra

    register()
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(job)()
    return 0


def _summarise(directory: Path) -> None:
    """Writes and prints the table of all runs; also after a sweep that was interrupted."""
    from fer.evaluation.summary import summarise

    try:
        summarise([directory])
    except UserError as error:  # no job got far enough
        complain([str(error)])
    except OSError as error:
        complain([in_words(error)])


def _check(settings: TrainSettings) -> None:
    """Builds what a training needs before its data are read and its directory is made."""
    if settings.mode == "train":
        from fer.training.run import check

        machine.quieten()
        check(settings)
    elif ":" in settings.model.name:  # typed by a person: a saved name has to be repeated
        from fer.models import hand_over

        hand_over(settings.model.name)


def _log() -> None:
    level = logging.INFO if machine.is_first() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)


def command() -> None:
    """The entry of `fer-train`."""
    run("train")


if __name__ == "__main__":
    command()
