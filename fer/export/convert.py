"""From a network in torch to ONNX, in float32 or in 8 bits: torch.export traces it, torch.onnx translates."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

import fer
from fer.errors import UserError, first_line
from fer.inference.runtimes import INPUT, OUTPUT, PREFIX, import_onnxruntime
from fer.models.network import EmotionNetwork

OPSET = 20  # of ONNX; ONNX Runtime knows it since 1.17 (2024), in browsers too
_LIMIT = 2**31 - 2**20  # bytes that one protobuf message may have, with some room for the graph
_CALIBRATION_BATCH = 32

# What is computed in 8 bits: the layers with weights, and what lies between them in residual networks. Softmax and
# layer norm lose more by it than time is gained.
_QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "AveragePool"]


class _Calibrated(nn.Module):
    """`EmotionNetwork.probabilities` in a form that can be traced."""

    shrink: Tensor | None

    def __init__(self, network: EmotionNetwork) -> None:
        super().__init__()
        self.network = network
        stored, size = network.spec.size, network.spec.image_size
        # Shrinking as two products of matrices: OpenVINO 2026.4 leaves out the antialiasing of ONNX's Resize.
        self.register_buffer("shrink", _resizing(stored, size) if size < stored else None)

    def forward(self, faces: Tensor) -> Tensor:
        """Faces uint8 (B, 1, S, S) to probabilities float32 (B, C)."""
        pixels = faces.float()
        if self.shrink is not None:
            pixels = self.shrink @ pixels @ self.shrink.T
        return torch.softmax(self.network(pixels) / self.network.spec.temperature, dim=1)


def to_onnx(network: EmotionNetwork) -> onnx.ModelProto:
    """The network in float32 with its preprocessing and its temperature, for any number of faces.

    Args:
        network: on the CPU.

    Raises:
        UserError: it cannot be traced, has an operation that ONNX lacks, or is too large for one file.
    """
    name, size = network.spec.name, network.spec.size
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > _LIMIT:
        raise UserError(f"{name} cannot be exported: one ONNX file holds 2 GB at most, and its weights are more")
    module = _Calibrated(network).eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (torch.zeros(2, 1, size, size, dtype=torch.uint8),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"faces": {0: "batch"}},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the network's own code, the tracer or the translator raises
        raise UserError(f"{name} cannot be exported: {_cause(error)}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _forget_origin(model)
    return model


def quantise_onnx(model: onnx.ModelProto, faces: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """The same in 8 bits: weights per output channel, activations by their range over `faces`, uint8 (K, S, S).

    Static quantisation of ONNX Runtime, as quantise-dequantise pairs.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(faces), _CALIBRATION_BATCH)
            self.batches = iter([{INPUT: faces[start : start + _CALIBRATION_BATCH, None]} for start in starts])

        def get_next(self) -> Any:
            return next(self.batches, None)

    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,  # with int8 activations convolutions were as slow as in float32
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_QUANTISED,
        )
        return onnx.load(path)


def describe_onnx(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Puts `metadata` and what goes in and comes out into the model."""
    onnx.helper.set_model_props(model, {PREFIX + key: value for key, value in metadata.items()})
    model.producer_name, model.producer_version = "fer-lightning", fer.__version__
    size = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    model.doc_string = (
        f"{INPUT}: gray faces, uint8 (batch, 1, {size}, {size}), 0 to 255. "
        f"{OUTPUT}: float32 (batch, classes), each row sums to 1, in the order of the metadata's {PREFIX}classes."
    )


def _resizing(stored: int, size: int) -> Tensor:
    """What `EmotionNetwork` does along one side, as a matrix (size, stored)."""
    identity = torch.eye(stored)[None, None]
    return nn.functional.interpolate(identity, (size, stored), mode="bilinear", antialias=True)[0, 0]


def _forget_origin(model: onnx.ModelProto) -> None:
    """Removes what torch notes about every node: stack traces with the paths of this computer, and more of the kind."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _cause(error: BaseException) -> str:
    """The first line of what went wrong, without the exporter's own introduction to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to preprocess, which torch's exporter has done already, its own on operators, and the like."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
