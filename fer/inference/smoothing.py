"""Calms one face's probabilities and label over time. Knows nothing of where they come from."""

import math

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]  # (C,)

_MARGIN = 0.1  # of probability by which another class must lead before it takes the label


class Smoother:
    """Exponential smoothing in time, and a label that does not flicker.

    The weight of the past falls by 1/e in `time_constant` seconds, whatever the frame rate: over a step of d seconds
    the new frame enters with 1 - exp(-d / time_constant). The label has hysteresis: it goes to another class only when
    that class's smoothed probability is ahead by 0.1.

    Args:
        time_constant: seconds; 0 takes every frame as it is, the label too.
    """

    def __init__(self, time_constant: float) -> None:
        self._time_constant = time_constant
        self._time = 0.0
        self._smoothed: Probabilities | None = None
        self._label = 0

    def __call__(self, probabilities: Probabilities, time: float) -> tuple[Probabilities, int]:
        """The smoothed probabilities (C,) and the label's index, after a frame at `time` seconds."""
        if self._smoothed is None or self._time_constant == 0:
            self._smoothed = probabilities
            self._label = int(probabilities.argmax())
        else:
            weight = 1 - math.exp(-max(0.0, time - self._time) / self._time_constant)
            self._smoothed = (self._smoothed + weight * (probabilities - self._smoothed)).astype(np.float32)
            best = int(self._smoothed.argmax())
            if self._smoothed[best] > self._smoothed[self._label] + _MARGIN:
                self._label = best
        self._time = time
        return self._smoothed, self._label
