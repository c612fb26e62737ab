"""The gradient of convolutions' weights as one matrix product where the maps are small, on the CPU in bfloat16.

Torch leaves convolutions on a CPU to oneDNN, whose gradient of the weights is slow for the last stages of a network for
small faces: with AMX it takes twice as long as the product for 256 channels of 6x6, and twelve times for 512 of 2x2
(docs/runtimes.md).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fer import machine

# Positions of the largest maps for which the product was measured to be faster, by the unit that the processor has.
_LARGEST = {"amx_bf16": 36, "avx512_bf16": 9}


@contextmanager
def matrix_products() -> Iterator[None]:
    """In the block backward passes multiply matrices where that is faster, also those of compiled networks.

    That is for weights and features in bfloat16 and channels last, as networks are trained here in bf16-mixed, without
    groups and dilation; everything else is torch's. It copies each window of the features. Sums are rounded in another
    order, so a gradient differs in its last bits.
    """
    there = machine.units()
    largest = next((positions for unit, positions in _LARGEST.items() if there.get(unit)), 0)
    with torch.library._scoped_library("aten", "IMPL") as library:
        if largest:
            library.impl("convolution_backward", _Backward(largest), "CPU")
        yield


class _Backward:
    """In place of aten::convolution_backward on the CPU.

    Args:
        largest: positions of the maps up to which products are taken.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest

    def __call__(
        self,
        gradient: Tensor,
        features: Tensor,
        weight: Tensor,
        biases: list[int] | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
        mask: list[bool],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of features, weights and bias, as far as `mask` asks for them."""
        product = (
            mask[1]
            and gradient.dim() == 4
            and gradient.shape[2] * gradient.shape[3] <= self._largest
            and len(stride) == len(padding) == 2  # one number stands for both ways
            and not transposed
            and groups == 1
            and set(dilation) == {1}
            and all(map(_is_channels_last_bfloat16, (gradient, features, weight)))
        )
        # oneDNN has the bias from the gradient of the weights alone.
        asked = [mask[0], mask[1] and not product, mask[2] and not product]
        others = (biases, stride, padding, dilation, transposed, output_padding, groups, asked)
        found: list[Tensor | None] = [None, None, None]
        if any(asked):
            # Torch's own, by a way that lets other threads of Python go on meanwhile.
            usual = torch.ops.aten.convolution_backward.default
            key = torch._C.DispatchKey.CompositeExplicitAutograd
            found = list(usual._op_dk(key, gradient, features, weight, *others))
        if product:
            found[1] = weight_gradient(gradient, features, (weight.shape[2], weight.shape[3]), stride, padding)
            found[2] = gradient.sum((0, 2, 3)) if mask[2] else None
        return tuple(found)


def _is_channels_last_bfloat16(tensor: Tensor) -> bool:
    # Maps and windows of 1x1 and images of one channel can be read either way; torch decides by rules of its own which
    # it means. Nor is there anything to gain.
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return last and tensor.dtype == torch.bfloat16


def weight_gradient(
    gradient: Tensor, features: Tensor, kernel: tuple[int, int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """The gradient (O, C, *kernel) of a convolution's weights, in the layout of channels last.

    Args:
        gradient: of what the convolution returned, (B, O, h, w).
        features: what it was given, (B, C, H, W), in channels last as `gradient`.
        kernel: height and width of the weights.
        stride: down and across.
        padding: rows and columns of zeros on each side.
    """
    batch, outputs, height, width = gradient.shape
    down, across = padding
    padded = torch.nn.functional.pad(features.permute(0, 2, 3, 1), (0, 0, across, across, down, down))
    image, row, column, channel = padded.stride()
    windows = padded.as_strided(
        (batch, height, width, *kernel, features.shape[1]),
        (image, row * stride[0], column * stride[1], row, column, channel),
    )
    positions = batch * height * width
    product = gradient.permute(0, 2, 3, 1).reshape(positions, outputs).T @ windows.reshape(positions, -1)
    return product.view(outputs, *kernel, -1).permute(0, 3, 1, 2)
