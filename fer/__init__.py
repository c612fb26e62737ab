"""Facial-expression recognition on FER2013: data, networks, training, evaluation and live inference."""

__version__ = "0.1.0"
