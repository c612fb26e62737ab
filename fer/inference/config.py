"""What may be set for infer.py, and whether what was set makes sense. Knows nothing of how it is used.

Plain dataclasses; infer.py lets Hydra check names and types against them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer.command_line import did_you_mean

MODES = ("webcam", "video", "image")
FORMATS = ("jsonl", "csv")
RUNTIMES = ("auto", "torch", "onnxruntime", "openvino")  # the earlier the better, where several can run a file
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class DetectorConfig:
    """Arguments of `fer.inference.detectors.create_detector`."""

    name: str = "auto"
    path: str | None = None
    score_threshold: float = 0.7
    max_side: int = 640


@dataclass
class InferConfig:
    """All settings of infer.py; configs/infer.yaml says what they mean."""

    mode: str | None = None
    source: str | None = None
    recursive: bool = False
    output: str | None = None
    format: str = "jsonl"
    window: Any = "auto"
    ckpt: str | None = None
    runtime: str = "auto"
    device: str = "auto"
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    detect_every: int = 2
    smoothing: float = 0.4
    min_confidence: float = 0.0
    threads: int | None = None


def mistakes(config: InferConfig) -> list[str]:
    """Every setting whose value makes no sense, a sentence each; files are not looked for."""
    return list(_mistakes(config))


def _mistakes(config: InferConfig) -> Iterator[str]:
    if config.mode is None:
        yield "mode is missing: give mode=webcam, or mode=video source=clip.mp4, or mode=image source=photo.jpg"
    elif config.mode not in MODES:
        yield f"mode={config.mode}: there is {', '.join(MODES)}{did_you_mean(config.mode, MODES)}"
    elif config.mode != "webcam" and not config.source:
        example = "clip.mp4" if config.mode == "video" else "photo.jpg"
        yield f"source is missing: mode={config.mode} needs one, for example source={example}"
    if config.format not in FORMATS:
        yield f"format={config.format}: there is {', '.join(FORMATS)}{did_you_mean(config.format, FORMATS)}"
    if config.window not in ("auto", True, False):
        yield f"window={config.window}: there is auto, true, false"
    if config.runtime not in RUNTIMES:
        yield f"runtime={config.runtime}: there is {', '.join(RUNTIMES)}{did_you_mean(config.runtime, RUNTIMES)}"
    if config.device not in DEVICES:
        yield f"device={config.device}: there is {', '.join(DEVICES)}{did_you_mean(config.device, DEVICES)}"
    if config.detect_every < 1:
        yield f"detect_every={config.detect_every}: faces are looked for in every picture (1), in every second (2), ..."
    if not 0 <= config.smoothing < math.inf:
        yield f"smoothing={config.smoothing}: give seconds, such as 0.4, or 0 for none"
    if not 0 <= config.min_confidence <= 1:
        yield f"min_confidence={config.min_confidence}: give a probability between 0 and 1"
    if config.threads is not None and config.threads < 1:
        yield f"threads={config.threads}: give a number of threads of at least 1, or null to let the program choose"
    detector = config.detector
    if not 0 < detector.score_threshold < 1:
        yield f"detector.score_threshold={detector.score_threshold}: give a score between 0 and 1"
    if detector.max_side < 32:
        yield f"detector.max_side={detector.max_side}: faces cannot be found in fewer than 32 pixels"
    if detector.path is not None and not Path(detector.path).expanduser().is_file():
        yield f"detector.path={detector.path} does not exist; it is the .onnx file of YuNet"
