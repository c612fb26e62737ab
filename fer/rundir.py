"""A run's directory: its name, its files, its one owner, and its saved settings, which may come from a stranger."""

import contextlib
import datetime
import json
import os
import re
import subprocess
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

import fer
from fer import machine
from fer.errors import UserError, first_line
from fer.files import at_home, host, locked, make_directory, new_directory, write_whole
from fer.settings.base import as_yaml
from fer.settings.train import TrainSettings

OUTPUTS = Path("outputs")
SETTINGS = "config.yaml"
METRICS = "metrics.json"  # written when all other numbers are there: with it a run is complete
PREDICTIONS = "predictions.csv"
HISTORY = "history.csv"
REPORT = "report.html"
FAILURE = "failed.txt"  # in the directory of a sweep's job that ended with an error: the message
PLOTS = "plots"
CHECKPOINTS = "checkpoints"
BEST = "best"
LAST = "last"

PRIVATE = f"in {SETTINGS}: a value came from the environment, so that only its owner may read them"

_TOLD = "FER_RUN_DIRECTORY"  # by which the first process tells the others where to go
LOCK = ".lock"  # there while a process is at the run
_MOST_BYTES = 16_000_000  # of a file of a run
_MOST_SETTINGS = 100_000  # a config.yaml has a few thousand, and long numbers in it take long
_TENSORBOARD = {"tensorboard": {"_target_": "lightning.pytorch.loggers.TensorBoardLogger"}}


def checkpoint(run: Path, name: str) -> Path:
    """Where a run's BEST or LAST checkpoint lies."""
    return run / CHECKPOINTS / f"{name}.ckpt"


def of_checkpoint(ckpt: str | Path | None) -> Path | None:
    """The run directory that a checkpoint lies in (RUN/checkpoints/last.ckpt), or None."""
    if ckpt is None:
        return None
    run = at_home(ckpt).absolute().parent.parent
    return run if (run / SETTINGS).is_file() else None


def new(name: str) -> Path:
    """Makes a directory under outputs/ that nobody else has, named by the time and `name`.

    A process that Lightning has started beside the first one gets the first one's.
    """
    if not machine.is_first() and (told := os.environ.get(_TOLD)):
        return Path(told)
    stem = f"{datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}_{_plain(name)}"
    run = new_directory(OUTPUTS / stem)
    if run is None:
        raise UserError(f"{OUTPUTS / stem}: there are ten thousand of these; clear outputs/")
    os.environ[_TOLD] = str(run)
    return run


def of_job(job: str, name: str, words: Sequence[str]) -> Path:
    """The directory of a cluster's job: the same for all its processes, and when it is put back into the queue."""
    return OUTPUTS / f"{job}_{_plain(name)}_{zlib.crc32(repr(list(words)).encode()):08x}"


def test_name(settings: TrainSettings, named: bool) -> str:
    """What a test's directory is called: by what is tested, unless a name was given."""
    paths = settings.checkpoints
    if named:
        tested = settings.run_name
    elif len(paths) > 1:
        tested = f"ensemble_of_{len(paths)}"
    elif (run := of_checkpoint(paths[0])) is not None:
        tested = str(saved_values(run).get("name") or run.name)
    else:
        tested = paths[0].stem
    return f"test_{tested}" if settings.tta == "none" else f"test_{tested}_{settings.tta}"


def _plain(name: str) -> str:
    """A part of a path: no separators, no leading dot."""
    return re.sub(r"[^\w.+-]+", "-", name).lstrip(".")[:100] or "run"


def claim(run: Path, settings: TrainSettings, words: Sequence[str], secret: bool = False) -> None:
    """Makes this run the owner of a directory, and writes its settings there; or goes on with a run of the same.

    Args:
        run: the directory, made where it is missing.
        settings: of the run.
        words: of the command line, as they were typed.
        secret: whether a value came from the environment: the file is then its owner's to read.

    Raises:
        UserError: the directory holds a run with other settings, or one that is not to be gone on with.
    """
    leftovers(run)
    make_directory(run)
    resumed = of_checkpoint(settings.ckpt if isinstance(settings.ckpt, str) else None)
    if not (run / SETTINGS).is_file() or resumed == run.absolute():
        write_settings(run, settings, words, secret)
    elif not same(settings, load(run)):
        raise UserError(
            f"{run} holds a run with other settings; move it away, or choose another directory "
            "(hydra.run.dir, hydra.sweep.dir)"
        )


class InUse(UserError):
    """Another process is at a run."""


