"""Exported networks: files that ONNX Runtime runs. Imports no torch, and the runtime only when it is needed.

What `fer-export` writes is all that is needed: raw faces in, probabilities out, and the class names inside.
docs/export.md says what such a file holds, for programs in other languages.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.files import is_file
from fer.labels import is_class_name
from fer.settings.infer import RUNTIMES

FORMAT = 1  # of what an exported file holds
PREFIX = "fer."  # of our entries among an ONNX file's metadata
INPUT, OUTPUT = "faces", "probabilities"


@dataclass(frozen=True)
class ExportedNetwork:
    """A network without torch, ready to run, for several threads at once.

    Attributes:
        classes: class names in the order of the probabilities.
        temperature: by which the logits are divided inside, before the softmax.
        size: pixels per side of a face, S.
        run: faces uint8 (N, 1, S, S), N >= 1, to probabilities float32 (N, C).
    """

    classes: tuple[str, ...]
    temperature: float
    size: int
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def choose_runtime(path: str | Path, wanted: str = "auto", device: str = "auto") -> str:
    """Which of torch and onnxruntime runs the file.

    Args:
        path: .onnx files are exported networks; any other is a checkpoint.
        wanted: one of `fer.settings.infer.RUNTIMES`; "auto" takes the one that the file is for.
        device: one of `fer.settings.infer.DEVICES`, of which exported networks run on the processor only.

    Raises:
        UserError: an unknown name, a runtime or device that cannot run the file, or a runtime that is not installed.
    """
    path = Path(path)
    if wanted not in RUNTIMES:
        raise UserError(f"runtime={wanted}: there is {', '.join(RUNTIMES)}")
    able = "onnxruntime" if path.suffix.lower() == ".onnx" else "torch"
    if wanted not in ("auto", able):
        way_out = "export it first: fer-export ckpt=FILE" if able == "torch" else f"use runtime={able}"
        raise UserError(f"runtime={wanted} cannot run {path.name}; {way_out}")
    if able == "torch":
        return able
    if device not in ("auto", "cpu"):
        raise UserError(f"device={device}: {path.name} runs on the processor only; give its checkpoint, or device=cpu")
    if importlib.util.find_spec(able) is None:
        raise UserError(f"{path.name} needs ONNX Runtime, which is not installed: pip install 'fer-lightning[onnx]'")
    return able


def load_exported(path: str | Path, threads: int = 1) -> ExportedNetwork:
    """The network of an exported file, by ONNX Runtime, which must be installed.

    Args:
        path: an .onnx file.
        threads: that one call may use.

    Raises:
        UserError: the file is missing, damaged, of something else, or lacks its class names.
    """
    path = Path(path)
    if not is_file(path):
        raise UserError(f"{path} does not exist; fer-export ckpt=FILE writes such files")
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, too
    # Waiting threads sleep, for the reason given in fer/machine.py.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class of its own for each of a dozen causes
        raise _unreadable(path, error) from error
    metadata = session.get_modelmeta().custom_metadata_map
    ours = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    outputs, inputs = session.get_outputs(), session.get_inputs()
    size = inputs[0].shape[-1] if inputs and len(inputs[0].shape) == 4 else None  # text where any size will do
    expected = [(INPUT, "tensor(uint8)", [1, size, size])]
    fits = [(value.name, value.type, value.shape[1:]) for value in inputs] == expected
    count = outputs[0].shape[-1] if [(value.name, len(value.shape)) for value in outputs] == [(OUTPUT, 2)] else None
    description = _described(path, ours, size if fits and isinstance(size, int) else None, count)

    def run(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: faces})[0]
        return result

    return ExportedNetwork(*description, run)


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, kept from reporting its use to its maker over the network, as it does since 1.29.

    Only before its first import; a user who wants it to report sets ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _described(
    path: Path, metadata: Mapping[str, str], size: int | None, outputs: int | str | None
) -> tuple[tuple[str, ...], float, int]:
    """Classes, temperature and size, if metadata and shapes are those that fer.export writes.

    Args:
        path: for messages.
        metadata: our own entries, without prefix.
        size: pixels per side of the faces; None where the input is not the one that fer.export makes.
        outputs: how many probabilities a face gets.
    """
    again = "export the checkpoint again with fer-export"
    if not metadata:
        raise UserError(f"{path} was not written by fer-export: it does not say what goes in and what comes out")
    if metadata.get("format") != str(FORMAT):
        raise UserError(f"{path} was exported by another version of this project; {again}")
    if not metadata.get("classes") or not all(map(is_class_name, metadata["classes"].split(","))):
        raise UserError(f"{path} does not name its classes, so its answers mean nothing; {again}")
    classes = tuple(metadata["classes"].split(","))
    if size is None or outputs != len(classes):
        raise UserError(f"{path} does not take gray faces of one size, or does not answer for its classes; {again}")
    try:
        return classes, float(metadata["temperature"]), size
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} describes itself incompletely; {again}") from error


def _unreadable(path: Path, error: Exception) -> UserError:
    try:
        path.open("rb").close()
    except OSError:
        return UserError(f"{path} may not be read; check its permissions")
    cause = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return UserError(f"{path} is truncated, damaged or no ONNX file; copy or export it again ({cause[:160]})")
