"""TensorBoard's files of a run, which training and evaluation both write.

The run's directory holds pictures and text; `train` and `val` below it hold what a chart shows as two curves, and
`report_val` and `report_test` what was found of the checkpoint in the end, as a dot in the same charts.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

_CURVES = ("train", "val")
_COLUMNS = 5  # of the HParams tab
_BY_EPOCH = "epoch"  # the group of charts with a point for every epoch


class RunLogger(TensorBoardLogger):
    """TensorBoard events of a run, without the second copy of the settings beside them.

    Args:
        save_dir: the run directory.
        resumed_at: what the directory holds of this step and later ones is not shown any more: a resumed run repeats
            it. None shows everything.
    """

    def __init__(self, save_dir: str | Path, resumed_at: int | None = None) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=resumed_at)
        self.first_step = resumed_at or 0
        self._resumed_at = resumed_at
        self._below: dict[str, SummaryWriter] = {}
        _wait_for_a_later_name(Path(save_dir))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Draws `train/accuracy` and `val/accuracy` as two curves of the chart `epoch/accuracy`.

        A name with a group of its own, `train/step/loss`, is a curve of that, `step/loss`; other names are charts in
        the run's own directory. The number of the epoch, which Lightning adds, is left out.
        """
        for name, value in metrics.items():
            curve, _, rest = name.partition("/")
            if curve in _CURVES and rest:
                tag = rest if "/" in rest else f"{_BY_EPOCH}/{rest}"
                self._directory(curve).add_scalar(tag, float(value), step)
            elif name != "epoch":
                self.experiment.add_scalar(name, float(value), step)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, step: int) -> None:
        """Shows a PNG as it is."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    @rank_zero_only
    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Fills the text tab, in Markdown."""
        for name, text in texts.items():
            self.experiment.add_text(name, text, self.first_step)

    @rank_zero_only
    def log_outcome(
        self,
        settings: Mapping[str, bool | float | str],
        outcome: Mapping[str, Mapping[str, float]],
        step: int,
    ) -> None:
        """Fills the HParams tab: what may be varied, and what came out.

        Args:
            settings: by their keys; the first five are the columns that TensorBoard shows at first.
            outcome: of "val", "test" or both, the metrics by name, such as "accuracy".
            step: the last one that the checkpoint has seen, from 0.
        """
        shown = []
        for split, metrics in outcome.items():
            directory = f"report_{split}"
            for name, value in metrics.items():
                tag = f"{_BY_EPOCH}/{name}"
                self._directory(directory).add_scalar(tag, value, step)
                shown.append(hparams.Metric(tag, group=directory, display_name=f"{split}/{name}"))
        writer = self.experiment.file_writer
        config = hparams.hparams_config_pb([hparams.HParam(key) for key in settings], shown)
        # TensorBoard sorts the columns: those that are said to differ between runs, then the others, each by name.
        plugin_data = config.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for number, column in enumerate(content.experiment.hparam_infos):
            column.differs = number < _COLUMNS
        plugin_data.content = content.SerializeToString()
        writer.add_summary(config)
        writer.add_summary(hparams.hparams_pb(dict(settings)))

    def _directory(self, name: str) -> SummaryWriter:
        """The writer of a directory below the run's."""
        if name not in self._below:
            self._below[name] = SummaryWriter(str(Path(self.log_dir) / name), purge_step=self._resumed_at)
        return self._below[name]

    @rank_zero_only
    def save(self) -> None:
        """Flushes the events; config.yaml holds the settings already."""
        for writer in (self.experiment, *self._below.values()):
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the files."""
        for writer in (self.experiment, *self._below.values()):
            writer.close()


def _wait_for_a_later_name(run_dir: Path) -> None:
    """Waits, for at most a second, until a new file of events comes after those that a run has.

    TensorBoard reads a directory's files in the order of their names, `events.out.tfevents.SECOND.HOST.PROCESS.NUMBER`,
    in which 100 stands before 99: what is resumed within the same second would be read before what it goes on with.
    """
    now = time.time()
    name = f"events.out.tfevents.{int(now)}.*"
    if any(file for folder in ("", "*/") for file in run_dir.glob(folder + name)):
        time.sleep(1.01 - now % 1)
