"""The settings of train.py: groups and experiments of configs/ and the words of a command line, by Hydra.

A command line is composed once; every mistake in it is told in one go, before a directory is made or data are read.
"""

import functools
import importlib
import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Sweep, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.errors import UserError, first_line
from fer.files import at_home, is_dir
from fer.settings.base import at, did_you_mean, fields_of, help_lines, is_path, names_of, takes_several, unknown
from fer.settings.train import TrainSettings
from fer.settings.words import quoted, with_value

# Beside the package in a clone, inside it where it was installed.
CONFIGS = next(
    (path for path in (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs") if path.is_dir()),
)
_TAKE_VALUE = {"--config-dir": "config_dir", "-cd": "config_dir", "--config-name": "config_name", "-cn": "config_name"}
_TAKE_VALUE |= {"--cfg": "cfg", "-c": "cfg", "--package": "package", "-p": "package"}
_SWITCHES = {"-m": "multirun", "--multirun": "multirun", "-h": "help", "--help": "help", "--resolve": "resolve"}
_OF_HYDRA = ("--hydra-help", "--info", "--version", "--run", "-r", "--shell-completion", "-sc")


@dataclass
class Line:
    """A command line, taken apart.

    Attributes:
        words: KEY=VALUE, ready for Hydra.
        typed: the same as they were typed.
        flags: by their long names.
        of_hydra: flags that are left to Hydra.
    """

    words: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)
    of_hydra: list[str] = field(default_factory=list)

    @property
    def sweeping(self) -> bool:
        """Whether several runs were asked for."""
        return "multirun" in self.flags

    @property
    def folders(self) -> list[Path]:
        """Where groups are looked for: in configs/, and in the directory of --config-dir."""
        own = self.flags.get("config_dir")
        return [CONFIGS, *([Path(own).absolute()] if own is not None else [])]


@dataclass(frozen=True)
class Composed:
    """What a command line comes to.

    Attributes:
        values: plain data for `TrainSettings`, resolved.
        run_dir: `hydra.run.dir`, where a person gave it.
        secret: a value was read from the environment.
    """

    values: dict[str, Any]
    run_dir: Path | None
    secret: bool


def register() -> None:
    """Makes the defaults of all settings known to Hydra, as the first entry of configs/train.yaml's list."""
    node = OmegaConf.create(TrainSettings().plain())
    for key in node:  # free names below need no plus; unknown ones are found by the settings, all at once
        if OmegaConf.is_dict(node[key]):
            OmegaConf.set_struct(node[key], False)
    ConfigStore.instance().store("schema", node)


def take_apart(arguments: Sequence[str]) -> Line:
    """The words and flags of a command line.

    Raises:
        UserError: a flag that there is not, or a configuration that there is not.
    """
    line = Line()
    pending: str | None = None
    found = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        if pending is not None:
            line.flags[pending], pending = word, None
        elif flag in _TAKE_VALUE:
            if equals:
                line.flags[_TAKE_VALUE[flag]] = value
            else:
                pending = _TAKE_VALUE[flag]
        elif word in _SWITCHES:
            line.flags[_SWITCHES[word]] = ""
        elif flag in _OF_HYDRA:
            line.of_hydra.append(word)
        elif word.startswith("-"):
            found.append(f"{unknown(flag, list(names_of(TrainSettings)))}; settings have no dashes: KEY=VALUE")
        else:
            line.typed.append(word)
    if pending is not None:
        found.append(f"--{pending.replace('_', '-')} needs a value")
    if line.flags.get("config_name", "train") != "train":
        found.append(
            f"--config-name={line.flags['config_name']}: there is train; other settings come by experiment=NAME"
        )
    if (own := line.flags.get("config_dir")) is not None:
        line.flags["config_dir"] = str(at_home(own))
        if not is_dir(line.flags["config_dir"]):
            found.append(f"--config-dir={own}: there is no such directory")
    if found:
        raise UserError("\n".join(found))
    line.words = [quoted(word, _kinds_of_path().get, line.sweeping) for word in line.typed]
    if not line.sweeping:  # a run's name is taken as it is typed, too
        line.words = [quoted(word, {"name": "directory"}.get, False) for word in line.words]
    return line


@functools.cache
def _kinds_of_path() -> dict[str, str]:
    """What kind of path a setting is, of those that are one (see `fer.settings.words.quoted`)."""
    own = {key: "paths" if takes_several(each) else "path" for key, each in fields_of(TrainSettings) if is_path(each)}
    return own | {"hydra.run.dir": "directory", "hydra.sweep.dir": "directory"}


def compose_line(line: Line) -> Composed:
    """Composes a command line; of a sweep, its first run.

    Raises:
        UserError: every mistake in a line each.
    """
    overrides, found = _parse(line)
    found += _mistakes_of_grid(line)
    words = []
    for text, override in overrides:
        key = override.key_or_group
        options = _options(line.folders, key)
        if key == "hydra/launcher" and (missing := _missing_launcher(str(override.value()))):
            found += missing
            continue
        if options is not None:
            choices = _choices(override, line.folders)
            unknown_ones = [choice for choice in choices if choice not in (*options, "null")]
            found += [_unknown_choice(key, choice, options) for choice in unknown_ones]
            if unknown_ones or (choices == ["null"] and key in ("experiment", "sweep")):
                continue
        elif not _is_known(key):
            found.append(unknown(key, [*names_of(TrainSettings), *_groups()]))
            continue
        words.append(_first(text, override, line.folders))
    if found:
        raise UserError("\n".join(found))
    register()
    cfg = _compose([*implied(line), *words], line.folders)
    hydra = cfg.pop("hydra")
    run_dir = None
    if any(override.key_or_group == "hydra.run.dir" for _, override in overrides):
        run_dir = Path(hydra.run.dir)
    secret = "${oc.env:" in OmegaConf.to_yaml(cfg)
    return Composed(_resolved(cfg), run_dir, secret)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    try:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_cause(error)) from error
    return dict(values)


