"""One export, from the checkpoint to a file that has been checked and put in its place."""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from fer.checkpoint import load_network
from fer.errors import UserError
from fer.export.check import compare, table
from fer.export.faces import CALIBRATION, load_faces
from fer.export.settings import SUFFIXES, ExportConfig
from fer.inference.predictor import Predictor
from fer.inference.run import find_checkpoint
from fer.inference.runtimes import FORMAT, import_openvino, load_exported
from fer.models.network import NetworkSpec


def export(config: ExportConfig) -> Path:
    """Writes the file, prints how it compares with the checkpoint, and returns its path.

    Raises:
        UserError: something is missing or cannot be used, or the file disagrees with the checkpoint; what was at its
            place before is untouched then.
    """
    _need_tools(config)
    ckpt = find_checkpoint(config.ckpt)
    if ckpt.suffix.lower() in SUFFIXES.values():
        raise UserError(f"ckpt={ckpt} is an exported file already; give the checkpoint that it was made of")
    network = load_network(ckpt)
    spec = network.spec
    suffix = SUFFIXES[config.format]
    stem = ckpt.stem if config.precision == "fp32" else f"{ckpt.stem}_{config.precision}"
    output = Path(config.output).expanduser() if config.output else ckpt.with_name(stem + suffix)
    console = Console()
    with _workplace(output) as folder, _one_thread():
        faces = load_faces(config.data, spec.classes)
        _say(
            console, f"Exporting {ckpt} ({spec.name}, {', '.join(spec.classes)}) to {config.format}, {config.precision}"
        )

        from fer.export import convert  # needs onnx

        model = convert.to_onnx(network)
        if config.precision == "int8":
            _say(console, f"Calibrating with {len(faces.calibration)} training rows, {CALIBRATION} at most")
        metadata = _metadata(spec, ckpt, config.precision)
        draft = folder / output.name
        with _no_space_in_words(output):
            if config.format == "onnx":
                if config.precision == "int8":
                    model = convert.quantise_onnx(model, faces.calibration)
                convert.describe_onnx(model, metadata)
                draft.write_bytes(model.SerializeToString())
            else:
                openvino_model = convert.to_openvino(model)
                if config.precision == "int8":
                    openvino_model = convert.quantise_openvino(openvino_model, faces.calibration)
                _save_openvino(openvino_model, metadata, draft)

        runtime = "onnxruntime" if config.format == "onnx" else "openvino"
        exported = Predictor(load_exported(draft, runtime))
        files = [draft, draft.with_suffix(".bin")][: 1 if config.format == "onnx" else 2]
        comparison = compare(Predictor(network), exported, faces, ([ckpt], files))
        console.print(table(comparison, output.name, (ckpt.name, output.name), faces.source))
        objections = list(comparison.objections(config.precision))
        if objections and not config.force:
            raise UserError(
                f"{output} was not written: {', and '.join(objections)}; "
                "choose another precision, or keep it all the same with force=true"
            )
        del exported
        # The .bin first: an .xml is never there without the weights that it names.
        for file in reversed(files):
            _flush(file)
            file.replace(output.with_suffix(file.suffix))
    for objection in objections:
        _say(console, f"Kept because of force=true, although {objection}")
    written = " and ".join(str(output.with_suffix(file.suffix)) for file in files)
    _say(console, f"Written: {written}")
    _say(console, f"Use it:  python infer.py mode=webcam ckpt={output}")
    return output


def _need_tools(config: ExportConfig) -> None:
    tools = {"onnx": ["onnx", "onnxscript", "onnxruntime"], "openvino": ["onnx", "onnxscript", "openvino"]}
    needed = [*tools[config.format], *(["nncf"] if (config.format, config.precision) == ("openvino", "int8") else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extra = "onnx" if config.format == "onnx" else "openvino"
        raise UserError(
            f"format={config.format} precision={config.precision} needs {', '.join(missing)}, "
            f"not installed here: pip install 'fer-lightning[{extra}]'"
        )


def _metadata(spec: NetworkSpec, ckpt: Path, precision: str) -> dict[str, str]:
    """What an exported file says about itself, see docs/export.md."""
    with ckpt.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "format": str(FORMAT),
        "classes": ",".join(spec.classes),
        "temperature": repr(spec.temperature),
        "precision": precision,
        "network": spec.name,
        "checkpoint_sha256": digest,
    }


def _save_openvino(model: Any, metadata: dict[str, str], path: Path) -> None:
    """Writes path and its .bin, with the digest of the one in the other, so that halves of two exports are noticed."""
    openvino = import_openvino()
    model.set_rt_info(metadata, ["fer"])
    half = metadata["precision"] == "bf16"  # float16 has more digits than bfloat16, which computes with them
    openvino.save_model(model, path, compress_to_fp16=half)
    with path.with_suffix(".bin").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    model.set_rt_info(digest, ["fer", "weights_sha256"])
    openvino.save_model(model, path, compress_to_fp16=half)


@contextmanager
def _workplace(output: Path) -> Iterator[Path]:
    """A directory beside `output`, gone afterwards: what is moved from it to `output` is there whole or not at all."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}); choose another place with output=") from error
    with folder as path:
        yield Path(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For torch: the comparison is of one thread with one, and the rest is not faster with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_space_in_words(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error.strerror or error}); make room, or choose output="
        ) from error


def _flush(file: Path) -> None:
    """To the disk, so that a crash right after the move leaves no empty file."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
