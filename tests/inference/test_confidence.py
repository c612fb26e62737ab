import pytest

from fer.errors import UserError
from fer.inference.confidence import minimum_confidence


def test_auto_is_the_checkpoints_own() -> None:
    assert minimum_confidence("auto", {"0.8": 0.5, "0.9": 0.8}) == 0.8
    assert minimum_confidence(0.3, {"0.9": 0.8}) == 0.3
    with pytest.raises(UserError, match=r"min_confidence=0\.6"):
        minimum_confidence("auto", {"0.8": 0.5})
