"""A network on other data than it was trained on: the classes that both have, and the faces that it knows already."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer import rundir
from fer.checkpoint import provenance, read_checkpoint
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

    Where a checkpoint's run had other data, or divided them otherwise, these are read once more, at the size of the
    faces that are tested. A checkpoint that lies in no run is taken to be trained on the training rows of the data at
    hand.
    """
    found: list[npt.NDArray[np.uint8]] = []
    seen: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        run = rundir.of_checkpoint(checkpoint)
        saved = settings.data if run is None else rundir.load(run).data
        if saved.division in seen:
            continue
        seen.append(saved.division)
        if saved.division == settings.data.division:
            found.append(datamodule.rows(TRAIN).images)
            continue
        again = saved.model_copy(update={"size": settings.data.size, "ferplus_auxiliary": 0.0})
        trained = FER2013DataModule(again)
        try:
            trained.setup()
        except UserError as error:
            if provenance(read_checkpoint(checkpoint)).get("data") == datamodule.digest():  # a run that was moved
                found.append(datamodule.rows(TRAIN).images)
                continue
            log.warning("It is not known which faces of %s were trained on: %s", datamodule.source, error)
            continue
        found.append(trained.rows(TRAIN).images)
        log.info("Copies are looked for among the %s training faces of %s.", f"{len(found[-1]):,}", saved.source)
    return found[0] if len(found) == 1 else np.concatenate([*found, datamodule.faces.images[:0]])
