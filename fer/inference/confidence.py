"""The minimum confidence under which an answer counts as uncertain."""

from collections.abc import Mapping

from fer.errors import UserError

_ACCURACY = "0.9"  # share of right answers on the validation split that "auto" stands for


def minimum_confidence(setting: float | str, thresholds: Mapping[str, float]) -> float:
    """`setting`, or for "auto" the confidence from which a checkpoint's answers were right nine times in ten.

    Args:
        setting: a probability, or "auto".
        thresholds: of the checkpoint, confidence by share of right answers, such as {"0.9": 0.81}.

    Raises:
        UserError: "auto" for a checkpoint without that threshold.
    """
    if setting != "auto":
        return float(setting)
    if _ACCURACY not in thresholds:
        raise UserError(
            "min_confidence=auto: this checkpoint does not say from which confidence on it is right nine times in ten; "
            "give a probability such as min_confidence=0.6"
        )
    return thresholds[_ACCURACY]
