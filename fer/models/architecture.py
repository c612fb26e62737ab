"""A network as a short table of its stages, found by watching one face go through it.

Works for every network that is a torch module: ours, timm's, and those of other packages.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fer.models.network import EmotionNetwork

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_FEWEST = 3  # modules: what has fewer at its top is wrapped in something, which is then looked into
_UNSAID = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)  # change nothing in eval mode
OUTSIDE = "outside of these"


@dataclass(frozen=True)
class Row:
    """One stage of a network.

    Attributes:
        stage: its name in the network, such as `stages.0-1`; `face` for the input.
        layers: what it consists of, in words.
        shape: of its output for one face: (channels, height, width), (tokens, width) or (width,); () if unknown.
        parameters: their number; a tensor that two stages share counts once.
        multiply_adds: of convolutions, linear layers and attention for one face.
    """

    stage: str
    layers: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass
class _Unit:
    """One call of a module."""

    name: str
    module: nn.Module
    entered: tuple[int, ...]  # shape of the input
    left: tuple[int, ...]  # of the output
    multiply_adds: int

    @property
    def group(self) -> str:
        """Where blocks of one stage lie; plain layers stand for themselves."""
        is_block = any(map(_has_parameters, self.module.children()))
        return self.name.rpartition(".")[0] + "." if is_block else ""


def rows(network: EmotionNetwork) -> list[Row]:
    """The stages of a network in the order in which they are run, the face first.

    Sums of parameters and multiply-adds are those of the whole network: what belongs to no stage, such as position
    embeddings, has a row of its own at the end.

    Args:
        network: on any device; one face goes through it in eval mode, and nothing of it is changed.
    """
    units, total = _watch(network)
    groups: list[list[_Unit]] = []
    for unit in units:
        if groups and _goes_on(groups[-1], unit):
            groups[-1].append(unit)
        else:
            groups.append([unit])
    size, counted = network.spec.image_size, set[int]()
    found = [Row("face", "standardised" if network.spec.standardise else "normalised", (1, size, size), 0, 0)]
    for group in groups:
        if between := _between(found[-1].shape, group[0].entered):
            found.append(between)
        found.append(
            Row(
                _span(group[0].name, group[-1].name),
                _layers(group),
                group[-1].left,
                sum(_parameters(unit.module, counted) for unit in group),
                sum(unit.multiply_adds for unit in group),
            )
        )
    rest = _parameters(network, counted), total - sum(row.multiply_adds for row in found)
    return [*found, Row(OUTSIDE, "", (), *rest)] if any(rest) else found


def markdown(found: Sequence[Row]) -> str:
    """The rows and their sums as a table in Markdown."""
    lines = ["| stage | layers | output | parameters | multiply-adds |", "| :-- | :-- | --: | --: | --: |"]
    for row in found:
        stage = f"`{row.stage}`" if row.stage else ""
        lines.append(f"| {stage} | {row.layers} | {shown(row.shape)} | {row.parameters:,} | {row.multiply_adds:,} |")
    parameters, multiply_adds = totals(found)
    return "\n".join([*lines, f"| **all** | | | **{parameters:,}** | **{multiply_adds:,}** |"])


def totals(found: Sequence[Row]) -> tuple[int, int]:
    """Parameters and multiply-adds of all rows."""
    return sum(row.parameters for row in found), sum(row.multiply_adds for row in found)


def shown(shape: Sequence[int]) -> str:
    """A shape for a reader: 64 x 24 x 24."""
    return " x ".join(map(str, shape))


def _goes_on(group: Sequence[_Unit], unit: _Unit) -> bool:
    """Whether a unit belongs to the row of those before it: the same kind of thing at the same size, or its pooling."""
    if not _has_parameters(unit.module):
        return True
    pooled = any(not _has_parameters(each.module) and each.left != each.entered for each in group)
    return not pooled and unit.left == group[-1].left and unit.group == group[-1].group


def _watch(network: EmotionNetwork) -> tuple[list[_Unit], int]:
    """The calls of the modules that make up the network, in their order, and all multiply-adds."""
    backbone, size = network.backbone, network.spec.image_size
    units: list[_Unit] = []
    started: list[int] = []
    modes = [(module, module.training) for module in network.modules()]
    parameter = next(network.parameters())
    face = torch.zeros(1, 1, size, size, device=parameter.device, dtype=parameter.dtype)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # torch cannot count what its fused kernel on the CPU does
        work = stack.enter_context(FlopCounterMode(display=False))
        for name, module in _modules(backbone):

            def before(module: nn.Module, inputs: Any) -> None:
                started.append(work.get_total_flops())

            def after(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                added = (work.get_total_flops() - started.pop()) // 2  # torch counts both halves
                units.append(_Unit(name, module, _shape(inputs), _shape(output), added))

            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after).remove)
        try:
            network.eval()
            backbone(face)
        finally:
            for module, training in modes:
                module.training = training
    return units, work.get_total_flops() // 2


def _modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules at stage level: those in containers at the top."""
    found = list(_contents(network)) or [("network", network)]
    while sum(_has_parameters(module) for _, module in found) < _FEWEST:
        sizes = [0 if next(each.children(), None) is None else _parameters(each, set()) for _, each in found]
        if max(sizes) == 0:
            break
        place = sizes.index(max(sizes))
        name, module = found[place]
        found[place : place + 1] = _contents(module, f"{name}.")
    return found


def _contents(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS):
            yield from _contents(child, f"{prefix}{name}.")
        elif not isinstance(child, _UNSAID):
            yield prefix + name, child


def _shape(value: Any) -> tuple[int, ...]:
    """Of the first tensor in inputs or outputs, without the batch; () where there is none."""
    if isinstance(value, Tensor):
        return tuple(value.shape[1:])
    if isinstance(value, dict):
        value = list(value.values())
    return next((shape for each in value if (shape := _shape(each))), ()) if isinstance(value, list | tuple) else ()


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _parameters(module: nn.Module, counted: set[int]) -> int:
    """The number of those not counted yet, which are counted then."""
    fresh = [each for each in module.parameters() if id(each) not in counted]
    counted.update(map(id, fresh))
    return sum(each.numel() for each in fresh)


def _between(before: tuple[int, ...], after: tuple[int, ...]) -> Row | None:
    """What a network does between two of its modules by functions, which no hook sees: features become one vector."""
    if len(after) != 1 or len(before) < 2:
        return None
    return Row("", "flattened" if after[0] == math.prod(before) else "pooled to one vector", after, 0, 0)


def _span(first: str, last: str) -> str:
    """stages.0 and stages.3 as stages.0-3; conv1 and bn1 as conv1-bn1."""
    common, _, end = last.rpartition(".")
    if first == last:
        return first
    return f"{first}-{end}" if common and first.startswith(f"{common}.") else f"{first}-{last}"


def _layers(units: Sequence[_Unit]) -> str:
    """Kinds of modules and how many there are of each, in the order in which they come first."""
    counts = Counter(_kind(unit.module) for unit in units)
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in counts.items())


def _kind(module: nn.Module) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        return f"{name} {module.kernel_size[0]}x{module.kernel_size[1]}"
    return name
