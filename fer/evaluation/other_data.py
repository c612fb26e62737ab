"""A network on other data than it was trained on: the classes that both have, and the faces that it knows already."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer import rundir
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.errors import UserError
from fer.models.network import EmotionNetwork
from fer.settings.train import TrainSettings

log = logging.getLogger(__name__)


def keep_classes(network: EmotionNetwork, classes: Sequence[str]) -> None:
    """Makes a network answer with these of its classes alone; a softmax then shares the others' probability out."""
    columns = [network.spec.classes.index(name) for name in classes]
    network.backbone.register_forward_hook(lambda _module, _faces, logits: logits[:, columns])
    network.spec = dataclasses.replace(network.spec, classes=tuple(classes))


def faces_of_training(
    settings: TrainSettings, checkpoints: Sequence[Path], datamodule: FER2013DataModule
) -> npt.NDArray[np.uint8]:
    """What the checkpoints were trained on, as far as is known, uint8 (N, S, S): copies of it test only the memory.

    Where a checkpoint's run had other data, these are read once more, at the size of the faces that are tested. A
    checkpoint that lies in no run is taken to be trained on the training rows of the data at hand.
    """
    found: dict[str, npt.NDArray[np.uint8]] = {}
    for checkpoint in checkpoints:
        run = rundir.of_checkpoint(checkpoint)
        saved = settings.data if run is None else rundir.load(run).data
        if saved.path == settings.data.path:
            found[settings.data.source] = datamodule.rows(TRAIN).images
        elif saved.source not in found:
            again = saved.model_copy(update={"size": settings.data.size, "ferplus_auxiliary": 0.0})
            trained = FER2013DataModule(again)
            try:
                trained.setup()
            except UserError as error:
                log.warning("It is not known which faces of %s were trained on: %s", datamodule.source, error)
                continue
            found[saved.source] = trained.rows(TRAIN).images
            count = f"{len(found[saved.source]):,}"
            log.info("Copies are looked for among the %s training faces of %s.", count, saved.source)
    images = list(found.values())
    return images[0] if len(images) == 1 else np.concatenate([*images, datamodule.faces.images[:0]])
