"""What may be set, and whether what was set makes sense. Knows nothing of how it is used.

Hydra checks a setting's name and type against these dataclasses, which come first in the defaults list of
configs/train.yaml. `mistakes` collects every mistake of a command line before anything is run.
"""

import functools
import importlib
import inspect
import string
import sys
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer import cluster
from fer.command_line import complain, did_you_mean
from fer.errors import EXIT_CODE, UserError
from fer.labels import CONTEMPT, resolve_classes


@dataclass
class AugmentConfig:
    """Arguments of `fer.data.augment.Augment`."""

    flip: float = 0.5
    rotation: float = 10.0
    scale: list[float] = field(default_factory=lambda: [0.9, 1.15])
    translate: float = 0.08
    brightness: float = 0.1
    contrast: float = 0.1
    erase: float = 0.4
    erase_area: list[float] = field(default_factory=lambda: [0.02, 0.2])


@dataclass
class SyntheticConfig:
    """Number of drawn faces per split."""

    train: int = 5600
    val: int = 700
    test: int = 700


@dataclass
class DataConfig:
    """Arguments of `fer.data.datamodule.FER2013DataModule`."""

    path: str | None = "data/fer2013.csv"
    download: bool = True
    classes: Any = 7
    batch_size: int = 128
    split: str = "official"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    folds: int | None = None
    fold: int = 0
    split_seed: int = 0
    balance: str = "none"
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    mixup_alpha: float = 0.0
    labels: str = "fer2013"
    eval_labels: str | None = None
    ferplus_path: str = "data/fer2013new.csv"
    ferplus_target: str = "majority"
    fer2013_weight: float = 0.0
    ferplus_auxiliary: float = 0.0
    exclude: str | None = None
    exclude_reasons: list[str] | None = None
    exclude_action: str = "drop"
    groups: str | None = None
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    memory_gb: float = 1.0


@dataclass
class ModelConfig:
    """Arguments of `fer.models.create`, and where its weights come from."""

    name: str = "senet"
    image_size: int = 48
    stem_stride: int | None = None
    standardise: bool = True
    pretrained: bool = False
    weights: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimConfig:
    """Arguments of `fer.training.optim.configure_optimizers`."""

    optimizer: dict[str, Any] = field(default_factory=lambda: {"_target_": "torch.optim.AdamW"})
    lr: float = 2e-3
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup_epochs: float = 2
    min_lr: float = 1e-5
    factor: float = 0.75
    patience: int = 5


@dataclass
class TrainConfig:
    """All settings of train.py."""

    mode: str = "train"
    ckpt: Any = None
    seed: int = 0
    label_smoothing: float = 0.1
    ema: float | None = 0.998
    image_sizes: list[int] | None = None
    early_stopping: int | None = None
    compile: bool = False
    tta: str = "none"
    test_split: str = "test"
    robustness: bool = False
    robustness_faces: int | None = None
    name: str = "run"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


SPLITS = ("official", "holdout", "random")
BALANCE = ("none", "loss", "sampler")
LABELS = ("fer2013", "ferplus")
FERPLUS_TARGETS = ("majority", "soft", "any")
EXCLUDE_ACTIONS = ("drop", "relabel")
TTA = ("none", "flip", "tencrop")
SCHEDULES = ("cosine", "onecycle", "plateau", "none")

# Settings under these keys are passed on to somebody else's code: any name may be added to them.
OPEN = ("trainer", "callbacks", "model.kwargs", "optim.optimizer")


def register() -> None:
    """Makes the schema of configs/train.yaml known to Hydra."""
    ConfigStore.instance().store("schema", TrainConfig)


def resumed_run(ckpt: Any) -> Path | None:
    """The run directory that a checkpoint lies in (RUN/checkpoints/last.ckpt), or None."""
    if not isinstance(ckpt, str):
        return None
    run = Path(ckpt).absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None


def as_list(ckpt: Any) -> list[Any]:
    """The checkpoints of `ckpt`, which names one or is a list."""
    return list(ckpt) if OmegaConf.is_list(ckpt) else [ckpt]


def _run_name(model: str, classes: Any) -> str:
    text = classes if isinstance(classes, str | int) else "+".join(map(str, classes))
    return f"{model}_{text}".replace("/", "-")


