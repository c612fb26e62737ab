"""Every setting of `fer-export`, said once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from fer.files import at_home, is_there
from fer.settings.base import PathText, Settings, setting
from fer.settings.foreign import ForeignSettings
from fer.settings.train import Classes


def _as_typed(value: Any, check: ValidatorFunctionWrapHandler, others: ValidationInfo) -> Any:
    """The classes of a checkpoint of another project are taken as infer.py takes them."""
    if getattr(others.data.get("model"), "name", None) is None:
        return check(value)
    if not isinstance(value, list):
        raise ValueError("of a checkpoint of another project it is a list, in the order of its answers")
    return [str(name) for name in value]


class ExportSettings(Settings):
    """All settings of the export."""

    ckpt: PathText | None = setting(None, "the .ckpt file, or the folder of a run, to export")
    format: Literal["onnx", "ckpt"] = setting(
        "onnx", "which ONNX Runtime, OpenVINO and TensorRT read; or ckpt: a small copy that only predicts"
    )
    precision: Literal["fp32", "int8"] = setting("fp32", "int8 is measured on training rows and needs data=")
    output: PathText | None = setting(None, "the file to write; null: beside the checkpoint")
    data: PathText | None = setting(
        None,
        "labelled faces, as train.py's data.path takes them, or synthetic: training rows calibrate int8, "
        "validation rows compare accuracies, and calibrate format=ckpt anew; null: the comparison is on drawn faces",
    )
    model: ForeignSettings = setting(ForeignSettings, "")
    classes: Annotated[Classes, WrapValidator(_as_typed)] | None = setting(
        None,
        "of format=ckpt: a network with the answers of these classes alone, calibrated on data; "
        "of a checkpoint of another project: what it answers, in its order, [angry,happy,...]",
    )
    force: bool = setting(False, "keep a file that disagrees with the checkpoint")

    def contradictions(self) -> Iterator[str]:
        """Settings that make no sense together, a sentence each."""
        if self.ckpt is None:
            yield "ckpt is missing: give the .ckpt file, or the folder of a run, to export"
        if self.output is not None and Path(self.output).suffix.lower() != f".{self.format}":
            yield f"output={self.output}: the file of format={self.format} ends in .{self.format}"
        if self.format == "ckpt" and self.output is None:
            yield "format=ckpt needs output=FILE.ckpt: the small copy's name"
        if self.data not in (None, "synthetic") and not is_there(at_home(str(self.data))):
            yield f"data={self.data} does not exist; give labelled faces, or synthetic"
        if self.model.name is not None and self.format == "ckpt":
            yield "model.name= is for format=onnx: format=ckpt copies checkpoints of this project"
        if self.classes is not None and self.format != "ckpt" and self.model.name is None:
            yield (
                "classes needs format=ckpt: restrict the checkpoint first, then export it; "
                "or say what a checkpoint of another project holds: model.name="
            )
        if self.classes is not None and self.data is None and self.model.name is None:
            yield "classes needs data=PATH: the answers that are left are calibrated on its validation rows"
        if self.precision == "int8" and self.format == "ckpt":
            yield "precision=int8 is for format=onnx: format=ckpt writes half precision"
        elif self.precision == "int8" and self.data is None:
            yield "precision=int8 needs data=PATH: the ranges of 8-bit numbers are measured on training rows"
