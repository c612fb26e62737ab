"""Networks by name: our own, a file each, every network of timm, and those of other packages (`package.module:Class`).

`create` is the only way in. Knows nothing of emotions, data or training; timm is imported only when one of its
networks is asked for, because that costs more than a second.
"""

import difflib
import importlib
import importlib.metadata
import inspect
import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fer.errors import UserError, first_line
from fer.models.cnn import CNN
from fer.models.net import Net
from fer.models.senet import SENet

log = logging.getLogger(__name__)

OWN: dict[str, type[nn.Module]] = {"net": Net, "senet": SENet, "cnn": CNN}

# Networks of other packages that this process may build: a person named them, or an installed package registers them. A
# checkpoint that names one is not enough, because to import a module is to run it.
_HANDED_OVER: dict[str, type[nn.Module]] = {}
_ENTRY_POINTS = "fer.networks"

# Arguments of timm's networks that may be text: they name a layer. Any other text could name a file or a download.
_NAMES_OF_LAYERS = (
    *("act_layer", "norm_layer", "aa_layer", "attn_layer", "block_fn", "conv_layer", "drop_block", "embed_layer"),
    *("global_pool", "gate_layer", "mlp_layer", "pos_embed", "rope_type", "se_layer", "stem_type", "swiglu_mlp"),
)
# Arguments of timm.create_model that fetch or read weights, and those that are given by the settings around them.
_NOT_ARGUMENTS = ("pretrained", "checkpoint_path", "cache_dir", "num_classes", "in_chans", "scriptable", "exportable")


def create(
    name: str,
    num_classes: int,
    image_size: int = 48,
    pretrained: bool = False,
    stem_stride: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    channels: int = 1,
) -> nn.Module:
    """A network that takes float faces (B, channels, image_size, image_size) and returns logits (B, num_classes).

    Args:
        name: a key of `OWN`, a name of `timm.list_models()`, or `package.module:Class` of a network that was handed
            over (`hand_over`) or is an entry point of the group `fer.networks`.
        num_classes: width of the output.
        image_size: pixels per side of the input.
        pretrained: start from timm's ImageNet weights; the first layer is adapted to one channel by summing over
            RGB, the last one is new. Needs a network connection the first time.
        stem_stride: stride of the first convolution of a timm network; None leaves it as published. Networks for
            224 px shrink 48 px to one or two pixels; a smaller stride keeps more of the face, and keeps the weights.
        kwargs: further arguments of the network's constructor.
        channels: of the input; our own networks take 1.

    Raises:
        UserError: unknown name or argument, an image size that the network cannot take, or weights that cannot be had.
    """
    arguments = dict(kwargs or {})
    check_arguments(name, arguments)
    if name in OWN or is_foreign(name):
        if pretrained:
            raise UserError(
                f"model.pretrained: there are no ImageNet weights for {name}; "
                "use model.weights=FILE, or a timm network such as model=resnet18"
            )
        if stem_stride is not None:
            raise UserError(f"model.stem_stride is for timm networks; {name} is built for 48x48 already")
        if name in OWN and channels != 1:
            raise UserError(f"model.channels={channels}: {name} takes gray faces, of 1 channel")
        network = _create_own(_class_of(name), name, num_classes, image_size, arguments)
        if is_foreign(name):
            _check_forward(network, name, num_classes, image_size, channels)
        return network
    return _create_timm(name, num_classes, image_size, pretrained, stem_stride, arguments, channels)


def is_foreign(name: str) -> bool:
    """Whether a name is that of a network of another package, `package.module:Class`."""
    return re.fullmatch(r"[\w.]+:\w+", name) is not None


def hand_over(name: str, network: type[nn.Module] | None = None) -> None:
    """Lets this process build a network of another package.

    Args:
        name: `package.module:Class`, as `model.name` and checkpoints have it.
        network: the class; None imports it, which is for a name that a person has typed, never for one out of a file.

    Raises:
        UserError: there is no such class, or it is no network.
    """
    if network is None:
        module, _, attribute = name.partition(":")
        try:
            network = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"model.name={name}: there is no such class ({error}); it is package.module:Class"
            ) from error
    if not (isinstance(network, type) and issubclass(network, nn.Module)):
        raise UserError(f"model.name={name}: it is no torch.nn.Module")
    _HANDED_OVER[name] = network


def _class_of(name: str) -> type[nn.Module]:
    if name in OWN:
        return OWN[name]
    if name not in _HANDED_OVER:
        for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS, name=name):
            hand_over(name, entry.load())
    if name not in _HANDED_OVER:
        raise UserError(
            f"the network {name} is of another package, which is not run because a file names it; name it yourself: "
            f"model.name={name}, or load_network(path, backbone={name.partition(':')[2]})"
        )
    return _HANDED_OVER[name]


