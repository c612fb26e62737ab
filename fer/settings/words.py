"""Words of a command line as people type them: KEY=VALUE, and which of them are paths."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from fer.errors import UserError
from fer.files import at_home, is_there
from fer.settings.base import Settings, fields_of, is_path, mistakes, names_of, shown, takes_several, unknown

S = TypeVar("S", bound=Settings)


def read(cls: type[S], words: Sequence[str], bare: str | None = None) -> S:
    """The settings of a command that composes nothing.

    Args:
        cls: the command's settings; a group that has a `name` is chosen by it (detector=haar).
        words: each KEY=VALUE; null is nothing, [a,b] a list where a setting takes several.
        bare: the setting that a word without KEY= belongs to.

    Raises:
        UserError: every mistake in a line each.
    """
    fields = dict(fields_of(cls))
    values: dict[str, Any] = {}
    found: list[str] = []
    left: list[str] = []
    shortened: set[str] = set()
    for word in words:
        key, equals, value = word.partition("=")
        if f"{key}.name" in fields:
            shortened.add(key)
            key = f"{key}.name"
        else:
            shortened.discard(key.removesuffix(".name"))
        if bare is not None and (not equals or (key not in fields and is_there(word))):
            if word.startswith("-") and not is_there(word):
                found.append(f"{word}: settings have no dashes, and are KEY=VALUE; --help lists them")
            left.append(word)
        elif not equals:
            found.append(f"{word!r} cannot be read; a setting is KEY=VALUE, and --help lists them")
        elif key not in fields:
            found.append(unknown(key, list(names_of(cls))))
        else:
            field = fields[key]
            taken: Any = several(value) if takes_several(field) else value
            if value == "null" or (value == "" and not is_path(field)):
                taken = None
            values = with_value(values, key, taken)
    if left and bare is not None:
        if bare in values:
            found.append(f"{bare}={shown(values[bare])} stands beside {left[0]}; give all of them one way")
        values[bare] = left[0] if len(left) == 1 else left
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        for sentence in mistakes(cls, values, error):
            typed_short = sentence.partition(".name=")[0] in shortened
            found.append(sentence.replace(".name=", "=", 1) if typed_short else sentence)
        raise UserError("\n".join(found)) from error
    if found:
        raise UserError("\n".join(found))
    return settings


def with_value(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested settings in which `key` is `value`."""
    head, _, rest = key.partition(".")
    below = values.get(head)
    return {**values, head: with_value(below if isinstance(below, Mapping) else {}, rest, value) if rest else value}


def several(value: str) -> str | list[str]:
    """[a,b] as a list, unless a file of exactly this name exists."""
    if len(value) > 1 and value[0] == "[" and value[-1] == "]" and not is_there(value):
        return [item.strip() for item in value[1:-1].split(",") if item.strip()]
    return value


def quoted(word: str, kinds: Callable[[str], str | None], sweeping: bool) -> str:
    """A word with its path in quotes, so that Hydra takes it as it is typed, whatever is in it.

    Args:
        word: KEY=VALUE.
        kinds: "path", "paths" (one or several), "directory" (of Hydra, with its ${...}) or None by KEY.
        sweeping: a comma outside of [] then separates values, unless a file of exactly this name exists.
    """
    key, equals, value = word.partition("=")
    kind = kinds(key.lstrip("+~"))
    if not equals or kind is None or value in ("", "null") or re.fullmatch(r"'.*'|\".*\"", value, re.DOTALL):
        return word
    if kind == "directory":
        value = str(at_home(value)) if key.startswith("hydra.") and value.startswith("~") else value
        return f"{key}={_quote(value, interpolated=True)}"
    parts = _apart(value) if sweeping and "${" not in value and not is_there(value) else [value]
    return f"{key}={','.join(_as_value(part, kind) for part in parts)}"


def _apart(value: str) -> list[str]:
    parts, depth = [""], 0
    for character in value:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if depth == 0 else value.split(",")  # a bracket may be a part of a name


def _as_value(text: str, kind: str) -> str:
    if kind == "paths" and isinstance(items := several(text), list):
        return f"[{','.join(map(_quote, items))}]"
    if text == "null" or "${oc." in text:  # of the environment, as a person asked for it
        return text
    return _quote(text)


def _quote(path: str, interpolated: bool = False) -> str:
    if not interpolated:
        path = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", path)
    path = re.sub(r"(\\*)'", lambda match: 2 * match[1] + "\\'", path)
    path = re.sub(r"(\\+)$", r"\1\1", path)
    return f"'{path}'"