@contextlib.contextmanager
def claimed(run: Path, settings: TrainSettings, words: Sequence[str], secret: bool = False) -> Iterator[None]:
    """As `claim`, for one process at a time; the directory goes when a mistake or a signal comes before anything else
    lies in it.

    Raises:
        InUse: another process trains or evaluates in it.
        UserError: as `claim`.
    """
    make_directory(run)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run / LOCK))
        except BlockingIOError as error:
            raise InUse(f"{run} is a run that another process is at; wait for its end, or stop it") from error
        try:
            claim(run, settings, words, secret)
            yield
        except (UserError, KeyboardInterrupt, machine.Terminated):
            if {file.name for file in run.iterdir()} <= {SETTINGS, LOCK}:
                for name in (SETTINGS, LOCK):
                    (run / name).unlink(missing_ok=True)
                run.rmdir()
            raise


def refuse_occupied(run: Path) -> None:
    """Raises UserError where a directory that was given for a new run holds one already."""
    if (run / SETTINGS).is_file():
        last = checkpoint(run, LAST)
        way = f"go on with it by ckpt={last}, or " if last.is_file() else ""
        raise UserError(f"hydra.run.dir={run} holds a run already; {way}choose another directory")


def write_settings(run: Path, settings: TrainSettings, words: Sequence[str], secret: bool = False) -> None:
    """Writes config.yaml: every setting, resolved, and what made them."""
    content = settings.plain() | {"name": settings.run_name}
    content["model"]["image_size"] = settings.image_size
    _write(run, content, words, secret)


def write_refused(run: Path, values: Mapping[str, Any], words: Sequence[str]) -> None:
    """Writes config.yaml of settings that make no sense, for the table of a sweep; `load` refuses them."""
    _write(run, {**values, "name": values.get("name") or run.name}, words, secret=False)


def _write(run: Path, content: Mapping[str, Any], words: Sequence[str], secret: bool) -> None:
    made = {"overrides": list(words), "version": fer.__version__, "commit": commit()}
    write_whole(run / SETTINGS, as_yaml({**content, "run": made}).encode(), mode=0o600 if secret else None)


def load(run: Path) -> TrainSettings:
    """A run's saved settings.

    Raises:
        UserError: they cannot be read or make no sense; the sentences name the file.
    """
    values = saved_values(run)
    values.pop("run", None)
    values.setdefault("logger", _TENSORBOARD)  # before version 0.2 there was no other
    try:
        return TrainSettings.checked(values)
    except UserError as error:
        raise UserError("\n".join(f"{run / SETTINGS}: {line}" for line in str(error).splitlines())) from error


def report(run: Path) -> dict[str, Any]:
    """A finished run's numbers.

    Raises:
        UserError: the file is none of this program's.
    """
    file = run / METRICS
    try:
        numbers = json.loads(text(file))
        float(numbers[numbers["reported_split"]]["accuracy"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged; make it again by mode=test, or move {run} away") from error
    return dict(numbers)


def text(file: Path, most: int = _MOST_BYTES) -> str:
    """What a file of a run holds, which a stranger may have put there: also a link to a device, which has no end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, or too large.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is no file")
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError("it is too large")
    return content.decode()


def same(one: TrainSettings, two: TrainSettings) -> bool:
    """Whether two runs were asked for the same; a run that was resumed names its own checkpoint."""
    return _asked_for(one) == _asked_for(two)


def _asked_for(settings: TrainSettings) -> dict[str, Any]:
    left_out = ("name", "ckpt") if settings.mode == "train" else ("name",)
    asked = {key: value for key, value in settings.plain().items() if key not in left_out}
    return asked | {"model": {**asked["model"], "image_size": settings.image_size}}


def saved_values(run: Path) -> dict[str, Any]:
    """What stands in a run's config.yaml, as plain data: nothing in it is resolved or run.

    Raises:
        UserError: the file is missing, too large, or not a mapping in YAML; the sentence names it.
    """
    file = run / SETTINGS
    try:
        values = yaml.load(text(file, _MOST_SETTINGS), _PlainLoader)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not plain YAML ({first_line(error)}); restore it, or move it away") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{file} holds no settings; restore it, or move it away")
    return values


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


def leftovers(run: Path) -> None:
    """Removes temporary files of a run's own names that a process of this machine left there and that is gone."""
    own = re.compile(rf"\.(.+)\.{re.escape(host())}-(\d+)-[0-9a-f]+\.tmp")
    names = {SETTINGS, METRICS, PREDICTIONS, HISTORY, REPORT, f"{BEST}.ckpt", f"{LAST}.ckpt"}
    for folder in (run, run / CHECKPOINTS, run / PLOTS):
        for file in folder.glob(".*.tmp"):
            match = own.fullmatch(file.name)
            plot = folder.name == PLOTS and match is not None and match[1].endswith(".png")
            if match and (plot or match[1] in names) and not machine.is_running(int(match[2])):
                file.unlink(missing_ok=True)


def commit() -> str | None:
    """The commit of the checkout that this package lies in, with "-dirty" when files were changed; None elsewhere."""
    checkout = Path(fer.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "-C", str(checkout), "describe"]
    command += ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
