"""Where a network looks: Grad-CAM maps (Selvaraju et al., arXiv 1610.02391), computed by captum.

Knows nothing of data sets or pictures.
"""

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from fer.models.network import EmotionNetwork

_SIDE = 5  # a map of fewer cells than 5x5 cannot tell the mouth from the eyes


def grad_cam(network: EmotionNetwork, faces: Tensor, classes: Tensor) -> tuple[Tensor, str] | None:
    """What in each face speaks for a class.

    Args:
        network: in eval mode, on the CPU.
        faces: uint8 (N, 1, H, W).
        classes: int64 (N,), the class that each map explains.

    Returns:
        Maps float32 (N, H, W) from 0 to 1, and the name of the layer whose features are explained: the last one with at
        least 5x5 cells. None for a network without such features at its end, as transformers on patches are.
    """
    found = _last_feature_map(network, faces[:1])
    if found is None:
        return None
    name, layer = found
    attributions = LayerGradCam(network, layer).attribute(faces, target=classes, relu_attributions=True)
    maps: Tensor = LayerAttribution.interpolate(attributions, tuple(faces.shape[-2:]), "bilinear")[:, 0].detach()
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12), name


def _last_feature_map(network: EmotionNetwork, face: Tensor) -> tuple[str, nn.Module] | None:
    executed: list[tuple[str, nn.Module, torch.Size]] = []
    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in network.backbone.named_modules():

        def remember(module: nn.Module, _: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor):
                executed.append((name, module, output.shape))

        if name:
            handles.append(module.register_forward_hook(remember))
    try:
        with torch.no_grad():
            network(face)
    finally:
        for handle in handles:
            handle.remove()
    if any(len(shape) == 3 for _, _, shape in executed):  # tokens: what is four-dimensional there is no map
        return None
    maps = [place for place, (_, _, shape) in enumerate(executed) if len(shape) == 4 and min(shape[-2:]) >= _SIDE]
    if not maps or maps[-1] < len(executed) // 3:  # only at the beginning, where features mean little
        return None
    name, module, _ = executed[maps[-1]]
    return name, module
