"""What a setting is: a field of a pydantic model, with type, default, bounds and one sentence.

The models are the only place where a setting is stated. Defaults, checks, `--help` and config.yaml come from them.
"""

import dataclasses
import difflib
import math
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union

import annotated_types
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from fer.errors import UserError


class Settings(BaseModel):
    """Base of all settings: unknown names are mistakes, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def checked(cls, values: Mapping[str, Any], known: Iterable[str] = ()) -> Self:
        """The settings, from plain data.

        Args:
            values: what differs from the defaults.
            known: further names that a mistyped one may have meant.

        Raises:
            UserError: every mistake in a line each.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError("\n".join(mistakes(cls, values, error, known))) from error

    def contradictions(self) -> Iterator[str]:
        """The settings that do not go together, a sentence each."""
        yield from ()

    def refuse_contradictions(self) -> None:
        """Raises UserError with every contradiction, one per line."""
        found = list(self.contradictions())
        if found:
            raise UserError("\n".join(found))

    def plain(self) -> dict[str, Any]:
        """Plain data, as config.yaml holds them."""
        return self.model_dump(mode="json")


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it must be a number")
    return value


def _named(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("it names no file; leave it out, or give a path")
    return text


class _Path:
    """Marks text that is a path: taken as it is typed, whatever is in it."""


PATH = _Path()
Whole = Annotated[int, BeforeValidator(_no_truth)]
Real = Annotated[float, BeforeValidator(_no_truth)]
PathText = Annotated[str, AfterValidator(_named), PATH]


def setting(default: Any, sentence: str, **bounds: float) -> Any:
    """A field: its default, a sentence for --help, and the bounds ge, gt, le, lt."""
    limits: dict[str, Any] = dict(bounds)
    if isinstance(default, type):
        return Field(default_factory=default, description=sentence, **limits)
    return Field(default, description=sentence, **limits)


def did_you_mean(word: str, words: Iterable[str], cutoff: float = 0.5) -> str:
    """The end of a sentence about an unknown `word`: "; did you mean NAME?", or nothing if no name is like it."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


# What other projects call the settings of this one.
_ELSEWHERE = {
    **dict.fromkeys(("lr", "learning_rate", "lr_rate", "base_lr"), "optim.lr"),
    **dict.fromkeys(("epochs", "num_epochs", "n_epochs", "max_epochs", "nb_epoch"), "trainer.max_epochs"),
    **dict.fromkeys(("num_classes", "n_classes", "nb_classes"), "data.classes"),
    **dict.fromkeys(("device", "gpu", "cuda"), "trainer.accelerator"),
    **dict.fromkeys(("gpus", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("batch", "bs", "batchsize", "batch_size"), "data.batch_size"),
    **dict.fromkeys(("checkpoint", "resume", "resume_from", "weights_path", "ckpt_path"), "ckpt"),
    **dict.fromkeys(("test_only", "evaluate", "eval"), "mode=test"),
    **dict.fromkeys(("dataset", "data_dir", "data_path", "root"), "data.path"),
}


def unknown(key: str, known: Sequence[str]) -> str:
    """The sentence about a setting that does not exist."""
    leaf = key.rpartition(".")[2].lstrip("-").replace("-", "_").lower()
    meant = _ELSEWHERE.get(leaf)
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    if meant is not None and meant.partition("=")[0].partition(".")[0] in known:
        return f"{key}: there is no such setting; did you mean {meant}?"
    if len(same_leaf) == 1:
        return f"{key}: there is no such setting; did you mean {same_leaf[0]}?"
    return f"{key}: there is no such setting{did_you_mean(key, known, cutoff=0.6)}"


def mistakes(cls: type[Settings], values: Any, error: ValidationError, known: Iterable[str] = ()) -> list[str]:
    """What pydantic found, a sentence for each setting."""
    names = [*names_of(cls), *known]
    found: dict[str, str] = {}
    for each in error.errors(include_url=False):
        key = _key(each["loc"], values)
        if each["type"] == "missing":
            key = ".".join(map(str, each["loc"]))
            field = _field(cls, key)
            found.setdefault(key, f"{key} is missing: {'' if field is None else field.description or 'give it'}")
        elif each["type"] == "extra_forbidden":
            found.setdefault(key, unknown(key, names))
        else:
            found.setdefault(key, f"{key}={shown(at(values, key))}: {_demand(cls, key, each)}")
    return list(found.values())


def _key(location: Sequence[int | str], values: Any) -> str:
    """The dotted name of a setting: pydantic's location, without the names of a union's members."""
    parts: list[str] = []
    for step in location:
        if isinstance(values, Mapping) and step in values:
            parts.append(str(step))
            values = values[step]
        elif isinstance(values, Mapping) and not isinstance(step, int) and not parts:
            parts.append(step)
        else:
            break
    return ".".join(parts)


def at(values: Any, key: str) -> Any:
    """The value of a dotted key in nested settings; None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def shown(value: Any) -> str:
    """A value as a command line has it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown(below)}' for key, below in value.items())}}}"
    return repr(value) if isinstance(value, str) and not value.isprintable() else str(value)


def _demand(cls: type[Settings], key: str, error: Any) -> str:
    """What a value should be."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    field = _field(cls, key)
    if field is None:
        return str(error["msg"])
    choices = _choices(field.annotation)
    if choices and not _others(field.annotation) and not isinstance(error["input"], Mapping):
        return f"there is {', '.join(map(shown, choices))}{did_you_mean(str(error['input']), map(str, choices))}"
    return f"it must be {kind(field)}"


def _field(cls: type[Settings], key: str) -> FieldInfo | None:
    for part in key.split("."):
        field = cls.model_fields.get(part)
        if field is None:
            return None
        cls = model_of(field) or cls
    return field


def model_of(field: FieldInfo) -> type[Settings] | None:
    """The settings that a field holds, if it holds any."""
    for member in _members(field.annotation):
        if isinstance(member, type) and issubclass(member, Settings):
            return member
    return None


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, without their own annotations."""
    if typing.get_origin(annotation) is Annotated:
        yield from _members(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (Union, UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _choices(annotation: Any) -> list[Any]:
    members = list(_members(annotation))
    choices = [
        choice for member in members if typing.get_origin(member) is Literal for choice in typing.get_args(member)
    ]
    return [*choices, *([True, False] if choices and bool in members else [])]


def _others(annotation: Any) -> list[Any]:
    """The members of a union that are neither choices nor null."""
    choices = _choices(annotation)
    return [
        member
        for member in _members(annotation)
        if member is not NoneType and not (choices and (member is bool or typing.get_origin(member) is Literal))
    ]


def kind(field: FieldInfo) -> str:
    """What a field's value is, in words: "a whole number from 1", "a number between 0 and 1 or null"."""
    words = [_kind(member) for member in _others(field.annotation)]
    if choices := _choices(field.annotation):
        words.insert(0, ", ".join(map(shown, choices)))
    text = " or ".join(dict.fromkeys(words)) + _bounds(field)
    return f"{text} or null" if NoneType in _members(field.annotation) else text


def _kind(member: Any) -> str:
    if typing.get_origin(member) in (list, tuple):
        return "a list, [a,b]"
    if isinstance(member, type) and issubclass(member, Settings):
        return "a group of settings"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(member, "settings")


def _bounds(field: FieldInfo) -> str:
    bounds: dict[str, Any] = {}
    for mark in field.metadata:
        if isinstance(mark, annotated_types.Ge | annotated_types.Gt | annotated_types.Le | annotated_types.Lt):
            bounds |= dataclasses.asdict(mark)
    if {"ge", "le"} <= bounds.keys():
        return f" between {bounds['ge']} and {bounds['le']}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [f"{words[name]} {bound}" for name, bound in bounds.items()]
    return f", {' and '.join(found)}" if found else ""


def names_of(cls: type[Settings], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, groups and what is in them."""
    for name, field in cls.model_fields.items():
        yield prefix + name
        if (below := model_of(field)) is not None:
            yield from names_of(below, f"{prefix}{name}.")


def fields_of(cls: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that is no group: its dotted name, and its field."""
    for name, field in cls.model_fields.items():
        if (below := model_of(field)) is not None:
            yield from fields_of(below, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def is_path(field: FieldInfo) -> bool:
    """Whether a field's value is a path, or a list of some."""
    return "_Path object" in repr(field.annotation) or any(isinstance(mark, _Path) for mark in field.metadata)


def takes_several(field: FieldInfo) -> bool:
    """Whether a field takes one value or a list."""
    return any(typing.get_origin(member) is list for member in _members(field.annotation))


def help_lines(cls: type[Settings], values: Mapping[str, Any] | None = None) -> list[str]:
    """A line or two for each setting: its name, its value, its sentence and its bounds; under the name of its group.

    Args:
        cls: the settings.
        values: of all of them; None shows the defaults, and null where there is none.
    """
    lines: list[str] = []
    group = ""
    for key, field in fields_of(cls):
        if values is None:
            value = None if field.is_required() else field.get_default(call_default_factory=True)
        else:
            value = at(values, key)
        own = key.partition(".")[0] if "." in key or isinstance(value, Mapping) else ""
        if own != group:
            lines += ["", f"{own}:"] if own else [""]
            group = own
        head = f"{key}.NAME=" if isinstance(value, Mapping) else f"{key}={shown(value)}"
        sentence = field.description or ""
        limits = kind(field)
        if any(word in limits for word in ("number", ",")) and "text" not in limits:
            sentence = f"{sentence} ({limits})"
        indent = " " * 34
        first = f"  {head:<31} " if len(head) <= 31 else f"  {head}\n{indent}"
        lines.append(first + f"\n{indent}".join(textwrap.wrap(sentence, 100 - len(indent))))
        if isinstance(value, Mapping):
            lines += [f"    {key}.{name}={shown(below)}" for name, below in value.items()]
    return lines


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain data as config.yaml holds them."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def finite(value: Any) -> bool:
    """Whether a value, to any depth, holds no number that is infinite or none."""
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names; an empty group is a value."""
    if not isinstance(settings, dict) or not settings:
        return {prefix: settings}
    return {
        name: value
        for key, below in settings.items()
        for name, value in flat(below, f"{prefix}.{key}" if prefix else str(key)).items()
    }
