"""Reading and writing checkpoints as plain data.

A checkpoint is what Lightning writes plus the key `fer`: the `NetworkSpec` as a dict, a digest of the weights, and
`provenance`, what made them. It is always read with `weights_only=True`: a file that carries code is refused, not run.
A checkpoint of another project is taken where a person says what it holds (`ForeignSpec`).
"""

import hashlib
import io
import pickle
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fer.errors import UserError
from fer.files import is_file, is_there, write_whole
from fer.models import create, hand_over, is_foreign
from fer.models.network import EmotionNetwork, NetworkSpec

SPEC_KEY = "fer"
SEEN_KEY = "seen"  # which faces the network was trained on, see fer.data.seen
_AVERAGE = re.compile("ema|avg|average|shadow", re.IGNORECASE)
PREFIX = "network."  # of the EmotionNetwork inside the LightningModule's state dict


@dataclass(frozen=True)
class ForeignSpec:
    """What a checkpoint of another project does not say itself.

    Attributes:
        name: of its network, as of `fer.models.create`.
        classes: what it answers, in the order of its logits.
        image_size: pixels per side of the faces that it takes.
        channels: of these; the gray face is in each.
        mean: what is subtracted from their gray values in [0, 1]: one number, or one for each channel.
        std: what they are divided by afterwards; likewise.

    Raises:
        UserError: a number that cannot be.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int = 48
    channels: int = 1
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise UserError(f"model.{name} has {len(values)} numbers: give one, or one for each channel")
        if not all(value > 0 for value in self.std):
            raise UserError("model.std must be above 0: pixels are divided by it")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The whole content of a checkpoint of this project, on the CPU.

    Raises:
        UserError: missing, damaged, carrying code, or not one of ours; one sentence says which.
    """
    content = _read(Path(path))
    if not _is_ours(content):
        raise UserError(
            f"{path} was not written by this project: it does not say which network it holds; infer.py takes it all "
            "the same where model.name= and classes=[...] say so"
        )
    _refuse_changed(path, content)
    return content


def _refuse_changed(path: str | Path, content: dict[str, Any]) -> None:
    """Raises UserError where a checkpoint of ours holds no plain tensors, or others than were written."""
    state = content["state_dict"].items()
    if not all(isinstance(key, str) and (_is_plain(value) or not isinstance(value, Tensor)) for key, value in state):
        raise UserError(f"checkpoint {path} is refused: its state_dict is no mapping of names to plain tensors")
    written = content[SPEC_KEY].get("digest")
    if written is not None and written != digest(content["state_dict"]):
        raise UserError(f"checkpoint {path} is damaged: its weights are not those that were written; take another copy")


def _read(path: Path) -> dict[str, Any]:
    """What a file holds, on the CPU, as plain data; {} where that is no dict."""
    if not is_file(path):
        what = "is a folder" if is_there(path) else "does not exist"
        raise UserError(f"checkpoint {path} {what}; a run's checkpoints are in its checkpoints/ directory")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is refused: it is damaged, or holds more than plain data, which could run code; where "
            "it was made, torch.save(network.state_dict(), FILE) writes its weights alone"
        ) from error
    except PermissionError as error:
        raise UserError(f"checkpoint {path} may not be read; check its permissions") from error
    except Exception as error:  # torch raises half a dozen types for damaged files
        raise UserError(f"{path} is no checkpoint, or was cut off while it was written") from error
    return content if isinstance(content, dict) else {}


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor with all of its numbers in memory; by strides of 0 one could stand for billions."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_meta or tensor.is_nested)
        and tensor.untyped_storage().nbytes() >= tensor.nbytes
    )


def _is_ours(content: dict[str, Any]) -> bool:
    return all(isinstance(content.get(key), dict) for key in (SPEC_KEY, "state_dict"))


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state dict's tensors, in hex."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        if isinstance(tensor, torch.Tensor):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_spec(path: str | Path, content: dict[str, Any] | None = None) -> NetworkSpec:
    """The description of the network in a checkpoint (read already, as `content`, or not)."""
    content = read_checkpoint(path) if content is None else content
    try:
        return NetworkSpec.from_dict(
            {key: value for key, value in content[SPEC_KEY].items() if key not in ("digest", "provenance")}
        )
    except ValueError as error:
        raise UserError(f"checkpoint {path} cannot be used: {error}") from error