def _test_name(name: str, ckpt: Any, tta: str, overrides: Sequence[str]) -> str:
    """What a test's directory is called: by what is tested, unless `name` was given."""
    ckpts = as_list(ckpt)
    if len(ckpts) > 1:
        tested = f"ensemble_of_{len(ckpts)}"
    elif (run := resumed_run(ckpts[0])) is not None:
        tested = OmegaConf.select(OmegaConf.load(run / "config.yaml"), "name") or run.name
    else:
        tested = name if ckpts[0] is None else Path(str(ckpts[0])).stem
    if any(text.startswith("name=") for text in overrides):
        tested = name
    return f"test_{tested}" if tta == "none" else f"test_{tested}_{tta}"


def _run_dir(name: str, mode: str, ckpt: Any, tta: str, overrides: Sequence[str]) -> str:
    """A new directory under outputs/; a resumed run goes on in its own, and so does the job of a cluster."""
    import datetime

    resumed = resumed_run(ckpt) if mode == "train" else None
    if resumed is not None:
        return str(resumed)
    name = _test_name(name, ckpt, tta, overrides) if mode == "test" else name
    job = cluster.job()
    if job is not None:  # several processes must agree on it, and one script may hold several commands
        return f"outputs/{job}_{name}_{zlib.crc32(repr(list(overrides)).encode()):08x}"
    return f"outputs/{datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}_{name}"


# Of configs/train.yaml. When this file is imported, because the processes of a parallel sweep run no more than that.
OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True, use_cache=True)


