"""The end of a run, for loggers that keep pictures and numbers elsewhere: Weights & Biases, MLflow and their kind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from fer import rundir
from fer.tensorboard import RunLogger

_FINAL = ("accuracy", "f1", "precision", "recall", "loss")


def publish(loggers: Sequence[Logger], report: Mapping[str, Any], run_dir: Path, step: int) -> None:
    """Hands the numbers of the report, and what lies in plots/, to every logger that can take them.

    TensorBoard has both already. Pictures go to loggers with Lightning's `log_image` (Weights & Biases), or whose
    service keeps files (MLflow's `log_artifact`).

    Args:
        loggers: those of the training.
        report: content of the run's metrics.json.
        run_dir: of a finished run.
        step: the last one of the training, from 0.
    """
    numbers = {
        f"report/{split}_{name}": float(report[split][name])
        for split in ("val", "test")
        if split in report
        for name in _FINAL
    }
    pictures = sorted((run_dir / rundir.PLOTS).glob("*.png"))
    for logger in loggers:
        if isinstance(logger, RunLogger):
            continue
        logger.log_metrics(numbers, step)
        service: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_image"):
            for picture in pictures:
                logger.log_image(picture.stem, [str(picture)])
        elif hasattr(service, "log_artifact"):
            for picture in pictures:
                service.log_artifact(getattr(logger, "run_id", None), str(picture), rundir.PLOTS)
        logger.save()
