"""The faces that networks know already: a test on what they were trained on, or on copies of it, measures memory."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fer.checkpoint import provenance, seen
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TEST, TRAIN, VAL
from fer.data.seen import besides, known_again, together
from fer.errors import UserError
from fer.evaluation.members import Member
from fer.settings.train import DataSettings, TrainSettings

log = logging.getLogger(__name__)


def known_to(members: Sequence[Member], datamodule: FER2013DataModule) -> dict[int, npt.NDArray[np.bool_]]:
    """Which faces of each split members were trained on, as a division otherwise than theirs has it."""
    others = besides(together(*(seen(member.content) for member in members)), datamodule.rows(TRAIN).images)
    return {split: known_again(datamodule.rows(split).images, others) for split in (VAL, TEST)}


def faces_of_training(
    settings: TrainSettings, members: Sequence[Member], datamodule: FER2013DataModule
) -> tuple[npt.NDArray[np.uint8], bool]:
    """What members were trained on, as far as is known.

    Where a member's run had other data, or divided them otherwise, these are read once more, at the size of the
    faces that are tested. Where they cannot be read, or it lies in no run, the faces at hand that its checkpoint lists
    are meant; where that lists none, as those before version 0.2, the training rows at hand.

    Args:
        settings: of the report.
        members: of the report.
        datamodule: the data of the report.

    Returns:
        Faces, uint8 (N, S, S), and whether they are all on which the members were trained.
    """
    found: list[npt.NDArray[np.uint8]] = []
    read: list[dict[str, Any]] = []
    complete = True
    for member in members:
        if member.saved is None:
            why = "it lies in no run"
        else:
            saved = member.saved.data
            if saved.division in read:
                continue
            try:
                own = saved.division == settings.data.division
                found.append(datamodule.rows(TRAIN).images if own else _read_again(saved, settings.data.size))
                read.append(saved.division)
                continue
            except UserError as error:
                why = str(error)
        listed, faces = seen(member.content), datamodule.faces.images
        found.append(faces[known_again(faces, listed)] if len(listed) else datamodule.rows(TRAIN).images)
        whole = len(listed) > 0 and not len(besides(listed, found[-1]))
        if not whole and provenance(member.content).get("data") == datamodule.digest():
            whole = True  # all rows of its classes; it began from a network that had others, too
        if not whole:
            log.warning(
                "%s was trained on faces that are not at hand (%s): their near copies cannot be found", member.path, why
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
