"""The jobs of a sweep (`-m`): where they lie, what they are called, and which are still to be done.

A sweep's directory is found again by a digest of its command, so that the same command goes on where it was stopped.
Knows nothing of training or evaluation, and imports neither.
"""

import datetime
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fer.errors import UserError

FAILURE = "failed.txt"  # in the directory of a job that ended with an error: the message
_FOLDER = Path("outputs/sweeps")


def register(overrides: Sequence[str]) -> None:
    """Makes the resolvers of configs/train.yaml known that name the directories of a sweep.

    Args:
        overrides: the KEY=VALUE words of the command line.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = [word for word, override in zip(overrides, parsed, strict=True) if override.is_sweep_override()]
    fixed = {override.key_or_group for override in parsed if not override.is_sweep_override()}
    name = functools.cache(lambda: _directory(overrides, swept))  # every job asks
    OmegaConf.register_new_resolver("sweep_dir", name, replace=True)
    OmegaConf.register_new_resolver("varied", lambda job: _varied(job, fixed), replace=True)


def _directory(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """The directory of an earlier sweep by the same command, else a new name with the time and what is varied."""
    digest = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:8]
    earlier = sorted(_FOLDER.glob(f"*_{digest}"))
    if earlier:
        return str(earlier[-1])
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return str(_FOLDER / "_".join([now, *filter(None, [_plain(swept)]), digest]))


def _varied(job: Sequence[str], fixed: set[str]) -> str:
    """What sets a job apart from the others of its sweep: its overrides of what the command does not fix."""
    return _plain([word for word in job if word.partition("=")[0].lstrip("+~") not in fixed]) or "run"


def _plain(overrides: Sequence[str]) -> str:
    """Overrides as a part of a file name that needs no quotes: data.classes=4,7 becomes classes-4+7."""
    parts = []
    for word in overrides:
        key, _, value = word.partition("=")
        name = key.lstrip("+~").rpartition(".")[2]
        parts.append(f"{name}-{re.sub(r'[^A-Za-z0-9.+-]+', '', Path(value).name.replace(',', '+'))}")
    return "_".join(parts)[:80]


def same_settings(one: DictConfig, two: DictConfig) -> bool:
    """Whether two runs were asked for the same; a run that was resumed names its own checkpoint."""

    def plain(cfg: DictConfig) -> dict[str, Any]:
        content: Any = OmegaConf.to_container(cfg, resolve=True)
        return {key: value for key, value in content.items() if key != "name" and (key, cfg.mode) != ("ckpt", "train")}

    return json.dumps(plain(one), sort_keys=True, default=str) == json.dumps(plain(two), sort_keys=True, default=str)


def finished_accuracy(cfg: DictConfig, run_dir: Path) -> float | None:
    """The accuracy of a job that an earlier start of the sweep completed; otherwise None, and `cfg` goes on with its
    last checkpoint where there is one.

    Raises:
        UserError: the directory belongs to a run with other settings.
    """
    saved = run_dir / "config.yaml"
    if not saved.is_file():
        return None
    earlier = OmegaConf.load(saved)
    assert isinstance(earlier, DictConfig)
    if not same_settings(cfg, earlier):
        raise UserError(
            f"{run_dir} holds a run with other settings, from before a file under configs/ was changed; "
            "move it away, or choose another hydra.sweep.dir"
        )
    metrics = run_dir / "metrics.json"
    if metrics.is_file():
        report = json.loads(metrics.read_text())
        return float(report.get("val", report[report["reported_split"]])["accuracy"])
    (run_dir / FAILURE).unlink(missing_ok=True)
    last = run_dir / "checkpoints" / "last.ckpt"
    if cfg.mode == "train" and cfg.ckpt is None and last.is_file():
        cfg.ckpt = str(last)
    return None


def note_failure(cfg: DictConfig, run_dir: Path, message: str) -> None:
    """Leaves the message and the settings of a failed job for the summary of its sweep."""
    if (run_dir / "metrics.json").is_file():
        return  # the directory is another run's
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "config.yaml").is_file():
        OmegaConf.save(cfg, run_dir / "config.yaml", resolve=True)
    (run_dir / FAILURE).write_text(message + "\n")
