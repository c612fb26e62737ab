"""Where a setting's default stands a second time, for callers from Python, it is the same."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from fer.checkpoint import ForeignSpec
from fer.data.splits import assign_splits
from fer.inference.analyzer import FaceAnalyzer
from fer.inference.detectors import Haar, YuNet, create_detector
from fer.inference.predictor import Predictor
from fer.models.cnn import CNN
from fer.models.net import Net
from fer.models.senet import SENet
from fer.settings.base import Settings
from fer.settings.compose import CONFIGS
from fer.settings.foreign import ForeignSettings
from fer.settings.infer import DetectorSettings, InferSettings
from fer.settings.train import DataSettings


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


@pytest.mark.parametrize(
    ("function", "settings", "names"),
    [
        (create_detector, DetectorSettings(), "name path score_threshold max_side"),
        (YuNet, DetectorSettings(), "score_threshold max_side"),
        (Haar, DetectorSettings(), "score_threshold max_side"),
        (ForeignSpec, ForeignSettings(), "image_size channels"),
        (assign_splits, DataSettings(), "split val_fraction test_fraction folds fold"),
        # By itself it looks for faces in every frame.
        (FaceAnalyzer, InferSettings(), "smoothing min_confidence"),
        (Predictor.video, InferSettings(), "detect_every smoothing min_confidence"),
    ],
)
def test_a_function_and_the_settings(function: Callable[..., Any], settings: Settings, names: str) -> None:
    given = defaults(function)
    for name in names.split():
        assert given[name] == getattr(settings, name), name


@pytest.mark.parametrize("network", [CNN, Net, SENet])
def test_a_network_and_its_yaml(network: Callable[..., Any]) -> None:
    written = yaml.safe_load((CONFIGS / "model" / f"{network.__name__.lower()}.yaml").read_text())["kwargs"]
    given = defaults(network)
    for name, value in written.items():
        assert (list(given[name]) if isinstance(given[name], tuple) else given[name]) == value, name