def provenance(content: dict[str, Any]) -> dict[str, Any]:
    """What the content of a checkpoint says of its making; checkpoints before version 0.2 say nothing."""
    made = content[SPEC_KEY].get("provenance")
    return made if isinstance(made, dict) else {}


def seen(content: dict[str, Any]) -> npt.NDArray[np.uint64]:
    """Digests of the faces that a network was trained on (see `fer.data.seen`); none where its checkpoint has none."""
    found = content.get(SEEN_KEY)
    if not isinstance(found, Tensor) or found.dtype != torch.int64 or found.ndim != 1:
        return np.empty(0, np.uint64)
    return found.numpy().view(np.uint64)


def seen_by(path: str | Path) -> npt.NDArray[np.uint64]:
    """The same of a file with weights; none where it is no checkpoint of this project."""
    try:
        return seen(read_checkpoint(path))
    except UserError:
        return np.empty(0, np.uint64)


def load_network(
    path: str | Path, backbone: type[nn.Module] | None = None, foreign: ForeignSpec | None = None
) -> EmotionNetwork:
    """The trained network of a checkpoint, on the CPU, in eval mode, float32.

    Only the path is needed. The backbone is found by name; nothing is downloaded.

    Args:
        path: the file.
        backbone: the class of a backbone of another package, which is not imported because the file names it.
        foreign: what the file holds if another project wrote it: a state dict, alone or under a name (as Lightning has
            it), or .safetensors; whatever stands before its tensors' names is left out. Of a file of ours its name
            alone stands for `backbone`.

    Raises:
        UserError: as `read_checkpoint`, or the weights do not fit the network that the file (or `foreign`) names.
    """
    if foreign is not None:
        if is_foreign(foreign.name):
            hand_over(foreign.name)
        content = _read(Path(path))
        if not _is_ours(content):
            return _load_foreign(path, content, foreign)
        name = read_spec(path, content).name
        if foreign != ForeignSpec(name, ()):
            raise UserError(
                f"{path} is of this project and says itself what it is ({name}); leave model= and classes= out"
            )
    content = read_checkpoint(path)
    if backbone is not None:
        hand_over(read_spec(path, content).name, backbone)
    return network_of(path, content)


def network_of(path: str | Path, content: dict[str, Any]) -> EmotionNetwork:
    """The same of a checkpoint of ours that `read_checkpoint` has read."""
    spec = read_spec(path, content)
    state = {
        key.removeprefix(PREFIX): tensor for key, tensor in content["state_dict"].items() if key.startswith(PREFIX)
    }
    _refuse_odd(path, state)
    _refuse_larger(path, spec, state)
    try:
        network = EmotionNetwork(spec)
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be used: {error}") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"checkpoint {path} does not fit: its weights are not those of {network.spec.name}") from error
    return network.eval()


def load_weights(network: nn.Module, path: str | Path, classes: Sequence[str] = ()) -> list[str]:
    """Copies every tensor of a local weights file that fits by name and shape into a backbone.

    Takes a checkpoint of this project, a state dict saved with torch.save or a .safetensors file. A first convolution
    for RGB is summed to one channel. Of a checkpoint of other classes than `classes` the last layer's rows are taken
    class by class: with all of them known the network begins as that one, restricted to these answers in their order.

    Returns:
        The names that stay as they were initialised (usually the last layer), rows of unknown classes among them.

    Raises:
        UserError: the file is missing, is no weights file, is damaged, or shares less than half of the network's
            tensors.
    """
    content = _read(Path(path))
    spec = None
    if _is_ours(content):
        _refuse_changed(path, content)
        spec = read_spec(path, content)
    given = content.get("state_dict", content)
    tensors = given.items() if isinstance(given, Mapping) else ()
    state = {
        str(name).removeprefix(f"{PREFIX}backbone."): value for name, value in tensors if isinstance(value, Tensor)
    }
    own = network.state_dict()
    known = {name: value for name, value in state.items() if name in own}
    _refuse_odd(path, known)
    fresh = _rows_by_class(known, own, spec, classes) if classes and spec else []
    for name, tensor in known.items():
        if tensor.ndim == 4 and tensor.shape[1] == 3 and own[name].shape[1] == 1:
            known[name] = tensor.sum(dim=1, keepdim=True)
    fitting = {name: tensor for name, tensor in known.items() if own[name].shape == tensor.shape}
    if len(fitting) * 2 < len(own):
        raise UserError(
            f"{path} holds {len(fitting)} of the {len(own)} tensors that this network has; it was saved from another "
            "network"
        )
    network.load_state_dict(fitting, strict=False)
    return fresh + [name for name in own if name not in fitting]


