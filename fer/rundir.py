"""A run's directory: what lies where in it, and its saved settings, which may come from a stranger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fer.errors import UserError

SETTINGS = "config.yaml"
_MOST_BYTES = 1_000_000  # a config.yaml has a few thousand


def saved_settings(run: Path) -> dict[str, Any]:
    """The settings in a run's config.yaml, as plain data: nothing in it is resolved or run.

    Raises:
        UserError: the file is missing, too large, or not a mapping in YAML; the sentence names it.
    """
    file = run / SETTINGS
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"{file} is too large for the settings of a run; restore it, or move it away")
        settings = yaml.load(file.read_text(encoding="utf-8"), _PlainLoader)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is not plain YAML ({first}); restore it, or move it away") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no settings; restore it, or move it away")
    return settings


class _PlainLoader(yaml.SafeLoader):
    """Without aliases: a few lines of them unfold to more than any memory holds. We never write one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses an alias; else as in PyYAML."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses aliases")
        return super().compose_node(parent, index)


def targets(settings: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in settings: its dotted key, and what it names."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            below = f"{key}.{name}" if key else str(name)
            if name == "_target_":
                yield below, value
            else:
                yield from targets(value, below)
    elif isinstance(settings, list):
        for value in settings:
            yield from targets(value, key)
