"""A checkpoint calibrated on validation rows, with all of its classes or restricted to some of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer import machine
from fer.calibration import fit
from fer.checkpoint import PREFIX, SEEN_KEY, SPEC_KEY, load_weights, read_checkpoint, read_spec, write_checkpoint
from fer.data.faces import VAL
from fer.errors import UserError
from fer.export.faces import labelled
from fer.models.network import EmotionNetwork


def recalibrate(ckpt: Path, classes: Sequence[str] | None, data: str, output: Path) -> Path:
    """Writes a checkpoint with temperatures and minimum confidences of its own, and returns its path.

    Args:
        ckpt: of the trained network.
        classes: those to keep, in the order of the new network's answers, which are the same without the others; None
            keeps all.
        data: as train.py's data.path, or "synthetic"; its validation rows of these classes calibrate.
        output: the file to write.

    Raises:
        UserError: the network does not know one of the classes, or does not end in one answer per class; or the data
            cannot be read or have no validation rows of these classes.
    """
    content = read_checkpoint(ckpt)
    spec = read_spec(ckpt, content)
    classes = spec.classes if classes is None else classes
    unknown = [name for name in classes if name not in spec.classes]
    if unknown:
        raise UserError(
            f"classes={','.join(classes)}: {ckpt} does not know {', '.join(unknown)}; its classes are "
            f"{', '.join(spec.classes)}"
        )
    network = EmotionNetwork(replace(spec, classes=tuple(classes), temperatures={}, thresholds={}))
    if load_weights(network.backbone, ckpt, classes):
        raise UserError(f"classes: {spec.name} does not end in a layer with one answer per class; train on the subset")
    datamodule = labelled(data, classes, spec.size)
    if datamodule.absent:
        raise UserError(
            f"data={data} has no faces of {', '.join(datamodule.absent)}; give faces of all classes to calibrate on, "
            f"or keep those that it has: classes=[{','.join(datamodule.classes)}]"
        )
    faces, targets = datamodule.tensors(VAL)
    if not len(targets):
        raise UserError(f"data={data} leaves no validation rows of {', '.join(classes)} to calibrate on")
    machine.quieten()
    kept: dict[str, Any] = {key: content[key] for key in ("epoch", "global_step", SEEN_KEY) if key in content}
    made = {key: content[SPEC_KEY][key] for key in ("provenance",) if key in content[SPEC_KEY]}
    calibrated = fit(network.eval(), faces, targets, {})
    weights = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict() | made | calibrated, "state_dict": weights, **kept}, output)
    return output