def _rows_by_class(
    state: dict[str, Tensor], own: Mapping[str, Tensor], spec: NetworkSpec, classes: Sequence[str]
) -> list[str]:
    """Gives the tensors in `state` that have a row for each of a network's classes the rows of `classes`, in place.

    Returns:
        What stays as in `own`: the rows of classes that are none of `spec`.
    """
    saved = spec.classes
    if tuple(classes) == saved:
        return []
    # A layer inside may happen to be as wide as the answer; that of one class more shows which grow with the classes.
    larger = create(spec.name, len(saved) + 1, spec.image_size, False, spec.stem_stride, spec.kwargs).state_dict()
    heads = [
        name
        for name in own
        if name in state
        and own[name].shape[:1] == (len(classes),)
        and state[name].shape == (len(saved), *own[name].shape[1:])
        and name in larger
        and larger[name].shape == (len(saved) + 1, *own[name].shape[1:])
    ]
    both = [name for name in classes if name in saved]
    for head in heads:
        rows = state[head][[saved.index(name) for name in both]]
        state[head] = own[head].clone()
        state[head][[classes.index(name) for name in both]] = rows.to(own[head].dtype)
    new = [name for name in classes if name not in saved]
    return [f"{head} of {', '.join(new)}" for head in heads] if new else []


def _refuse_odd(path: str | Path, state: Mapping[str, Any]) -> None:
    if not all(_is_plain(tensor) for tensor in state.values()):
        raise UserError(f"checkpoint {path} is refused: its weights are no plain tensors, but sparse or something else")
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError(f"checkpoint {path} is refused: its weights are not finite; take an earlier one of its run")


def _refuse_larger(path: str | Path, spec: NetworkSpec, state: Mapping[str, Tensor]) -> None:
    """Before a network is built: a file of two kilobytes may describe one that no memory holds, by a number.

    What a whole number among its arguments says, a width, a depth, the pixels of a face, is a length or the number of
    its weights.
    """
    lengths = [length for tensor in state.values() for length in tensor.shape]
    most = max(len(state), spec.image_size, *lengths)
    values = [value for given in spec.kwargs.values() for value in (given if isinstance(given, list) else [given])]
    if any(isinstance(value, int) and value > most for value in values):
        raise UserError(f"checkpoint {path} does not fit: its weights are not those of {spec.name} with {spec.kwargs}")


class _Channels(nn.Module):
    """A network of another project behind gray faces in [0, 1], which become its channels."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, foreign: ForeignSpec) -> None:
        super().__init__()
        self.network = network
        self.channels = foreign.channels
        self.register_buffer("mean", torch.tensor(foreign.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(foreign.std).view(1, -1, 1, 1))

    def forward(self, faces: Tensor) -> Tensor:
        """Faces (B, 1, H, W) to logits (B, C)."""
        logits: Tensor = self.network((faces.expand(-1, self.channels, -1, -1) - self.mean) / self.std)
        return logits


def _load_foreign(path: str | Path, content: dict[str, Any], foreign: ForeignSpec) -> EmotionNetwork:
    size = foreign.image_size
    described = NetworkSpec(foreign.name, foreign.classes, size, mean=0.0, std=1.0, size=size)
    try:
        spec = NetworkSpec.from_dict(described.to_dict())
    except ValueError as error:
        raise UserError(
            f"{path} is of another project: classes=[...] names what it answers, each once and without , [ ] $, "
            "and model.image_size= is from 16 to 1024"
        ) from error
    network = create(spec.name, len(spec.classes), size, channels=foreign.channels)
    own = network.state_dict()
    state = _best_fit(content, own)
    misfit = _misfit(state, own, foreign)
    if misfit:
        raise UserError(f"checkpoint {path} does not fit model.name={spec.name}: {misfit}")
    _refuse_odd(path, state)
    network.load_state_dict({**own, **state})
    return EmotionNetwork(spec, backbone=_Channels(network, foreign)).eval()


def _best_fit(content: dict[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the network's own names, out of the dict in `content` and under the prefix that has most of them.

    The prefix is what the other project calls the network ("model.", "module.net."); among equals, the shortest that is
    no average ("ema.").
    """
    best: dict[str, Tensor] = {}
    for group in (content, *content.values()):
        if not isinstance(group, Mapping):
            continue
        tensors = {
            str(key).replace("_orig_mod.", ""): value for key, value in group.items() if isinstance(value, Tensor)
        }
        prefixes = {key.removesuffix(name) for key in tensors for name in own if f".{key}".endswith(f".{name}")}
        for prefix in sorted(prefixes, key=lambda each: (bool(_AVERAGE.search(each)), len(each), each)):
            found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if len(found.keys() & own.keys()) > len(best.keys() & own.keys()):
                best = found
    return best


