"""Calibration, the last act of a training: temperatures and minimum confidences, kept in the checkpoint."""

from pathlib import Path

from fer.abstention import thresholds
from fer.checkpoint import SPEC_KEY, load_network, read_checkpoint, write_checkpoint
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import VAL
from fer.predict import fit_temperature, predict
from fer.settings.train import TrainSettings

AVERAGING = ("none", "flip")


def calibrate(checkpoint: Path, datamodule: FER2013DataModule, settings: TrainSettings) -> None:
    """Fits both on the validation rows and writes them into the checkpoint; without such rows nothing.

    Raises:
        UserError: the checkpoint cannot be read.
        OSError: it cannot be written; it is untouched then.
    """
    faces, targets = datamodule.tensors(VAL)
    if not len(targets):
        return
    network = load_network(checkpoint)
    content = read_checkpoint(checkpoint)
    answers = {tta: predict(network, faces, settings.trainer, tta) for tta in AVERAGING}
    temperatures = {tta: fit_temperature(found.logits, targets) for tta, found in answers.items()}
    content[SPEC_KEY]["temperatures"] = temperatures
    single = answers["none"].probabilities(temperatures["none"])
    content[SPEC_KEY]["thresholds"] = thresholds(single.numpy(), targets.numpy())
    write_checkpoint(content, checkpoint)