def checked(line: Line, composed: Composed) -> TrainSettings:
    """The settings of a command line; of a sweep those of its first run, after every other value was tried, too.

    Raises:
        UserError: every mistake in a line each; one that stands in a file names the file.
    """
    found: list[str] = []
    settings = _settings(composed.values, line, found)
    if line.sweeping:
        for values in _others(line, composed.values):
            _settings(values, line, found)
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))
    assert settings is not None
    return settings


def _settings(values: Mapping[str, Any], line: Line, found: list[str]) -> TrainSettings | None:
    try:
        return TrainSettings.checked(values, _groups())
    except UserError as error:
        found += [_with_file(sentence, line) for sentence in str(error).splitlines()]
        return None


def _others(line: Line, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of a sweep with each of its other values in turn: composed anew for groups, else put in."""
    overrides, _ = _parse(line)
    grid = sweep_parameters(line)
    parsed = [*overrides, *((f"{key}={text}", _override(f"{key}={text}")) for key, text in grid.items())]
    firsts = [_first(text, override, line.folders) for text, override in overrides]
    for text, override in parsed:
        if not override.is_sweep_override():
            continue
        for value in values_of(override, line.folders)[0 if text not in line.words else 1 :]:
            word = f"{text.partition('=')[0]}={value}"
            if _options(line.folders, override.key_or_group) is None:
                yield with_value(values, override.key_or_group, _override(word).value())
            else:
                others = [first for first in firsts if _override(first).key_or_group != override.key_or_group]
                cfg = _compose([*implied(line), *others, word], line.folders)
                cfg.pop("hydra")
                yield _resolved(cfg)


def implied(line: Line) -> list[str]:
    """What a network of one's own needs besides the words of its command: no arguments of the default network."""
    grid = [f"{key}={value}" for key, value in sweep_parameters(line).items()]
    given = [word.partition("=") for word in (*line.words, *grid)]
    own = any(key == "model.name" and ":" in value for key, _, value in given)
    return ["model=timm"] if own and all(key != "model" for key, _, _ in given) else []


def overrides_of(line: Line) -> dict[str, bool]:
    """The settings that a command line sets, and whether it takes each away (~KEY)."""
    return {override.key_or_group: override.is_delete() for _, override in _parse(line)[0]}


def sweep_parameters(line: Line) -> dict[str, Any]:
    """The settings that the file of `sweep=NAME` varies, and their values; none without one."""
    found: dict[str, Any] = {}
    for word in line.words:
        name = word.removeprefix("sweep=")
        if name == word:
            continue
        for folder in line.folders:
            if (file := folder / "sweep" / f"{name}.yaml").is_file():
                params = at(_content(file), "hydra.sweeper.params") or {}
                if not isinstance(params, dict):
                    raise UserError(f"{_shown(file)}: hydra.sweeper.params must be KEY: VALUES, such as seed: 1,2,3")
                found |= params
    return found


def help_text(line: Line, composed: Composed) -> str:
    """The text of --help: groups, and every setting with its value, its sentence and its bounds."""
    offered = "\n".join(
        textwrap.fill(", ".join(options), 98, initial_indent=f"  {group + '=':<14}", subsequent_indent=" " * 16)
        for group in _groups()
        if (options := _options(line.folders, group))
    )
    template = string.Template(_defaults().hydra.help.template)
    lines = "\n".join(help_lines(TrainSettings, composed.values))
    return template.substitute(APP_CONFIG_GROUPS=offered + "\n", CONFIG=lines)


def targets_of_configs() -> set[str]:
    """Every `_target_` that a file of configs/ names."""
    return {
        text.partition("_target_:")[2].strip()
        for file in CONFIGS.rglob("*.yaml")
        for text in file.read_text(encoding="utf-8").splitlines()
        if "_target_:" in text
    }


def _parse(line: Line) -> tuple[list[tuple[str, Override]], list[str]]:
    overrides, found = [], []
    for word, typed in zip(line.words, line.typed, strict=True):
        try:
            override = _override(word)
        except HydraException:
            found.append(f"{typed!r} cannot be read; a setting is KEY=VALUE, and a list is KEY=[a,b]")
            continue
        if override.is_sweep_override() and not line.sweeping:
            found.append(f"{typed}: several values at a time are a sweep, which needs -m; a list is KEY=[a,b]")
            continue
        if mistake := _mistake_of_sweep(typed, override, line.folders):
            found.append(mistake)
            continue
        if override.key_or_group in ("logger", "callbacks") and override.value() is None:
            word = f"{override.key_or_group}=[]" if override.key_or_group == "logger" else "callbacks={}"
            override = _override(word)
        overrides.append((word, override))
    return overrides, found


def _mistakes_of_grid(line: Line) -> Iterator[str]:
    for key, values in sweep_parameters(line).items():
        text = f"{key}={values}"
        try:
            mistake = _mistake_of_sweep(text, _override(text), line.folders)
        except HydraException:
            mistake = f"{text!r} cannot be read; values of a sweep are a,b, and a list is [a,b]"
        if mistake:
            yield _with_file(mistake, line)


def _mistake_of_sweep(text: str, override: Override, folders: Sequence[Path]) -> str | None:
    """What Hydra's sweeper would end with a traceback for."""
    if not override.is_sweep_override():
        return None
    try:
        if values_of(override, folders):
            return None
    except HydraException:
        return f"{text}: a sweep takes values one by one: a,b or choice(a,b) or range(3), none of them inside another"
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        there = ", ".join(_options(folders, override.key_or_group) or [])
        return f"{text}: glob(...) finds none; " + (
            f"there is {there}" if there else "it is of groups; give values: a,b"
        )
    return f"{text}: there is no value in it; give at least one"


def values_of(override: Override, folders: Sequence[Path]) -> list[str]:
    """The values of a sweep as Hydra's sweeper takes them.

    Args:
        override: one for which `is_sweep_override` holds.
        folders: see `Line.folders`.

    Raises:
        HydraException: Hydra's sweeper cannot list them.
    """
    value: Any = override.value()  # a Glob, too, whatever its annotation says
    if isinstance(value, Glob):
        return list(value.filter(_options(folders, override.key_or_group) or []))
    if isinstance(value, ChoiceSweep) and any(isinstance(item, Sweep | Glob) for item in value.list):
        raise HydraException("a sweep inside another")
    return list(override.sweep_string_iterator())


def _override(word: str) -> Override:
    return OverridesParser.create().parse_override(word)


def _compose(words: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    more = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders[1:])}]"] if folders[1:] else []
    for file in _files_of(words, folders):
        _content(file)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", [*words, *more], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_cause(error)) from error
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_struct(cfg, False)
    return cfg


