"""TensorBoard's files of a run, which training and evaluation both write."""

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


class RunLogger(TensorBoardLogger):
    """TensorBoard events at the root of the run directory, without the second copy of the settings beside them.

    Args:
        save_dir: the run directory.
        resumed_at: what the directory holds of this step and later ones is not shown any more: a resumed run repeats
            it. None shows everything.
    """

    def __init__(self, save_dir: str | Path, resumed_at: int | None = None) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=resumed_at)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Leaves out the number of the epoch, which Lightning adds as a scalar of its own."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    def save(self) -> None:
        """Flushes the events; config.yaml holds the settings already."""
        self.experiment.flush()
