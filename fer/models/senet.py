"""`senet`: a residual network with squeeze-and-excitation for 48x48 gray faces.

Knows nothing of emotions or preprocessing. The squeeze-and-excitation layer is written here although timm and
torchvision have one: importing either adds more than a second to the start of a webcam.
"""

import torch
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Reweights channels by a gate computed from their global averages (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        gate = nn.functional.adaptive_avg_pool2d(features, 1)
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(gate))))
        return features * gate


class SEBlock(nn.Module):
    """Basic residual block (He et al., arXiv 1512.03385) with squeeze-and-excitation before the addition."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs, reduction),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            # Average pooling keeps what a strided 1x1 convolution would skip (ResNet-D, He et al., arXiv 1812.01187).
            pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return torch.relu(self.residual(features) + self.shortcut(features))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class SENet(nn.Module):
    """SE-ResNet for small faces; every stage but the first halves the resolution.

    Args:
        num_classes: width of the output.
        widths: channels of each stage.
        blocks: residual blocks of each stage, as many entries as `widths`.
        reduction: squeeze ratio of the gates.
        dropout: dropout before the linear layer.
        stem_width: None for a stem of one 3x3 convolution that keeps all 48x48 pixels. A number for a stem of two, with
            so many channels between them, the second of stride 2: blocks at full resolution are cheap in
            multiplications but take half of the time, most of it moving features through memory.
    """

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...] = (64, 128, 256),
        blocks: tuple[int, ...] = (1, 2, 2),
        reduction: int = 16,
        dropout: float = 0.3,
        stem_width: int | None = 16,
    ) -> None:
        super().__init__()
        if stem_width is None:
            self.stem = _convolution(1, widths[0])
        else:
            self.stem = nn.Sequential(_convolution(1, stem_width), _convolution(stem_width, widths[0], stride=2))
        stages: list[nn.Module] = []
        previous = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(SEBlock(previous, width, stride, reduction))
                previous = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(previous, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, faces: Tensor) -> Tensor:
        """Float faces (B, 1, H, W) to logits (B, num_classes)."""
        features = self.stages(self.stem(faces))
        features = torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1)
        logits: Tensor = self.head(self.dropout(features))
        return logits
