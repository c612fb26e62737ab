"""Facial-expression recognition on FER2013: data, networks, training, evaluation and live inference.

What a program uses, each imported when it is first asked for (an exported network runs without torch):

    from fer import Predictor             pictures in, emotions out
    from fer import EmotionClassifier     the LightningModule
    from fer import load_network          a checkpoint's network, for torch
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.checkpoint import load_network as load_network
    from fer.classifier import EmotionClassifier as EmotionClassifier
    from fer.inference.predictor import Predictor as Predictor

__version__ = "0.2.0"
__all__ = ["EmotionClassifier", "Predictor", "load_network"]

_PLACES = {
    "EmotionClassifier": "fer.classifier",
    "Predictor": "fer.inference.predictor",
    "load_network": "fer.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'fer' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