def _check_forward(network: nn.Module, name: str, num_classes: int, image_size: int, channels: int) -> None:
    """One forward pass in eval mode: what does not fit shows here, not in the first training step."""
    training = network.training
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, channels, image_size, image_size))
    except Exception as error:  # whatever somebody's own code raises
        raise UserError(
            f"model.name={name} cannot take faces of {image_size}x{image_size} ({first_line(error)}); "
            "set model.image_size, for example model.image_size=224"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        raise UserError(
            f"model.name={name} must return logits of shape (B, {num_classes}) for faces (B, {channels}, H, W)"
        )
    network.train(training)


def check_arguments(name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuses arguments of a network that are more than numbers: none may name a file, an address or code.

    The same rule for the command line and for a checkpoint, so that what was trained can be loaded.

    Args:
        name: as for `create`.
        kwargs: as for `create`.

    Raises:
        UserError: an unknown argument of one of our own networks, text where no name of a layer belongs, or a value of
            another kind.
    """
    ours = name in OWN or is_foreign(name)
    own = inspect.signature(_class_of(name)).parameters if ours else {}
    known = [key for key in own if key not in ("num_classes", "image_size")]
    for key, value in kwargs.items():
        shown = f"model.kwargs.{key}={value}"
        if ours and key not in known:
            raise UserError(f"model.kwargs.{key}: {name} takes {', '.join(known)}")
        if not ours and _is_of_create_model(key):
            raise UserError(
                f"{shown}: no argument of a network; weights come from model.weights=FILE or model.pretrained=true"
            )
        if isinstance(value, str):
            fits = not ours and key in _NAMES_OF_LAYERS and re.fullmatch(r"\w{1,32}", value) is not None
        else:
            numbers = value if isinstance(value, Sequence) else [value]
            fits = len(numbers) <= 64 and all(map(_is_number, numbers))
        if not fits:
            raise UserError(f"{shown}: give a number, true, false or a short list of numbers")


def _is_of_create_model(key: str) -> bool:
    return key in _NOT_ARGUMENTS or key.startswith("pretrained_cfg") or not key.isidentifier()


def _is_number(value: Any) -> bool:
    """A finite number, true, false or nothing."""
    return value is None or (isinstance(value, bool | int | float) and math.isfinite(value))


def suggest(name: str) -> str:
    """The end of a sentence that helps a person who typed the unknown network `name`."""
    import timm

    near = difflib.get_close_matches(name.lower(), [*OWN, *timm.list_models()], n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"our own are {', '.join(OWN)}, and timm.list_models() lists the others{meant}"


def _create_own(
    network: type[nn.Module], name: str, num_classes: int, image_size: int, arguments: dict[str, Any]
) -> nn.Module:
    if "image_size" in inspect.signature(network).parameters:
        arguments["image_size"] = image_size
    for key, value in arguments.items():
        if any(isinstance(width, int) and width < 1 for width in (value if isinstance(value, Sequence) else ())):
            raise UserError(f"model.kwargs.{key}={list(value)}: give whole numbers of at least 1")
    try:
        return network(num_classes=num_classes, **arguments)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"model.kwargs: {name} cannot be built with these arguments: {first_line(error)}") from error


def _create_timm(
    name: str,
    num_classes: int,
    image_size: int,
    pretrained: bool,
    stem_stride: int | None,
    arguments: dict[str, Any],
    channels: int,
) -> nn.Module:
    import timm

    if "/" in name or ":" in name or not timm.is_model(name):  # timm takes hf-hub:... and local-dir:... for addresses
        raise UserError(f"model.name={name}: there is no such network; {suggest(name)}")
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        arguments.setdefault("img_size", image_size)
    if pretrained and (config is None or not config.has_weights):
        raise UserError(f"model.pretrained: timm has no trained weights for {name}; use model.pretrained=false")
    if pretrained and config is not None and config.hf_hub_id:
        _ask_hub(name, config.hf_hub_id)
    try:
        network: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **arguments
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise UserError(f"model.name={name} cannot be built for {image_size} px: {first_line(error)}") from error
        raise _not_fetched(name, error) from error
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"model.name={name} cannot be built with these arguments: {first_line(error)}") from error
    if stem_stride is not None:
        _set_stem_stride(network, name, config, stem_stride)
    _check_forward(network, name, num_classes, image_size, channels)
    return network


def _ask_hub(name: str, repository: str) -> None:
    """One quick question to the hub: the download itself would try for most of a minute before it gives up."""
    import huggingface_hub as hub

    file = "model.safetensors"
    if isinstance(hub.try_to_load_from_cache(repository, file), str):
        return
    log.info("Fetching the ImageNet weights of %s from the Hugging Face hub", name)
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file), timeout=10)
    except hub.errors.EntryNotFoundError:
        return  # older repositories hold another file, which timm knows
    except Exception as error:  # the HTTP library's errors differ between versions of the hub's client
        raise _not_fetched(name, error) from error


def _not_fetched(name: str, error: BaseException) -> UserError:
    return UserError(
        f"model.pretrained: the ImageNet weights of {name} could not be fetched ({first_line(error)}); "
        "check the network, use model.weights=FILE, or train from scratch with model.pretrained=false"
    )


def _set_stem_stride(network: nn.Module, name: str, config: Any, stride: int) -> None:
    first = config.first_conv if config is not None else None
    if not isinstance(first, str):
        raise UserError(f"model.stem_stride: {name} has no single first convolution; leave model.stem_stride=null")
    convolution = network.get_submodule(first)
    if not isinstance(convolution, nn.Conv2d) or "img_size" in inspect.signature(type(network)).parameters:
        raise UserError(f"model.stem_stride: {name} does not begin with a convolution; leave model.stem_stride=null")
    convolution.stride = (stride, stride)