def mistakes(config_dir: Path, config_name: str, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Looks through a command line before Hydra does.

    Args:
        config_dir: absolute path of configs/.
        config_name: "train" or "infer".
        overrides: KEY=VALUE words of the command line.

    Returns:
        All mistakes in names, groups and types, a sentence each, and the overrides as Hydra wants them: names that
        are new under an `OPEN` key get the `+` that Hydra asks for.
    """
    found: list[str] = []
    groups: list[str] = []
    plain: list[tuple[str, Override]] = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            found.append(f"{text!r} cannot be read; a setting is KEY=VALUE, and a list is KEY=[a,b]")
            continue
        if override.key_or_group == "hydra/launcher":  # the launchers' own settings are known only with it
            problem = _missing_launcher(str(override.value()))
            (groups if problem is None else found).append(problem or text)
            continue
        options = _options(config_dir, config_name, override.key_or_group)
        if options is None:
            plain.append((text, override))
            continue
        unknown = [choice for choice in _choices(override) if choice not in (*options, "null")]
        found += [_unknown_choice(override.key_or_group, choice, options) for choice in unknown]
        if not unknown:
            groups.append(text)
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        found += _mistakes_in_experiments(config_dir, config_name, groups)
        if found and any("configs/experiment" in text for text in found):
            return found, list(overrides)
        if not plain:
            return found, groups
        base = compose(config_name, [_first_choice(text) for text in groups])
        fixed = list(groups)
        for text, override in plain:
            problem, text = _check(base, text, override)
            fixed.append(text)
            if problem is not None:
                found.append(problem)
                continue
            for single in _singles(text):
                try:
                    compose(config_name, [*map(_first_choice, groups), single])
                except (HydraException, OmegaConfBaseException) as error:
                    found.append(f"{single}: {_cause(error)}")
    return found, fixed


def checked_arguments(config_dir: Path, config_name: str, arguments: Sequence[str]) -> list[str]:
    """The words of a command line, ready for Hydra; prints every mistake and exits with code 2 if there is one."""
    if any(word in ("--hydra-help", "--info", "--version") for word in arguments):
        return list(arguments)
    flags: list[str] = []
    overrides: list[str] = []
    takes_value = False
    for word in arguments:
        (flags if takes_value or word.startswith("-") else overrides).append(word)
        takes_value = word in ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn")
    found, fixed = mistakes(config_dir.absolute(), config_name, overrides)
    if found:
        complain(found)
        sys.exit(EXIT_CODE)
    if "--help" in flags or "-h" in flags:
        print(_help(config_dir.absolute(), config_name, fixed))
        sys.exit(0)
    return [*flags, *fixed]


def _help(config_dir: Path, config_name: str, overrides: Sequence[str]) -> str:
    """The template under hydra.help, filled in. Hydra does it too, and takes three times as long to list the groups."""
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        settings = OmegaConf.to_yaml(compose(config_name, [_first_choice(text) for text in overrides]))
    groups = {folder.name: _options(config_dir, config_name, folder.name) for folder in sorted(config_dir.iterdir())}
    lines = [
        textwrap.fill(", ".join(options), 118, initial_indent=f"  {group + '=':<14}", subsequent_indent=" " * 16)
        for group, options in groups.items()
        if options
    ]
    template = string.Template(_load(config_dir, config_name).hydra.help.template)
    return template.substitute(APP_CONFIG_GROUPS="\n".join(lines) + "\n", CONFIG=settings)


def _options(config_dir: Path, config_name: str, group: str) -> list[str] | None:
    """What a group offers; None for a word that is no group of this command."""
    defaults: Any = OmegaConf.to_container(_load(config_dir, config_name).defaults)
    if not any(isinstance(entry, dict) and group in entry for entry in defaults):
        return None
    return sorted(file.stem for file in (config_dir / group).glob("*.yaml"))


@functools.cache
def _load(config_dir: Path, config_name: str) -> Any:
    return OmegaConf.load(config_dir / f"{config_name}.yaml")


def _choices(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(choice) for choice in override.sweep_string_iterator()]
    value = override.value()
    return [str(choice) for choice in value] if isinstance(value, list) else ["null" if value is None else str(value)]


def _singles(text: str) -> list[str]:
    """An override that sweeps as one override per value; any other as it is."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_sweep_override():
        return [text]
    return [f"{text.split('=')[0]}={value}" for value in override.sweep_string_iterator()]


def _first_choice(text: str) -> str:
    """The same override with the first value of its sweep, if it is one."""
    return _singles(text)[0]


def _unknown_choice(group: str, choice: str, options: Sequence[str]) -> str:
    sentence = f"{group}={choice}: there is {', '.join(options)}"
    if group == "model":
        from fer.models import suggest  # imports timm: only on a mistake

        return f"{sentence}; every timm network is model=timm model.name=NAME: {suggest(choice)}"
    return f"{sentence}{did_you_mean(choice, options)}"


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of everything in a config, branches and leaves."""
    keys = []
    if OmegaConf.is_dict(config):
        for key in config:
            name = f"{prefix}{key}"
            keys.append(name)
            if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
                keys += _keys(config[key], f"{name}.")
    return keys


def _is_open(key: str) -> bool:
    return any(key.startswith(f"{branch}.") for branch in OPEN)


def _check(base: DictConfig, text: str, override: Override) -> tuple[str | None, str]:
    """What is wrong with a setting's name, if anything, and the setting as Hydra wants it."""
    key = override.key_or_group
    known = _keys(base)
    if _is_open(key):  # known or not: of the experiments of a sweep one may have the key and the next not
        return None, text if text[0] in "+~" else f"++{text}"
    if key in known or key.startswith("hydra.") or key == "hydra":
        return None, text
    return _unknown_key(key, known), text


def _missing_launcher(name: str) -> str | None:
    """What to install for the launcher of a sweep, if it is not there."""
    module, extra = {
        "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
        "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
        "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    }.get(name, ("hydra", ""))
    try:
        importlib.import_module(module)
    except ImportError:
        return f"hydra/launcher={name} is not installed; pip install 'fer-lightning[{extra}]'"
    return None


def _unknown_key(key: str, known: Sequence[str]) -> str:
    same_leaf = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    hint = did_you_mean(key, known, cutoff=0.6) or "".join(f"; did you mean {name}?" for name in same_leaf[:1])
    return f"{key}: there is no such setting{hint}"


def _mistakes_in_experiments(config_dir: Path, config_name: str, groups: Sequence[str]) -> list[str]:
    """Unknown names and values of the wrong type inside the experiment files that are asked for."""
    found = []
    others = [text for text in groups if not text.startswith("experiment=")]
    for text in groups:
        if not text.startswith("experiment="):
            continue
        for name in _choices(OverridesParser.create().parse_override(text)):
            if name == "null":
                continue
            file = config_dir / "experiment" / f"{name}.yaml"
            shown = f"configs/experiment/{name}.yaml"
            try:
                content = OmegaConf.load(file)
            except Exception as error:  # whatever PyYAML says
                found.append(f"{shown} is no YAML: {str(error).splitlines()[0]}")
                continue
            known = _keys(compose(config_name, [_first_choice(word) for word in others]))
            unknown = [
                key
                for key in _keys(content)
                if key.split(".")[0] not in ("defaults", "hydra") and key not in known and not _is_open(key)
            ]
            found += [f"{shown}: {_unknown_key(key, known)}" for key in unknown]
            if not unknown:
                try:
                    compose(config_name, [f"experiment={name}"])
                except (HydraException, OmegaConfBaseException) as error:
                    found.append(f"{shown}: {_cause(error)}")
    return found


def _cause(error: BaseException) -> str:
    """What OmegaConf said, without Hydra's wrapping and without the lines that describe its own objects."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).splitlines()
    return lines[1].strip() if lines[0].endswith("composing config:") and len(lines) > 1 else lines[0]


def with_saved_run(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The settings of the run that `ckpt` lies in, changed by the command line; `cfg` itself without such a run.

    Raises:
        UserError: a group (model=..., data=...) is chosen for a run that has one already.
    """
    run = resumed_run(next(iter(as_list(cfg.ckpt)), None))
    if run is None:
        return cfg
    merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.load(run / "config.yaml"))
    assert isinstance(merged, DictConfig)
    for text in overrides:
        key = OverridesParser.create().parse_override(text).key_or_group
        if key in ("model", "optim", "trainer", "experiment") or (key == "data" and cfg.mode == "train"):
            raise UserError(f"{text}: {cfg.ckpt} belongs to a run with settings of its own; leave {key}= out")
        OmegaConf.update(merged, key, OmegaConf.select(cfg, key), force_add=True)
    merged.mode, merged.ckpt = cfg.mode, cfg.ckpt
    return merged


def validate(cfg: DictConfig) -> list[str]:
    """Every value that makes no sense, a sentence each; names and types were checked before."""
    data, model, optim = cfg.data, cfg.model, cfg.optim
    found = [
        *_one_of("mode", cfg.mode, ("train", "test")),
        *_one_of("tta", cfg.tta, TTA),
        *_one_of("test_split", cfg.test_split, ("test", "val")),
        *_one_of("data.split", data.split, SPLITS),
        *_one_of("data.balance", data.balance, BALANCE),
        *_one_of("optim.schedule", optim.schedule, SCHEDULES),
        *_between("label_smoothing", cfg.label_smoothing, 0, 1),
        *_between("ema", cfg.ema, 0, 1),
        *_between("data.batch_size", data.batch_size, 1, None),
        *_between("data.val_fraction", data.val_fraction, 0, 1),
        *_between("data.test_fraction", data.test_fraction, 0, 1),
        *_between("data.mixup_alpha", data.mixup_alpha, 0, None),
        *_between("data.memory_gb", data.memory_gb, 0, None),
        *_between("optim.lr", optim.lr, 0, None),
        *_between("optim.weight_decay", optim.weight_decay, 0, None),
        *_between("model.image_size", model.image_size, 16, None),
        *_between("robustness_faces", cfg.robustness_faces, 1, None),
        *_between("early_stopping", cfg.early_stopping, 1, None),
        *_between("image_sizes", min(cfg.image_sizes or [16]), 16, None),
    ]
    try:
        resolve_classes(data.classes if isinstance(data.classes, int | str) else list(data.classes))
    except UserError as error:
        found.append(str(error))
    if data.folds is not None:
        found += _between("data.folds", data.folds, 2, None)
        if not 0 <= data.fold < data.folds:
            found.append(f"data.fold={data.fold}: with data.folds={data.folds} it goes from 0 to {data.folds - 1}")
    if data.val_fraction + data.test_fraction >= 1:
        found.append("data.val_fraction and data.test_fraction leave nothing to train on; their sum must be below 1")
    if cfg.robustness_faces is not None and not cfg.robustness:
        found.append("robustness_faces: it is of the report on corrupted faces; add robustness=true")
    if cfg.mode == "test" and cfg.ckpt is None:
        found.append("mode=test needs a checkpoint: ckpt=RUN/checkpoints/best.ckpt")
    if cfg.image_sizes and (cfg.trainer.get("max_epochs") or 0) < 1:
        found.append("image_sizes: each size is for a share of the epochs; give their number, trainer.max_epochs")
    if OmegaConf.is_list(cfg.ckpt) and (cfg.mode == "train" or not cfg.ckpt):
        found.append("ckpt: a list of checkpoints is an ensemble; it needs mode=test and at least one checkpoint")
    for ckpt in as_list(cfg.ckpt):
        if ckpt is not None and not Path(str(ckpt)).is_file():
            found.append(f"ckpt={ckpt} does not exist; a run's checkpoints are in its checkpoints/ directory")
    return found + _mistaken_labels(cfg) + _mistaken_names(cfg)


def _mistaken_labels(cfg: DictConfig) -> list[str]:
    """Settings of labels and of rows to leave out that make no sense, alone or together."""
    data = cfg.data
    ferplus = "ferplus" in (data.labels, data.eval_labels) or data.ferplus_auxiliary > 0
    found = [
        *_one_of("data.labels", data.labels, LABELS),
        *(_one_of("data.eval_labels", data.eval_labels, LABELS) if data.eval_labels is not None else []),
        *_one_of("data.ferplus_target", data.ferplus_target, FERPLUS_TARGETS),
        *_one_of("data.exclude_action", data.exclude_action, EXCLUDE_ACTIONS),
        *_between("data.fer2013_weight", data.fer2013_weight, 0, 1),
        *_between("data.ferplus_auxiliary", data.ferplus_auxiliary, 0, 10),
    ]
    if ferplus and data.path is None:
        found.append(
            "data.labels=ferplus, ferplus_auxiliary: there are no votes on drawn faces; give data.path=fer2013.csv"
        )
    if data.labels == "fer2013" and (data.ferplus_target != "majority" or data.fer2013_weight > 0):
        found.append("data.ferplus_target and data.fer2013_weight are of training with data.labels=ferplus; add that")
    if data.labels != "ferplus" and CONTEMPT in _classes(data.classes):
        found.append(f"data.classes: only FER+ votes for {CONTEMPT}; add data.labels=ferplus, or leave it out")
    if data.ferplus_target == "any" and (data.mixup_alpha > 0 or data.fer2013_weight > 0):
        found.append("data.ferplus_target=any takes one label per face; leave data.mixup_alpha and fer2013_weight at 0")
    if data.groups is not None and not Path(data.groups).expanduser().exists():
        found.append(f"data.groups={data.groups} does not exist; give a CSV with the columns id,group, or leave it out")
    if data.exclude is None:
        if data.exclude_reasons is not None or data.exclude_action != "drop":
            found.append("data.exclude_reasons and data.exclude_action need data.exclude=cleaning.csv")
        return found
    if data.path is None:
        found.append("data.exclude: lists are of data on disk; give data.path, or leave it out")
    elif not Path(data.exclude).expanduser().is_file():
        found.append(f"data.exclude={data.exclude} does not exist; python -m fer.data.clean data.path=... makes one")
    if data.exclude_action == "relabel" and data.labels == "ferplus":
        found.append("data.exclude_action=relabel: with data.labels=ferplus all labels are FER+'s; choose drop")
    return found


def _classes(classes: Any) -> tuple[str, ...]:
    """The class names, or none where `validate` has another complaint about them."""
    try:
        return resolve_classes(classes if isinstance(classes, int | str) else list(classes))
    except UserError:
        return ()


def import_by_name(name: str) -> Any:
    """The class or function that a dotted name such as torch.optim.SGD stands for.

    Raises:
        UserError: there is none.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"_target_: {name}: there is no such class") from error


def _mistaken_names(cfg: DictConfig) -> list[str]:
    """Unknown networks, classes and arguments of the Trainer. Imports the libraries that know them."""
    import lightning

    from fer.models import OWN, suggest

    found = []
    if cfg.mode == "train" and cfg.model.name not in OWN:
        import timm

        if not timm.is_model(cfg.model.name):
            found.append(f"model.name={cfg.model.name}: there is no such network; {suggest(cfg.model.name)}")
    known = inspect.signature(lightning.Trainer).parameters
    found += [
        _unknown_key(f"trainer.{key}", [f"trainer.{name}" for name in known]) for key in cfg.trainer if key not in known
    ]
    for settings in [cfg.optim.optimizer, *cfg.callbacks.values()]:
        try:
            import_by_name(settings.get("_target_", ""))
        except UserError as error:
            found.append(str(error))
    return found


def _one_of(key: str, value: Any, choices: Sequence[str]) -> list[str]:
    return (
        [] if value in choices else [f"{key}={value}: there is {', '.join(choices)}{did_you_mean(str(value), choices)}"]
    )


def _between(key: str, value: float | None, low: float, high: float | None) -> list[str]:
    if value is None or (value >= low and (high is None or value <= high)):
        return []
    limits = f"at least {low}" if high is None else f"between {low} and {high}"
    return [f"{key}={value}: it must be {limits}"]