def _misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], foreign: ForeignSpec) -> str:
    """What does not fit, in words, and what may be the reason; nothing where all fits."""
    if not state:
        return "it holds no tensor of that name, or none at all"
    # Networks of before 2018 have no such counters, which only training needs.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    said = []
    if missing:
        said.append(f"{len(missing)} of its {len(own)} tensors are missing ({_some(missing)})")
    if unknown:
        said.append(f"{len(unknown)} are there that it has not ({_some(unknown)})")
    if shapes:
        key = shapes[0]
        said.append(f"{_some(shapes)} have another shape ({key}: {_size(state[key])} for {_size(own[key])})")
    for key in shapes:
        theirs, ours = state[key], own[key]
        if theirs.ndim == 4 and theirs.shape[0] == ours.shape[0] and theirs.shape[1] in (1, 3):
            said.append(f"it takes {theirs.shape[1]} channels, and model.channels={foreign.channels}")
            break
    if shapes and len(own[shapes[-1]]) == len(foreign.classes):
        said.append(f"it answers for {len(state[shapes[-1]])} classes, and classes= names {len(foreign.classes)}")
    return "; ".join(said)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def write_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Writes `content` whole (see `fer.files.write_whole`), with a digest of its weights.

    Raises:
        OSError: as the file system says; `path` is untouched then.
    """
    content = {**content, SPEC_KEY: {**content[SPEC_KEY], "digest": digest(content["state_dict"])}}
    buffer = io.BytesIO()
    torch.save(content, buffer)  # to memory first: torch turns a full disk into an error of another kind
    write_whole(path, buffer.getbuffer())


def write_slim(source: str | Path, target: str | Path) -> None:
    """Writes a copy of a checkpoint that only predicts: the network's weights in half precision, no training state.

    Raises:
        UserError: as `load_network`, or a weight is too great for half precision.
        OSError: as `write_checkpoint`.
    """
    content = read_checkpoint(source)
    spec = read_spec(source, content)
    state = {name: tensor for name, tensor in content["state_dict"].items() if name.startswith(PREFIX)}
    _refuse_odd(source, state)
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError(
            f"checkpoint {source} has weights above 65504, which half precision cannot hold; use it as it is"
        )
    kept: dict[str, Any] = {key: content[key] for key in ("epoch", "global_step", SEEN_KEY) if key in content}
    made = {"provenance": _for_others(content[SPEC_KEY]["provenance"])} if "provenance" in content[SPEC_KEY] else {}
    write_checkpoint({SPEC_KEY: spec.to_dict() | made, "state_dict": state, **kept}, target)


def _for_others(provenance: Any) -> Any:
    """Without the directories of whoever trained: a small copy is what people hand on."""
    if not isinstance(provenance, dict) or not isinstance(provenance.get("command"), str):
        return provenance

    def named(path: str) -> str:
        return Path(path).name if Path(path).is_absolute() else path

    words = []
    for word in shlex.split(provenance["command"]):
        key, sign, value = word.partition("=")
        if key.startswith("hydra."):  # where the run was written
            continue
        several = value.startswith("[") and value.endswith("]")
        words.append(key + sign + (f"[{','.join(map(named, value[1:-1].split(',')))}]" if several else named(value)))
    return provenance | {"command": shlex.join(words)}