def _content(file: Path) -> dict[str, Any]:
    """What a file of configs/ holds, before Hydra takes it.

    Raises:
        UserError: it is no YAML, or holds no settings.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{_shown(file)} is no YAML: {first_line(error)}") from error
    if not isinstance(content, dict | None):
        raise UserError(f"{_shown(file)} holds no settings; it must be KEY: VALUE, line by line")
    return content or {}


def _files_of(words: Iterable[str], folders: Sequence[Path]) -> Iterator[Path]:
    """The files of configs/ that words such as experiment=best_7 choose."""
    for word in words:
        group, _, names = word.partition("=")
        for name in names.split(","):
            for folder in folders:
                if (file := folder / group / f"{name}.yaml").is_file():
                    yield file


def _with_file(sentence: str, line: Line) -> str:
    """A sentence about a setting, with the file that states it where the command line does not."""
    key = sentence.partition(":")[0].partition("=")[0]
    if any(word.partition("=")[0].lstrip("+~") == key for word in line.words):
        return sentence
    for file in _files_of(line.words, line.folders):
        content = _content(file)
        if file.parent.name not in ("experiment", "sweep"):
            content = {file.parent.name: content}
        if at(content, key) is not None:
            return f"{_shown(file)}: {sentence}"
    return sentence


def _shown(file: Path) -> str:
    return str(file.relative_to(CONFIGS.parent)) if file.is_relative_to(CONFIGS) else str(file)


@functools.cache
def _defaults() -> Any:
    return OmegaConf.load(CONFIGS / "train.yaml")


def _groups() -> list[str]:
    """The groups of configs/; a directory of one's own adds choices, not groups."""
    keys = [str(key) for entry in _defaults().defaults if OmegaConf.is_dict(entry) for key in entry]
    return [key for key in keys if not key.startswith("override ")]


