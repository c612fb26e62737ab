"""The trained networks that a report is about: what they are, what they know, and what data they can be asked about."""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer import rundir
from fer.checkpoint import network_of, provenance, read_checkpoint
from fer.data.datamodule import FER2013DataModule
from fer.errors import UserError
from fer.models.network import EmotionNetwork
from fer.settings.train import TrainSettings

log = logging.getLogger(__name__)


@dataclass
class Member:
    """One trained network of a report, and the settings of the run that it lies in, if it lies in one."""

    path: Path
    content: dict[str, Any]
    network: EmotionNetwork
    temperature: float
    saved: TrainSettings | None


def load_members(paths: Sequence[Path], tta: str) -> list[Member]:
    """The networks of checkpoints, each with its temperature for `tta`.

    Raises:
        UserError: one cannot be read, or has other classes than the first.
    """
    members = []
    for path in paths:
        content = read_checkpoint(path)
        network = network_of(path, content)
        run = rundir.of_checkpoint(path)
        saved = None if run is None else rundir.load(run)
        members.append(Member(path, content, network, network.spec.temperature_of(tta), saved))
        expected, found = members[0].network.spec.classes, network.spec.classes
        if found != expected:
            raise UserError(
                f"an ensemble needs the same classes in the same order: {paths[0]} has {', '.join(expected)}, "
                f"{path} has {', '.join(found)}; leave one of them out"
            )
    return members


def check_classes(settings: TrainSettings, members: Sequence[Member], datamodule: FER2013DataModule) -> None:
    """Refuses classes that were asked for but are not the checkpoint's, and data that show too few of them."""
    classes, path = members[0].network.spec.classes, members[0].path
    asked = settings.data.class_names
    # The default may not have been asked for at all: a checkpoint outside a run brings no settings.
    default = TrainSettings().data.class_names
    if asked != classes and not (asked == default and members[0].saved is None):
        raise UserError(
            f"{path} tells {', '.join(classes)} apart, but data.classes asks for {', '.join(asked)}; "
            "leave data.classes out"
        )
    if len(datamodule.classes) < 2:
        raise UserError(
            f"{path} tells {', '.join(classes)} apart, but {datamodule.source} holds no face of "
            f"{', '.join(datamodule.absent)}; choose data with at least two of these classes"
        )


def leave_out(members: Sequence[Member], datamodule: FER2013DataModule) -> dict[str, Any]:
    """Takes the classes of which the data have no face from the networks' answers; says what either side lacks.

    Returns:
        "classes": these classes; "faces": how many faces of the data show an emotion that is no class, by emotion.
    """
    path = members[0].path
    if datamodule.absent:
        log.warning(
            "%s holds no face of %s: left out of the answers of %s, whose other classes share their probability",
            datamodule.source,
            ", ".join(datamodule.absent),
            path,
        )
        for member in members:
            keep_classes(member.network, datamodule.classes)
    if datamodule.judging and datamodule.unknown:
        faces = ", ".join(f"{count:,} of {name}" for name, count in datamodule.unknown.items())
        log.info("%s has faces that are of no class of %s, and left out: %s", datamodule.source, path, faces)
    return {"classes": list(datamodule.absent), "faces": datamodule.unknown if datamodule.judging else {}}


def keep_classes(network: EmotionNetwork, classes: Sequence[str]) -> None:
    """Makes a network answer with these of its classes alone; a softmax then shares the others' probability out."""
    columns = [network.spec.classes.index(name) for name in classes]
    network.backbone.register_forward_hook(lambda _module, _faces, logits: logits[:, columns])
    network.spec = dataclasses.replace(network.spec, classes=tuple(classes))


def describe(member: Member) -> dict[str, Any]:
    """What metrics.json says of a member."""
    return {
        "path": str(member.path),
        "sha256": hashlib.sha256(member.path.read_bytes()).hexdigest(),
        "network": member.network.spec.name,
        "weights": _kind_of_weights(member.content),
        "epoch": member.content.get("epoch", -1) + 1,
        "temperature": member.temperature,
        "provenance": provenance(member.content),
    }


def _kind_of_weights(content: dict[str, Any]) -> str:
    """A small copy has no training state, which would tell."""
    if "averaging_state" in content:
        return "averaged"
    return "raw" if "optimizer_states" in content else "packed"


def trained_labels(members: Sequence[Member]) -> str | None:
    """Whose labels the members were trained on, by the settings of their runs or by what they say of themselves.

    None where one lies in no run and says nothing, as checkpoints before version 0.2.
    """
    found = []
    for member in members:
        if member.saved is not None:
            found.append(FER2013DataModule(member.saved.data).describe_labels()["train"])
        else:
            labels = provenance(member.content).get("labels")
            if not isinstance(labels, str):
                return None
            found.append(labels)
    return "; ".join(dict.fromkeys(found))


def training_data(members: Sequence[Member], datamodule: FER2013DataModule) -> dict[str, Any]:
    """What the members learnt from.

    Returns:
        "counts", the training rows by class, None unless every checkpoint says that they are the ones at hand;
        "beside", what they began from or learnt from besides, None where a member lies in no run.
    """
    at_hand = datamodule.digest()
    same = all(provenance(member.content).get("data") == at_hand for member in members)
    runs = [member.saved for member in members if member.saved is not None]
    beside: list[str] = []
    for saved in runs:
        found = {
            "weights of ImageNet": saved.model.pretrained,
            f"the weights of {saved.model.weights}": saved.model.weights,
            "the answers of teachers": saved.teacher,
        }
        beside += [what for what, given in found.items() if given and what not in beside]
    return {
        "counts": datamodule.class_counts().get("train") if same else None,
        "beside": beside if len(runs) == len(members) else None,
    }


def title_of(members: Sequence[Member]) -> str:
    """What stands above a report."""
    if len(members) > 1:
        return f"Ensemble of {len(members)}: {', '.join(sorted({member.network.spec.name for member in members}))}"
    return f"{members[0].network.spec.name}, epoch {members[0].content.get('epoch', -1) + 1}"


def short(path: Path) -> str:
    """A checkpoint by the name of its run."""
    return path.absolute().parents[1].name if path.parent.name == "checkpoints" else path.stem
