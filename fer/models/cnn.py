"""`cnn`: the four-convolution network of the FER2013 tutorials, in PyTorch. Knows nothing of emotions."""

import torch
from torch import Tensor, nn


class CNN(nn.Module):
    """Four convolutions (3x3, 5x5, 3x3, 3x3), each with max-pool and dropout, then two dense layers.

    The layout that Keras tutorials on FER2013 share: 64-128-512-512 channels, dense 256 and 512.

    Args:
        num_classes: width of the output.
        image_size: pixels per side, which the first dense layer depends on; at least 16.
        batch_norm: whether batch norm follows each convolution and dense layer.
        dropout: dropout after each of them.
    """

    def __init__(self, num_classes: int, image_size: int = 48, batch_norm: bool = True, dropout: float = 0.25) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        previous = 1
        for width, kernel in ((64, 3), (128, 5), (512, 3), (512, 3)):
            convolutions.append(nn.Conv2d(previous, width, kernel, padding=kernel // 2, bias=not batch_norm))
            if batch_norm:
                convolutions.append(nn.BatchNorm2d(width))
            convolutions += [nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(dropout)]
            previous = width
        dense: list[nn.Module] = []
        previous *= (image_size // 16) ** 2
        for width in (256, 512):
            dense.append(nn.Linear(previous, width, bias=not batch_norm))
            if batch_norm:
                dense.append(nn.BatchNorm1d(width))
            dense += [nn.ReLU(inplace=True), nn.Dropout(dropout)]
            previous = width
        self.convolutions = nn.Sequential(*convolutions)
        self.dense = nn.Sequential(*dense)
        self.head = nn.Linear(previous, num_classes)

    def forward(self, faces: Tensor) -> Tensor:
        """Float faces (B, 1, image_size, image_size) to logits (B, num_classes)."""
        logits: Tensor = self.head(self.dense(torch.flatten(self.convolutions(faces), 1)))
        return logits
