"""The gradient of convolutions' weights as one matrix product where the maps are small, on the CPU in bfloat16.

Torch leaves convolutions on a CPU to oneDNN, whose gradient of the weights is slow for the last stages of a network for
small faces: with AMX it takes twice as long as the product for 256 channels of 6x6, and thirteen times for 512 of 2x2
(docs/runtimes.md).
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from fer import machine

# Positions of the largest map for which the product was measured to be faster: 6x6, 3x3.
_LARGEST_WITH_AMX = 36
_LARGEST = 9

_LIBRARY = torch.library.Library("aten", "IMPL")  # torch takes a replacement back when its library goes


@functools.cache
def use_matrix_product() -> None:
    """From now on backward passes of this process multiply matrices where that is faster, compiled networks' too.

    It sees bfloat16 in the layout of channels last, as networks are trained here in bf16-mixed on a CPU; everything
    else goes to torch as before. Sums are rounded in another order, so a gradient differs in its last bits.
    """
    usual = torch.library.get_kernel("aten::convolution_backward", "CPU")
    largest = _LARGEST_WITH_AMX if machine.units().get("amx_bf16") else _LARGEST

    def backward(
        keys: torch._C.DispatchKeySet,
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
        product = (
            mask[1]
            and gradient.dim() == 4
            and gradient[0, 0].numel() <= largest
            and weight[0, 0].numel() > 1
            and not transposed
            and groups == 1
            and set(dilation) == {1}
            and all(map(_is_channels_last_bfloat16, (gradient, features, weight)))
        )
        asked = [mask[0], mask[1] and not product, mask[2]]
        others = (biases, stride, padding, dilation, transposed, output_padding, groups)
        found: list[Tensor | None] = [None, None, None]
        if any(asked):
            found = list(usual.call_boxed(keys, gradient, features, weight, *others, asked))
        if product:
            found[1] = weight_gradient(gradient, features, (weight.shape[2], weight.shape[3]), stride, padding)
        return tuple(found)

    _LIBRARY.impl("convolution_backward", backward, "CPU", with_keyset=True)


def _is_channels_last_bfloat16(tensor: Tensor) -> bool:
    # Maps of 1x1 and images of one channel can be read either way; torch decides by rules of its own which it means.
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
