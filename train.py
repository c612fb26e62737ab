"""Train and evaluate: `python train.py --help`. Composes the settings, checks them, and calls the package."""

import errno
import logging
import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer import cluster, config, sweep
from fer.command_line import complain
from fer.errors import EXIT_CODE, UserError
from fer.inference.threads import sleep_while_waiting

CONFIGS = Path(__file__).parent / "configs"
UNWRITABLE = {
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "ENOTDIR", "EEXIST")
}


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """One run; returns its best validation accuracy, for sweepers that optimise."""
    hydra_config = HydraConfig.get()
    level = logging.INFO if cluster.is_first() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    run_dir, sweeping = Path(hydra_config.runtime.output_dir), hydra_config.mode == RunMode.MULTIRUN
    try:
        cfg = config.with_saved_run(cfg, hydra_config.overrides.task)
        if sweeping:
            cluster.refuse_second_sweep(cfg.trainer, hydra_config.launcher._target_)
        if sweeping or cluster.job() is not None:
            return job(cfg, run_dir)
        return run(cfg, run_dir)
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = unwritable(error)
    except KeyboardInterrupt:
        print("Interrupted before training began.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not sweeping:
            raise
        traceback.print_exc()  # one broken job must not cost the others
        message = f"{type(error).__name__}: {error}"
    complain(message.splitlines())
    if not sweeping:
        sys.exit(EXIT_CODE)
    sweep.note_failure(cfg, run_dir, message)
    return None


def job(cfg: DictConfig, run_dir: Path) -> float | None:
    """One run of a sweep or of a cluster, or only what an earlier start of the same job left to do."""
    accuracy = sweep.finished_accuracy(cfg, run_dir)
    if accuracy is None:
        return run(cfg, run_dir)
    logging.getLogger(__name__).info("%s was finished before", run_dir)
    return accuracy


def run(cfg: DictConfig, run_dir: Path) -> float | None:
    """Checks the settings, trains where that is asked for, evaluates; of several processes the first one evaluates."""
    found = config.validate(cfg)
    if found:
        raise UserError("\n".join(found))

    from fer.evaluation.run import evaluate
    from fer.training.run import quieten, train

    quieten()
    training = cfg.mode == "train"
    ckpts = [train(cfg, run_dir)] if training else [Path(ckpt) for ckpt in config.as_list(cfg.ckpt)]
    if not cluster.is_first():
        return None
    return sweep.val_accuracy(evaluate(cfg, ckpts, run_dir, calibrate=training))


def summarise(directories: list[Path]) -> None:
    """Writes and prints the table of all runs; also after a sweep that was interrupted."""
    from fer.evaluation.summary import summarise

    try:
        summarise(directories)
    except UserError as error:  # no job got far enough
        complain([str(error)])


def unwritable(error: OSError) -> str:
    """The message for a full disk or a place that must not be written; raises every other error again."""
    if error.errno not in UNWRITABLE:
        raise error
    return (
        f"{error.filename or 'the run directory'} cannot be written: {error.strerror}; make room or choose another "
        "place with hydra.run.dir=DIR; what was written before is whole"
    )


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # our own mistakes deserve a whole traceback
    # Beside a busy process, a step on two cores took 7 to 27 times as long with threads that spin while they wait. On
    # quiet cores those that sleep train 417 faces a second, not 488: there OMP_WAIT_POLICY=ACTIVE is the better choice.
    sleep_while_waiting()
    config.register()
    sys.argv[1:] = config.checked_arguments(CONFIGS, "train", sys.argv[1:])
    words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    try:
        grid = sweep.grid(CONFIGS, words)
        if grid or {"-m", "--multirun"} & set(sys.argv):
            sys.argv += sweep.arguments(words, grid)
        main()
    except UserError as error:  # the sweep cannot be begun
        complain([str(error)])
        sys.exit(EXIT_CODE)
    except OSError as error:  # Hydra could not make the run directory
        complain([unwritable(error)])
        sys.exit(EXIT_CODE)
    finally:
        if sweep.OnSweep.directory is not None:
            summarise([sweep.OnSweep.directory])
    if sweep.OnSweep.directory is not None and (failed := sweep.failed_jobs(sweep.OnSweep.directory)):
        complain([f"{len(failed)} of the jobs failed: {', '.join(failed)}"])
        sys.exit(EXIT_CODE)
