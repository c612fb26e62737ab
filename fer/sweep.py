"""The jobs of a sweep (`-m`): where they lie, what they are called, and which are still to be done.

A sweep's directory is found again by a digest of its command, so that the same command goes on where it was stopped.
Jobs may run in other processes or on other machines (`hydra/launcher=joblib`, `submitit_slurm`): these know the
settings of the sweep and its directory, and nothing else of the command.
Knows nothing of training or evaluation, and imports neither.
"""

import datetime
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from fer import machine, rundir
from fer.errors import UserError
from fer.files import make_directory, write_whole
from fer.settings.compose import CONFIGS, values_of
from fer.settings.train import TrainSettings

_FOLDER = rundir.OUTPUTS / "sweeps"


class Refused(BaseException):
    """Carries a mistake out of a callback: of an `Exception` there Hydra makes a warning, and begins the sweep."""

    def __init__(self, mistake: Exception) -> None:
        self.mistake = mistake


class OnSweep(Callback):
    """Hydra calls it when a sweep begins, in the process of the command; configs/train.yaml names it."""

    directory: Path | None = None  # of the sweep that this process has begun

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the sweep's directory, and notes it.

        Raises:
            Refused: that cannot be made, or the sweep's jobs would start the sweep again.
        """
        try:
            machine.refuse_second_sweep(config.trainer, config.hydra.launcher._target_)
            make_directory(directory := Path(config.hydra.sweep.dir))
        except (UserError, OSError) as error:
            raise Refused(error) from error
        OnSweep.directory = directory


def arguments(overrides: Sequence[str], grid: Mapping[str, Any], folders: Sequence[Path] = (CONFIGS,)) -> list[str]:
    """What a command with -m needs besides its own words: the sweep's directory, which settings do not vary, and what
    a launcher for several jobs at a time should not be left to guess.

    Args:
        overrides: the KEY=VALUE words of the command line.
        grid: what `sweep=NAME` adds to them (see `fer.settings.compose.sweep_parameters`).
        folders: where groups are looked for.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = [word for word, override in zip(overrides, parsed, strict=True) if override.is_sweep_override()]
    fixed = [override.key_or_group for override in parsed if not override.is_sweep_override()]
    own = [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]
    if "hydra.sweep.dir" not in fixed:
        shown = [word for word in overrides if word in swept or word.startswith("sweep=")]
        own.append(f"hydra.sweep.dir={_directory(overrides, shown)}")
    jobs = math.prod(
        len(values_of(word, folders))
        for word in [*parsed, *OverridesParser.create().parse_overrides([f"{key}={grid[key]}" for key in grid])]
        if word.is_sweep_override()
    )
    launcher = next((override.value() for override in parsed if override.key_or_group == "hydra/launcher"), None)
    defaults: dict[str, int] = {}
    if launcher == "joblib":  # gives each job its share of the cores as threads
        defaults = {"n_jobs": min(jobs, machine.available_cores())}
    elif launcher == "submitit_slurm":
        defaults = {"gpus_per_node": 1, "cpus_per_task": 4, "timeout_min": 480, "max_num_timeout": 10}
    named = {f"hydra.launcher.{key}": value for key, value in defaults.items()}
    return [*own, *(f"{key}={value}" for key, value in named.items() if key not in fixed)]


def _directory(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The directory of an earlier sweep by the same command, else a new name with the time and what is varied.

    The order of the other words does not matter. That of what is varied does: jobs are numbered and named by it.
    """
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    name = "_".join([*filter(None, [_plain(swept)]), digest])
    earlier = sorted(_FOLDER.glob(f"*_{name}"))
    if earlier:
        return str(earlier[-1])
    return str(_FOLDER / f"{datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}_{name}")


def _varied(job: Sequence[str], fixed: Sequence[str]) -> str:
    """What sets a job apart from the others of its sweep: its overrides of what the command does not fix."""
    return _plain([word for word in job if word.partition("=")[0].lstrip("+~") not in fixed]) or "run"


# Of configs/train.yaml. When this file is imported, because the other processes of a sweep run no more than that.
OmegaConf.register_new_resolver("varied", _varied, replace=True)


def _plain(overrides: Sequence[str]) -> str:
    """Overrides as a part of a file name that needs no quotes: data.classes=4,7 becomes classes-4+7."""
    parts = []
    for word in overrides:
        key, _, value = word.partition("=")
        name = key.lstrip("+~").rpartition(".")[2]
        parts.append(f"{name}-{re.sub(r'[^A-Za-z0-9.+-]+', '', Path(value).name.replace(',', '+'))}")
    return "_".join(parts)[:80]


def finished_accuracy(settings: TrainSettings, run_dir: Path) -> float | None:
    """The accuracy of a job that an earlier start of the sweep completed; otherwise None, and `settings` go on with its
    last checkpoint where there is one.

    Raises:
        UserError: the directory belongs to a run with other settings.
    """
    if not (run_dir / rundir.SETTINGS).is_file():
        return None
    try:
        saved = rundir.load(run_dir)
    except UserError:
        if (run_dir / rundir.FAILURE).is_file() and not (run_dir / rundir.CHECKPOINTS).exists():
            for name in (rundir.SETTINGS, rundir.FAILURE):  # of settings that were refused and have been mended since
                (run_dir / name).unlink()
            return None
        raise
    if not rundir.same(settings, saved):
        raise UserError(
            f"{run_dir} holds a run with other settings, from before a file under configs/ was changed; "
            "move it away, or choose another hydra.sweep.dir"
        )
    (run_dir / rundir.FAILURE).unlink(missing_ok=True)
    metrics = run_dir / rundir.METRICS
    if metrics.is_file() and (run_dir / rundir.REPORT).is_file():
        return val_accuracy(rundir.report(run_dir))
    last = rundir.checkpoint(run_dir, rundir.LAST)
    if settings.mode == "train" and settings.ckpt is None and last.is_file():
        settings.ckpt = str(last)
    return None


def val_accuracy(report: Mapping[str, Any]) -> float:
    """What a job is compared by: the accuracy on val, or where a report has none on the split that it is about."""
    return float(report.get("val", report[report["reported_split"]])["accuracy"])


def note_failure(
    settings: TrainSettings | Mapping[str, Any], run_dir: Path, words: Sequence[str], message: str
) -> None:
    """Leaves the message and the settings of a failed job for the summary of its sweep; plain ones where they were
    refused.
    """
    make_directory(run_dir)
    if not (run_dir / rundir.SETTINGS).is_file():
        if isinstance(settings, TrainSettings):
            rundir.write_settings(run_dir, settings, words)
        else:
            rundir.write_refused(run_dir, settings, words)
    write_whole(run_dir / rundir.FAILURE, f"{message}\n".encode())


def failed_jobs(sweep_dir: Path) -> list[str]:
    """The directories of jobs that ended with an error when they were last started, or that another process is at."""
    return sorted({file.parent.name for name in (rundir.FAILURE, rundir.LOCK) for file in sweep_dir.glob(f"*/{name}")})
