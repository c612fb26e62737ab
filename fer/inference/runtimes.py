"""Exported networks: files that ONNX Runtime or OpenVINO runs. Imports no torch, and a runtime only when it is needed.

What `python -m fer.export` writes is all that is needed: raw faces in, probabilities out, and the class names inside.
docs/export.md says what such a file holds, for programs in other languages.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.inference.config import RUNTIMES
from fer.inference.crop import SIZE

FORMAT = 1  # of what an exported file holds
PREFIX = "fer."  # of our entries among an ONNX file's metadata
INPUT, OUTPUT = "faces", "probabilities"

_INSTALL = {"onnxruntime": "pip install 'fer-lightning[onnx]'", "openvino": "pip install 'fer-lightning[openvino]'"}
_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class ExportedNetwork:
    """A network without torch, ready to run, for several threads at once.

    Attributes:
        classes: class names in the order of the probabilities.
        temperature: by which the logits are divided inside, before the softmax.
        precision: "fp32", "bf16" or "int8".
        checkpoint: SHA-256 of the checkpoint that was exported.
        run: faces uint8 (N, 1, 48, 48), N >= 1, to probabilities float32 (N, C).
    """

    classes: tuple[str, ...]
    temperature: float
    precision: str
    checkpoint: str
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def choose_runtime(path: str | Path, wanted: str = "auto", device: str = "auto") -> str:
    """Which of torch, onnxruntime and openvino runs the file.

    Args:
        path: .onnx and .xml files are exported networks; any other is a checkpoint.
        wanted: one of `fer.inference.config.RUNTIMES`; "auto" takes the first that is installed, in their order.
        device: one of `fer.inference.config.DEVICES`, of which exported networks run on the processor only.

    Raises:
        UserError: an unknown name, a runtime or device that cannot run the file, or a runtime that is not installed.
    """
    path = Path(path)
    if wanted not in RUNTIMES:
        raise UserError(f"runtime={wanted}: there is {', '.join(RUNTIMES)}")
    able = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}.get(path.suffix.lower(), ("torch",))
    if wanted not in ("auto", *able):
        way_out = (
            "export it first: python -m fer.export ckpt=FILE"
            if able == ("torch",)
            else f"use runtime={' or '.join(able)}"
        )
        raise UserError(f"runtime={wanted} cannot run {path.name}; {way_out}")
    if able == ("torch",):
        return "torch"
    if device not in ("auto", "cpu"):
        raise UserError(f"device={device}: {path.name} runs on the processor only; give its checkpoint, or device=cpu")
    able = able if wanted == "auto" else (wanted,)
    installed = [name for name in able if importlib.util.find_spec(name) is not None]
    if not installed:
        raise UserError(f"{path.name} needs {_NAMES[able[0]]}, which is not installed: {_INSTALL[able[0]]}")
    return installed[0]


def load_exported(path: str | Path, runtime: str, threads: int = 1) -> ExportedNetwork:
    """The network of an exported file.

    Args:
        path: an .onnx file, or an .xml file with its .bin file beside it.
        runtime: "onnxruntime" or "openvino", which must be installed.
        threads: that one call may use.

    Raises:
        UserError: the file is missing, damaged, of something else, or lacks its class names.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; python -m fer.export ckpt=FILE writes such files")
    return (_load_onnxruntime if runtime == "onnxruntime" else _load_openvino)(path, threads)


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, kept from reporting its use to its maker over the network, as it does since 1.29.

    Only before its first import; a user who wants it to report sets ORT_DISABLE_TELEMETRY=0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """The module `openvino`, kept from the same.

    It would report its import through the package openvino_telemetry, and does without where there is none.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _load_onnxruntime(path: Path, threads: int) -> ExportedNetwork:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised, too
    # Waiting threads sleep, for the reason given in fer/inference/threads.py.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class of its own for each of a dozen causes
        raise _unreadable(path, "ONNX", error) from error
    metadata = session.get_modelmeta().custom_metadata_map
    ours = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    outputs, inputs = session.get_outputs(), session.get_inputs()
    fits = [(value.name, value.type, value.shape[1:]) for value in inputs] == [
        (INPUT, "tensor(uint8)", [1, SIZE, SIZE])
    ]
    count = outputs[0].shape[-1] if [value.name for value in outputs] == [OUTPUT] else None
    description = _described(path, ours, fits, count)

    def run(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: faces})[0]
        return result

    return ExportedNetwork(*description, run)


def _load_openvino(path: Path, threads: int) -> ExportedNetwork:
    openvino = import_openvino()
    core = openvino.Core()
    weights = path.with_suffix(".bin")
    is_xml = path.suffix.lower() == ".xml"
    if is_xml and not weights.is_file():
        raise UserError(f"{path} lacks its other half, {weights.name}, which must be in the same directory")
    try:
        model = core.read_model(path)
    except Exception as error:
        raise _unreadable(path, "OpenVINO" if is_xml else "ONNX", error) from error
    if is_xml:
        ours = dict(model.get_rt_info(["fer"]).value) if model.has_rt_info(["fer"]) else {}
        if ours and ours.get("weights_sha256") != _sha256(weights):
            raise UserError(f"{weights} does not belong to {path.name}, or is damaged; copy both files again")
    else:
        every = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
        ours = {key.removeprefix(PREFIX): str(value) for key, value in every.items() if key.startswith(PREFIX)}
    fits = [(value.element_type, value.partial_shape) for value in model.inputs] == [
        (openvino.Type.u8, openvino.PartialShape([-1, 1, SIZE, SIZE]))
    ]
    shape = model.output().partial_shape if len(model.outputs) == 1 else openvino.PartialShape.dynamic()
    count = shape[1].get_length() if shape.rank == 2 and shape[1].is_static else None
    description = _described(path, ours, fits, count)
    settings = {
        # Left alone, OpenVINO computes in bfloat16 wherever the processor can.
        "INFERENCE_PRECISION_HINT": "bf16" if ours["precision"] == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # to a core that another program may be using
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = request.infer([faces], share_inputs=True, share_outputs=True)[0]
        return result

    return ExportedNetwork(*description, run)


def _described(
    path: Path, metadata: Mapping[str, str], fits: bool, outputs: int | str | None
) -> tuple[tuple[str, ...], float, str, str]:
    """Classes, temperature, precision and checkpoint, if metadata and shapes are those that fer.export writes.

    Args:
        path: for messages.
        metadata: our own entries, without prefix.
        fits: whether the input is the one that fer.export makes.
        outputs: how many probabilities a face gets.
    """
    again = "export the checkpoint again with python -m fer.export"
    if not metadata:
        raise UserError(
            f"{path} was not written by python -m fer.export: it does not say what goes in and what comes out"
        )
    if metadata.get("format") != str(FORMAT):
        raise UserError(f"{path} was exported by another version of this project; {again}")
    if not metadata.get("classes"):
        raise UserError(f"{path} does not name its classes, so its answers mean nothing; {again}")
    classes = tuple(metadata["classes"].split(","))
    if not fits or outputs != len(classes):
        raise UserError(f"{path} does not take faces of {SIZE}x{SIZE}, or does not answer for its classes; {again}")
    try:
        return classes, float(metadata["temperature"]), metadata["precision"], metadata["checkpoint_sha256"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} describes itself incompletely; {again}") from error


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    try:
        path.open("rb").close()
    except OSError:
        return UserError(f"{path} may not be read; check its permissions")
    cause = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
    return UserError(f"{path} is truncated, damaged or no {kind} file; copy or export it again ({cause[:160]})")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
