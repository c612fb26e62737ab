"""Weight gradients by a matrix product: the right ones, where they are meant, and torch's everywhere else."""

from typing import Any
from unittest.mock import patch

import forked
import pytest
import torch
from torch import Tensor, nn

from fer.training import weight_gradient
from fer.training.weight_gradient import use_matrix_product


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


class Small(nn.Sequential):
    """Of its six convolutions the second and the third have maps, windows and groups that a product is meant for."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 8, 3, padding=1),  # 12x12
            nn.Conv2d(8, 8, 3, stride=4, padding=1),  # 3x3
            nn.Conv2d(8, 8, 2),  # 2x2
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1, groups=2),
            nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        )


def gradients(network: nn.Module, layout: torch.memory_format, half: bool) -> list[Tensor]:
    torch.manual_seed(0)
    faces = torch.randn(4, 2, 12, 12).to(memory_format=layout)
    network.to(memory_format=layout).zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        answers = network(faces)
    answers.float().square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def compare(queue: Any) -> None:
    torch.manual_seed(1)
    network = Small()
    cases = [(torch.channels_last, True), (torch.channels_last, False), (torch.contiguous_format, True)]
    before = [gradients(network, *case) for case in cases]
    use_matrix_product()
    for case, usual in zip(cases, before, strict=True):
        with patch.object(weight_gradient, "weight_gradient", wraps=weight_gradient.weight_gradient) as product:
            after = gradients(network, *case)
        apart = [float((mine - torchs).norm() / torchs.norm()) for mine, torchs in zip(after, usual, strict=True)]
        queue.put((product.call_count, apart))


def test_small_maps_alone_and_to_the_rounding() -> None:
    context = forked.context()  # what is replaced stays so in its process
    queue = context.Queue()
    process = context.Process(target=compare, args=(queue,))
    process.start()
    (half, nearly), (whole, same), (first, also) = [queue.get(timeout=60) for _ in range(3)]
    process.join()
    assert half == 2
    assert len(nearly) == 12
    assert max(nearly) < 0.02
    assert (whole, max(same)) == (0, 0)
    assert (first, max(also)) == (0, 0)