def _options(folders: Sequence[Path], group: str) -> list[str] | None:
    """What a group offers; None for a word that is no group."""
    if group not in _groups():
        return None
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _is_known(key: str) -> bool:
    """Whether the first part of a name is a setting: Hydra itself refuses others, one at a time."""
    return key.partition(".")[0] in TrainSettings.model_fields or key.partition(".")[0] == "hydra" or "/" in key


def _choices(override: Override, folders: Sequence[Path]) -> list[str]:
    swept = values_of(override, folders) if override.is_sweep_override() else None
    values = [override.value()] if swept is None else [_override(f"group={text}").value() for text in swept]
    choices = [choice for value in values for choice in (value if isinstance(value, list) else [value])]
    return ["null" if choice is None else str(choice) for choice in choices]


def _first(text: str, override: Override, folders: Sequence[Path]) -> str:
    """An override with the first value of its sweep, if it is one."""
    if not override.is_sweep_override():
        return text
    return f"{text.partition('=')[0]}={values_of(override, folders)[0]}"


def _unknown_choice(group: str, choice: str, options: Sequence[str]) -> str:
    sentence = f"{group}={choice}: there is {', '.join(options)}"
    if group == "model":
        from fer.models import suggest  # imports timm: only on a mistake

        return f"{sentence}; every timm network is model=timm model.name=NAME: {suggest(choice)}"
    return f"{sentence}{did_you_mean(choice, options)}"


def _missing_launcher(name: str) -> list[str]:
    """What is wrong with the launcher of a sweep, and what to install for it."""
    launchers = {
        "basic": ("hydra", ""),
        "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
        "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
        "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    }
    if name not in launchers:
        return [f"hydra/launcher={name}: there is {', '.join(launchers)}{did_you_mean(name, launchers)}"]
    module, extra = launchers[name]
    try:
        importlib.import_module(module)
    except ImportError:
        return [f"hydra/launcher={name} is not installed; pip install 'fer-lightning[{extra}]'"]
    return []


def _cause(error: BaseException) -> str:
    """What OmegaConf said, without Hydra's wrapping and without the lines that describe its own objects."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines() or [type(error).__name__]
    key = next((text.partition(":")[2].strip() for text in lines[1:] if text.strip().startswith("full_key:")), "")
    first = lines[1].strip() if lines[0].endswith("composing config:") and len(lines) > 1 else lines[0]
    return f"{key}: {first}" if key else first
