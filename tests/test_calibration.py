"""Temperatures, and how far confidences are from shares of right answers."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fer.calibration import ECE_BINS, calibration_error, fit_temperature, measure_calibration, measure_on_halves
from fer.predict import Predictions


def draw(count: int, sharpened: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, 4), sharper than they should be, and classes drawn by what they should be."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(count, 4)) * 2)
    targets = torch.distributions.Categorical(logits=logits).sample()
    return logits * sharpened, targets


def test_temperature_undoes_a_scaling() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 4)) * 2)
    targets = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(logits[None] * 3, targets) == pytest.approx(3, rel=0.1)


def test_the_temperature_of_several_views_is_fitted_to_their_mean() -> None:
    rng = np.random.default_rng(1)
    views = torch.from_numpy(rng.normal(size=(2, 4000, 4)) * 2)
    mean = Predictions(views).probabilities(1.0)
    targets = torch.distributions.Categorical(probs=mean).sample()
    assert fit_temperature(views * 3, targets) == pytest.approx(3, rel=0.1)


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    logits, targets = draw(3000, sharpened=2)
    probabilities = torch.softmax(logits, dim=1)
    confidence, predicted = probabilities.max(dim=1)
    ours = calibration_error(confidence.numpy(), (predicted == targets).numpy())
    assert ours == pytest.approx(float(multiclass_calibration_error(probabilities, targets, 4, n_bins=ECE_BINS)))
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def test_a_calibrated_network_has_the_expected_error_and_an_overconfident_one_more() -> None:
    logits, targets = draw(3000)
    calibrated = measure_calibration(torch.softmax(logits, dim=1).numpy(), targets.numpy())
    assert 0.005 < calibrated["ece_expected"] < 0.025
    assert calibrated["ece"] == pytest.approx(calibrated["ece_expected"], abs=0.01)
    overconfident = measure_calibration(torch.softmax(3 * logits, dim=1).numpy(), targets.numpy())
    assert overconfident["ece"] > 5 * overconfident["ece_expected"]


def test_halves_judge_a_temperature_on_other_rows() -> None:
    logits, targets = draw(400, sharpened=3)
    found = measure_on_halves(Predictions(logits[None]), targets)
    temperature = fit_temperature(logits[None], targets)
    same_rows = measure_calibration(torch.softmax(logits / temperature, dim=1).numpy(), targets.numpy())
    assert found["ece"] > same_rows["ece"]  # on half as many rows that the temperature has not seen
    assert found["ece"] == pytest.approx(found["ece_expected"], abs=0.02)
