"""Distillation: networks that were trained before help to train another one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fer.checkpoint import load_network
from fer.errors import UserError


class Teachers:
    """What trained networks say on average, for a student to learn (Hinton et al., arXiv 1503.02531).

    A teacher resizes faces to its own size. Of one that knows more classes than the student the others are left out,
    and the rest adds up to one. No module, and never part of the student: neither optimiser, average, DDP nor
    checkpoint know of it.

    Args:
        paths: checkpoints.
        classes: the student's.
        temperature: of the softmax; above 1 the unlikely classes count more.

    Raises:
        UserError: a checkpoint cannot be loaded (see `fer.checkpoint.load_network`), or its network lacks a class.
    """

    def __init__(self, paths: Sequence[Path], classes: Sequence[str], temperature: float) -> None:
        self.temperature = temperature
        # What is drawn for weights that are replaced at once shall not change those of the student.
        with torch.random.fork_rng(devices=[]):
            self.networks = [load_network(path).requires_grad_(False) for path in paths]
        self._indices = []
        for path, network in zip(paths, self.networks, strict=True):
            known = network.spec.classes
            if missing := [name for name in classes if name not in known]:
                raise UserError(
                    f"teacher={path} does not know {', '.join(missing)}; what it can teach is "
                    f"data.classes=[{','.join(known)}], or some of these"
                )
            network.to(memory_format=torch.channels_last)
            self._indices.append(torch.tensor([known.index(name) for name in classes]))
        self._device = torch.device("cpu")

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        """Their mean probabilities, float32 (B, C), in the order of the student's classes.

        Args:
            faces: as for `EmotionNetwork`, (B, 1, H, W); the networks follow them to their device, and compute in the
                precision of the autocast around this call.
        """
        if faces.device != self._device:
            self._device = faces.device
            self.networks = [network.to(faces.device) for network in self.networks]
            self._indices = [index.to(faces.device) for index in self._indices]
        answers = [
            torch.softmax(network(faces)[:, index].float() / self.temperature, dim=1)
            for network, index in zip(self.networks, self._indices, strict=True)
        ]
        return torch.stack(answers).mean(dim=0)
