"""`net`: a plain VGG-style network for 48x48 gray faces. Knows nothing of emotions or preprocessing."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Stages of two conv-BN-ReLU blocks, each stage closed by max-pool and dropout; global average; linear.

    The plain pattern of VGG (Simonyan & Zisserman, arXiv 1409.1556) with batch norm.

    Args:
        num_classes: width of the output.
        widths: channels of each stage; every stage halves the resolution.
        stage_dropout: dropout of whole channels after each stage.
        dropout: dropout before the linear layer.
    """

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stage_dropout: float = 0.1,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        previous = 1
        for width in widths:
            for inputs in (previous, width):
                stages += [
                    nn.Conv2d(inputs, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
            stages += [nn.MaxPool2d(2), nn.Dropout2d(stage_dropout)]
            previous = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(previous, num_classes)

    def forward(self, faces: Tensor) -> Tensor:
        """Float faces (B, 1, H, W) to logits (B, num_classes)."""
        features = torch.flatten(nn.functional.adaptive_avg_pool2d(self.stages(faces), 1), 1)
        logits: Tensor = self.head(self.dropout(features))
        return logits
