"""What may be set for `python -m fer.export`. Knows nothing of how it is used."""

from dataclasses import dataclass

PRECISIONS = ("fp32", "bf16", "int8")
FORMATS = ("onnx", "openvino")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class ExportConfig:
    """All settings; `fer.export.__main__` says what they mean."""

    ckpt: str
    format: str = "onnx"
    precision: str = "fp32"
    output: str | None = None
    data: str | None = None
    force: bool = False
