"""One export, from the checkpoint to a file that has been checked and put in its place."""

import hashlib
import importlib.util
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from fer.checkpoint import load_network, write_slim
from fer.errors import UserError
from fer.export.check import Comparison, compare, table
from fer.export.faces import CALIBRATION, load_faces
from fer.export.recalibrate import recalibrate
from fer.files import at_home, is_file, write_whole
from fer.inference.predictor import Predictor, foreign_spec
from fer.inference.run import find_checkpoint, say
from fer.inference.runtimes import FORMAT, load_exported
from fer.labels import resolve_classes
from fer.models.network import NetworkSpec
from fer.settings.export import ExportSettings

_SUFFIX = ".onnx"


def export(settings: ExportSettings) -> Path:
    """Writes the file, prints how it compares with the checkpoint, and returns its path.

    Raises:
        UserError: something is missing or cannot be used, or the file disagrees with the checkpoint; what was at its
            place before is untouched then.
    """
    if settings.format == "ckpt":
        return _small_copy(settings)
    _need_tools()
    ckpt = find_checkpoint(settings.ckpt)
    if ckpt.suffix.lower() == _SUFFIX:
        raise UserError(f"ckpt={ckpt} is an exported file already; give the checkpoint that it was made of")
    network = load_network(ckpt, foreign=foreign_spec(settings.model, _names(settings.classes)))
    spec = network.spec
    stem = ckpt.stem if settings.precision == "fp32" else f"{ckpt.stem}_{settings.precision}"
    output = at_home(settings.output) if settings.output else ckpt.with_name(stem + _SUFFIX)
    console = Console()
    with _workplace(output) as folder, _one_thread():
        faces = load_faces(settings.data, spec.classes, spec.size)
        say(console, f"Exporting {ckpt} ({spec.name}, {', '.join(spec.classes)}), {settings.precision}")

        from fer.export import convert  # needs onnx

        model = convert.to_onnx(network)
        draft = folder / output.name
        with _no_space_in_words(output):
            if settings.precision == "int8":
                say(console, f"Calibrating with {len(faces.calibration)} training rows, {CALIBRATION} at most")
                model = convert.quantise_onnx(model, faces.calibration)
            convert.describe_onnx(model, _metadata(spec, ckpt, settings.precision))
            write_whole(draft, model.SerializeToString())

        comparison = compare(Predictor(network), Predictor(load_exported(draft)), faces, (ckpt, draft))
        console.print(table(comparison, output.name, (ckpt.name, output.name), faces.source))
        objections = _judged(comparison, settings.precision, settings, output)
        draft.replace(output)
    _tell(console, output, objections)
    say(console, f"Use it:  python infer.py mode=webcam {shlex.quote(f'ckpt={output}')}")
    return output


def _small_copy(settings: ExportSettings) -> Path:
    """A checkpoint without training state, in half precision."""
    output = at_home(str(settings.output))
    ckpt = find_checkpoint(settings.ckpt)
    if is_file(output) and output.samefile(ckpt):
        raise UserError(
            f"output={output} is the checkpoint itself, whose training could not go on; choose another name"
        )
    classes = None if settings.classes is None else resolve_classes(settings.classes)
    console = Console()
    with _workplace(output) as folder, _one_thread():
        whole = ckpt
        draft = folder / output.name
        with _no_space_in_words(output):
            if settings.data is not None:
                whole = recalibrate(ckpt, classes, settings.data, folder / "calibrated" / ckpt.name)
            write_slim(whole, draft)
        network = load_network(whole)
        faces = load_faces(settings.data, network.spec.classes, network.spec.size)
        comparison = compare(Predictor(network), Predictor(load_network(draft)), faces, (ckpt, draft))
        console.print(table(comparison, output.name, (ckpt.name, output.name), faces.source))
        objections = _judged(comparison, "half", settings, output)
        draft.replace(output)
    _tell(console, output, objections)
    return output


def _names(classes: int | str | Sequence[str] | None) -> Sequence[str] | None:
    """Of a checkpoint of another project; `ExportSettings` takes nothing but a list there."""
    return None if classes is None or isinstance(classes, int | str) else classes


def _judged(comparison: Comparison, precision: str, settings: ExportSettings, output: Path) -> list[str]:
    """What speaks against the file, which is refused for that unless the person wants it."""
    objections = list(comparison.objections(precision))
    if objections and not settings.force:
        way_out = "choose another precision, or keep" if settings.format == "onnx" else "use format=onnx, or keep"
        raise UserError(
            f"{output} was not written: {', and '.join(objections)}; {way_out} it all the same with force=true"
        )
    return objections


def _tell(console: Console, output: Path, objections: Sequence[str]) -> None:
    for objection in objections:
        say(console, f"Kept because of force=true, although {objection}")
    say(console, f"Written: {output}")


def _need_tools() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the export needs {', '.join(missing)}, not installed here: pip install 'fer-lightning[onnx]'")


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
