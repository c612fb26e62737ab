"""Classes that settings name by `_target_`: found, checked against what is expected there, and built."""

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from fer.errors import UserError, first_line

# What to install for a class whose package is missing, where it is not called as its module is.
_PACKAGES = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}


def find(key: str, target: Any, base: type) -> type:
    """The class that a dotted name stands for.

    Args:
        key: the setting, for messages.
        target: such as torch.optim.SGD.
        base: what it must be a subclass of.

    Raises:
        UserError: there is none, or it is something else.
    """
    module, _, name = str(target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{key}._target_={target}: there is no such class; name it as package.module.Class") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}._target_={target}: it is no {base.__name__}")
    return found


def build(key: str, settings: Mapping[str, Any], base: type, *fixed: Any, **given: Any) -> Any:
    """An object of the class that settings name.

    Args:
        key: the setting, for messages.
        settings: `_target_` and further arguments.
        base: as for `find`.
        fixed: arguments before those of the settings.
        given: arguments by name that settings do not set; those that the class does not take are left out.

    Raises:
        UserError: as `find`; an argument that the class does not take, a value that it refuses, a missing package.
    """
    arguments = dict(settings)
    found = find(key, arguments.pop("_target_", None), base)
    known = inspect.signature(found).parameters
    arguments = {name: value for name, value in given.items() if name in known} | arguments
    try:
        inspect.signature(found).bind(*fixed, **arguments)
    except TypeError as error:
        raise UserError(f"{key}: {found.__name__}: {error}; it takes {', '.join(known)}") from error
    try:
        return found(*fixed, **arguments)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(found.__name__, error.name or found.__module__.partition(".")[0])
        raise UserError(
            f"{key}: {found.__name__} needs a package that is not installed: pip install {package}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # whatever its constructor refuses values by
        raise UserError(f"{key}: {found.__name__}: {first_line(error)}") from error
