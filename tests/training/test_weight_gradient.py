"""Weight gradients by a matrix product: the right ones, where they are meant, and torch's everywhere else."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from torch import Tensor, nn

from fer import machine
from fer.settings.train import TrainSettings
from fer.training import weight_gradient
from fer.training.run import train
from fer.training.weight_gradient import matrix_products

Settings = Callable[..., TrainSettings]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((3, 3), (1, 1), (1, 1), (6, 6)),
        ((3, 3), (2, 2), (1, 1), (12, 11)),  # the last column of windows is not at the edge
        ((3, 3), (1, 1), (0, 0), (3, 3)),
        ((5, 3), (2, 1), (2, 0), (6, 5)),
        ((2, 2), (2, 2), (0, 0), (7, 7)),
    ],
)
def test_it_is_the_gradient(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]
) -> None:
    features = torch.randn(3, 4, *size, dtype=torch.double).to(memory_format=torch.channels_last)
    weights = torch.randn(5, 4, *kernel, dtype=torch.double, requires_grad=True)
    answers = nn.functional.conv2d(features, weights, stride=stride, padding=padding)
    gradient = torch.randn_like(answers)
    answers.backward(gradient)
    assert weights.grad is not None
    found = weight_gradient.weight_gradient(gradient, features, kernel, stride, padding)
    torch.testing.assert_close(found, weights.grad)
    assert found.is_contiguous(memory_format=torch.channels_last)


def backward(**other: Any) -> tuple[tuple[Tensor | None, ...], int]:
    """The gradients of a convolution of 3x3 maps, torch's or ours, and how many products were taken."""
    asked: dict[str, Any] = {
        "size": (4, 8, 3, 3),
        "kernel": (8, 8, 3, 3),
        "dtype": torch.bfloat16,
        "layout": torch.channels_last,
        "stride": [1, 1],
        "padding": [1, 1],
        "dilation": [1, 1],
        "transposed": False,
        "groups": 1,
        "mask": [True, True, True],
    } | other
    torch.manual_seed(0)
    features, weight = (torch.randn(asked[name], dtype=asked["dtype"]) for name in ("size", "kernel"))
    features, weight = (each.to(memory_format=asked["layout"]) for each in (features, weight))
    rest = [asked[name] for name in ("stride", "padding", "dilation", "transposed")]
    gradient = torch.randn_like(torch.ops.aten.convolution(features, weight, None, *rest, [0, 0], asked["groups"]))
    bias = [weight.shape[1] * asked["groups"] if asked["transposed"] else len(weight)]
    with patch.object(weight_gradient, "weight_gradient", wraps=weight_gradient.weight_gradient) as taken:
        found = torch.ops.aten.convolution_backward(
            gradient, features, weight, bias, *rest, [0, 0], asked["groups"], asked["mask"]
        )
    return found, taken.call_count


UNITS = {"AMX": {"amx_bf16": True, "avx512_bf16": True}, "AVX512": {"avx512_bf16": True}, "neither": {}}


@pytest.mark.parametrize("mask", list(product([True, False], repeat=3)))
def test_as_torch_whatever_is_asked_for(mask: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "units", lambda: UNITS["AVX512"])
    usual, none = backward(mask=mask)
    with matrix_products():
        ours, taken = backward(mask=mask)
    after, gone = backward(mask=mask)
    assert (none, taken, gone) == (0, int(mask[1]), 0)
    for mine, torchs, again in zip(ours, usual, after, strict=True):
        if torchs is None:
            assert mine is None
            continue
        assert mine is not None
        assert again is not None
        torch.testing.assert_close(mine, torchs, rtol=0.02, atol=0.02)
        assert (mine.dtype, mine.stride()) == (torchs.dtype, torchs.stride())
        assert torch.equal(again, torchs)


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": torch.float32},
        {"layout": torch.contiguous_format},
        {"size": (4, 8, 4, 4)},
        {"size": (4, 8, 1, 1)},
        {"kernel": (8, 8, 1, 1), "padding": [0, 0]},
        {"kernel": (8, 4, 3, 3), "groups": 2},
        {"dilation": [2, 2], "padding": [2, 2]},
        {"transposed": True},
        {"stride": [1], "padding": [0], "dilation": [1]},  # what padding="valid" comes to
        {"size": (0, 8, 3, 3)},
    ],
    ids=str,
)
def test_the_rest_is_torchs(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "units", lambda: UNITS["AVX512"])
    usual, _ = backward(**other)
    with matrix_products():
        ours, taken = backward(**other)
    assert taken == 0
    for mine, torchs in zip(ours, usual, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=0, atol=0)


@pytest.mark.parametrize(("units", "taken"), [("AMX", [3, 6]), ("AVX512", [3]), ("neither", [])])
def test_the_processor_decides_how_large_a_map_may_be(
    units: str, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "units", lambda: UNITS[units])
    with matrix_products():
        assert [side for side in (3, 6, 7) if backward(size=(4, 8, side, side))[1]] == taken


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_a_training_on_the_cpu_takes_them_in_half_precision(
    precision: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = Mock(wraps=matrix_products)
    monkeypatch.setattr("fer.training.run.matrix_products", entered)
    train(settings(f"trainer.precision={precision}", "trainer.max_epochs=1"), tmp_path)
    assert entered.call_count == (precision == "bf16-mixed")
