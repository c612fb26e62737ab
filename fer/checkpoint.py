"""Reading and writing checkpoints as plain data.

A checkpoint is what Lightning writes plus the key `fer`: the `NetworkSpec` as a dict, a digest of the weights, and
`provenance`, what made them. It is always read with `weights_only=True`: a file that carries code is refused, not run.
"""

import hashlib
import io
import pickle
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fer.errors import UserError
from fer.files import write_whole
from fer.models import hand_over
from fer.models.network import EmotionNetwork, NetworkSpec

SPEC_KEY = "fer"
PREFIX = "network."  # of the EmotionNetwork inside the LightningModule's state dict


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The whole content of a checkpoint of this project, on the CPU.

    Raises:
        UserError: missing, damaged, carrying code, or not one of ours; one sentence says which.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; a run's checkpoints are in its checkpoints/ directory")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} is refused: it is damaged, or holds more than plain data, which could run code"
        ) from error
    except PermissionError as error:
        raise UserError(f"checkpoint {path} may not be read; check its permissions") from error
    except Exception as error:  # torch raises half a dozen types for damaged files
        raise UserError(f"{path} is no checkpoint, or was cut off while it was written") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in (SPEC_KEY, "state_dict")):
        raise UserError(f"{path} was not written by this project: it does not say which network it holds")
    written = content[SPEC_KEY].get("digest")
    if written is not None and written != digest(content["state_dict"]):
        raise UserError(f"checkpoint {path} is damaged: its weights are not those that were written; take another copy")
    return content


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


def load_network(path: str | Path, backbone: type[nn.Module] | None = None) -> EmotionNetwork:
    """The trained network of a checkpoint, on the CPU, in eval mode, float32.

    Only the path is needed. The backbone is found by name; nothing is downloaded.

    Args:
        path: the file.
        backbone: the class of a backbone of another package, which is not imported because the file names it.

    Raises:
        UserError: as `read_checkpoint`, or the weights do not fit the network that the file names.
    """
    content = read_checkpoint(path)
    spec = read_spec(path, content)
    if backbone is not None:
        hand_over(spec.name, backbone)
    try:
        network = EmotionNetwork(spec)
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be used: {error}") from error
    state = {
        key.removeprefix(PREFIX): tensor for key, tensor in content["state_dict"].items() if key.startswith(PREFIX)
    }
    if not all(isinstance(tensor, torch.Tensor) and torch.isfinite(tensor).all() for tensor in state.values()):
        raise UserError(f"checkpoint {path} is refused: its weights are not finite; take an earlier one of its run")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"checkpoint {path} does not fit: its weights are not those of {network.spec.name}") from error
    return network.eval()


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
        UserError: as `read_checkpoint`.
        OSError: as `write_checkpoint`.
    """
    content = read_checkpoint(source)
    spec = read_spec(source, content)
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(PREFIX)
    }
    kept: dict[str, Any] = {key: content[key] for key in ("epoch", "global_step") if key in content}
    made = {"provenance": _for_others(content[SPEC_KEY]["provenance"])} if "provenance" in content[SPEC_KEY] else {}
    write_checkpoint({SPEC_KEY: spec.to_dict() | made, "state_dict": state, **kept}, target)


def _for_others(provenance: Any) -> Any:
    """Without the directories of whoever trained: a small copy is what people hand on."""
    if not isinstance(provenance, dict) or not isinstance(provenance.get("command"), str):
        return provenance
    words = [word.partition("=") for word in shlex.split(provenance["command"])]
    named = (key + sign + (Path(value).name if Path(value).is_absolute() else value) for key, sign, value in words)
    return provenance | {"command": shlex.join(named)}
