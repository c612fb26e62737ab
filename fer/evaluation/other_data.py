"""A network on other data than it was trained on: the classes that both have, and the faces that it knows already."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer import rundir
from fer.checkpoint import provenance, seen
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.data.seen import besides, known_again
from fer.errors import UserError
from fer.models.network import EmotionNetwork
from fer.settings.train import DataSettings, TrainSettings

log = logging.getLogger(__name__)


def keep_classes(network: EmotionNetwork, classes: Sequence[str]) -> None:
    """Makes a network answer with these of its classes alone; a softmax then shares the others' probability out."""
    columns = [network.spec.classes.index(name) for name in classes]
    network.backbone.register_forward_hook(lambda _module, _faces, logits: logits[:, columns])
    network.spec = dataclasses.replace(network.spec, classes=tuple(classes))


def faces_of_training(
    settings: TrainSettings, checkpoints: Mapping[Path, dict[str, Any]], datamodule: FER2013DataModule
) -> tuple[npt.NDArray[np.uint8], bool]:
    """What checkpoints were trained on, as far as is known: copies of it test only the memory.

    Where a checkpoint's run had other data, or divided them otherwise, these are read once more, at the size of the
    faces that are tested. Where they cannot be read, or the checkpoint lies in no run, the faces at hand that it lists
    are meant; where it lists none, as those before version 0.2, the training rows at hand.

    Args:
        settings: of the report.
        checkpoints: their contents.
        datamodule: the data of the report.

    Returns:
        Faces, uint8 (N, S, S), and whether they are all on which the checkpoints were trained.
    """
    found: list[npt.NDArray[np.uint8]] = []
    read: list[dict[str, Any]] = []
    complete = True
    for checkpoint, content in checkpoints.items():
        run = rundir.of_checkpoint(checkpoint)
        if run is None:
            why = "it lies in no run"
        else:
            saved = rundir.load(run).data
            if saved.division in read:
                continue
            try:
                own = saved.division == settings.data.division
                found.append(datamodule.rows(TRAIN).images if own else _read_again(saved, settings.data.size))
                read.append(saved.division)
                continue
            except UserError as error:
                why = str(error)
        listed, faces = seen(content), datamodule.faces.images
        found.append(faces[known_again(faces, listed)] if len(listed) else datamodule.rows(TRAIN).images)
        whole = provenance(content).get("data") == datamodule.digest()
        whole = whole or (len(listed) > 0 and not len(besides(listed, found[-1])))
        if not whole:
            log.warning(
                "%s was trained on faces that are not at hand (%s): their near copies cannot be found", checkpoint, why
            )
        complete &= whole
    faces = found[0] if len(found) == 1 else np.concatenate([*found, datamodule.faces.images[:0]])
    return faces, complete


def _read_again(data: DataSettings, size: int) -> npt.NDArray[np.uint8]:
    """The training faces of another run at `size`."""
    datamodule = FER2013DataModule(data.model_copy(update={"size": size, "ferplus_auxiliary": 0.0}))
    datamodule.setup()
    faces = datamodule.rows(TRAIN).images
    log.info("Copies are looked for among the %s training faces of %s.", f"{len(faces):,}", data.source)
    return faces
