"""The table of many runs: train.py makes it after every sweep, `fer-summary` at any time.

Runs that differ only in the seed, or in the fold of a cross-validation, are one row. Reads what runs have written;
knows nothing of networks.
"""

import json
import os
import re
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer import rundir
from fer.data.folder import natural
from fer.errors import UserError
from fer.evaluation.compare import Answers, compare, read_answers
from fer.files import as_csv, as_png, cell, is_dir, printable, write_whole
from fer.settings.base import flat

METRICS = ("val accuracy", "val f1", "test accuracy", "test f1", "test loss")
LONG_LABEL = 40  # characters; experiments that are longer to describe go by their names
_NARROWEST = 8  # characters of a column of labels
SHOWN = ("val accuracy", "test accuracy", "test f1")  # in the terminal; the files have all


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        directory: where it lies.
        settings: all settings by dotted name.
        report: content of metrics.json; None when the run was not completed.
        status: "finished", or what happened.
        asked: settings and groups that its command line named.
    """

    directory: Path
    settings: dict[str, Any]
    report: dict[str, Any] | None
    status: str
    asked: frozenset[str] = frozenset()

    def value(self, metric: str) -> float | None:
        """A number such as "val accuracy"; None where it is missing."""
        split, name = metric.split()
        found = (self.report or {}).get(split)
        return None if found is None else float(found[name])


@dataclass(frozen=True)
class Row:
    """Finished runs that differ only in seed or fold, or one run that was not finished.

    Attributes:
        label: what sets the row apart from the others, by short name.
        runs: at least one, each of another seed or fold.
        repeated: runs that have seed and fold of one of `runs`, and are not counted.
    """

    label: dict[str, str]
    runs: list[Run]
    repeated: Sequence[Run] = ()

    @property
    def finished(self) -> bool:
        """Whether the row has numbers."""
        return self.runs[0].report is not None

    @property
    def name(self) -> str:
        """The label in one line."""
        if set(self.label) <= {"name"}:
            return printable(str(self.runs[0].settings["name"]))
        return _in_words(self.label)

    def mean(self, metric: str) -> float | None:
        """Over the runs; None where one lacks it."""
        values = [run.value(metric) for run in self.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if len(known) == len(values) else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over the runs (n - 1); None for a single run."""
        known = [value for run in self.runs if (value := run.value(metric)) is not None]
        return statistics.stdev(known) if len(known) > 1 else None


def summarise(paths: Sequence[Path]) -> None:
    """Writes summary.csv, summary.md and summary.png, and prints the table.

    Args:
        paths: run directories, or directories that hold them at any depth; the files go to what they have in common.

    Raises:
        UserError: a path does not exist, there is no run, or none was finished.
    """
    rows = make_rows(read_runs(paths))
    directory = Path(os.path.commonpath([path.absolute() for path in paths]))
    notes = [*_repeated(rows, directory), *_compare_best(rows), *_out_of_fold(rows, directory)]

    write_whole(directory / "summary.csv", _csv(rows).encode())
    write_whole(directory / "summary.md", _markdown(rows, notes).encode())
    write_whole(directory / "summary.png", as_png(_picture(rows)))
    _print(rows, notes, directory)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """All runs at or below the paths, finished or not, in the order of their names.

    Raises:
        UserError: as `summarise`.
    """
    found: list[Path] = []
    for path in paths:
        if not is_dir(path):
            raise UserError(f"{path} is no directory; give run directories, or a directory that holds some")
        found += [file.parent for file in path.rglob(rundir.SETTINGS) if file.parent not in found]
    found.sort(key=lambda directory: natural(str(directory)))
    runs = [run for directory in found if (run := _read_run(directory, found)) is not None]
    if not runs:
        raise UserError(
            f"{', '.join(map(str, paths))}: there is no run in it; a run has a config.yaml and a metrics.json"
        )
    if all(run.report is None for run in runs):
        last = (rundir.checkpoint(run.directory, rundir.LAST) for run in runs)
        ckpt = next((file for file in last if file.is_file()), None)
        way_out = f"the first one: {runs[0].status}" if ckpt is None else f"go on with python train.py ckpt={ckpt}"
        raise UserError(
            f"{', '.join(map(str, paths))}: no run has a metrics.json, because none was finished; {way_out}"
        )
    return runs


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """One row per setting, the best validation accuracy first, what was not finished last.

    Of several runs with the same settings, seed and fold, which say nothing about the spread, the first one counts.
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    names = _label_keys(runs, [key for key in keys if not _is_repetition(key, runs)])
    if _are_told_apart_by_name(runs, names):
        names = {"name": "name"}
    groups: dict[tuple[str, ...], list[Run]] = {}
    unfinished: list[Row] = []
    for run in runs:
        key = tuple(str(run.settings.get(key)) for key in keys if not _is_repetition(key, [run]))
        if run.report is None:
            label = _label(run, names)
            for extra, short in (("data.fold", "fold"), ("seed", "seed")):
                if len({str(other.settings.get(extra)) for other in runs}) > 1:
                    label[short] = str(run.settings.get(extra))
            unfinished.append(Row(label, [run]))
        else:
            groups.setdefault(key, []).append(run)
    rows = []
    for members in groups.values():
        first: dict[tuple[str, str], Run] = {}
        for run in members:
            first.setdefault(_seed_and_fold(run), run)
        counted = list(first.values())
        rows.append(Row(_label(counted[0], names), counted, [run for run in members if run not in counted]))
    return sorted(rows, key=lambda row: -_score(row)) + unfinished


def _read_run(directory: Path, others: Sequence[Path]) -> Run | None:
    """A run, or None where the config.yaml is of another program, such as the one that W&B leaves below a run."""
    try:
        loaded = rundir.saved_values(directory)
    except UserError:
        if any(parent in others for parent in directory.parents):
            return None
        raise
    if not isinstance(loaded.get("name"), str) or not all(
        isinstance(loaded.get(key), dict) for key in ("data", "model")
    ):
        return None
    made = loaded.pop("run", None)
    loaded.pop("logger", None)
    words = made.get("overrides", []) if isinstance(made, dict) else []
    asked = frozenset(str(word).partition("=")[0].lstrip("+~") for word in words)
    settings = flat(loaded)
    metrics = directory / rundir.METRICS
    if metrics.is_file():
        return Run(directory, settings, rundir.report(directory), "finished", asked)
    failure = directory / rundir.FAILURE
    if failure.is_file():
        with failure.open("rb") as stream:
            message = stream.read(1000).decode(errors="replace").partition("\n")[0]
        return Run(directory, settings, None, f"failed: {printable(message)}", asked)
    history = directory / rundir.HISTORY
    epochs = 0
    if history.is_file():
        with history.open("rb") as stream:
            epochs = sum(1 for _ in stream) - 1
    return Run(directory, settings, None, f"interrupted after {epochs} epochs", asked)


def _is_repetition(key: str, runs: Iterable[Run]) -> bool:
    """Whether a setting does not make another experiment, but the same once more."""
    if key == "ckpt":  # a resumed run names its own
        return all(run.settings.get("mode") == "train" for run in runs)
    if key == "data.fold":
        return all(run.settings.get("data.folds") is not None for run in runs)
    return key in ("seed", "name")


def _seed_and_fold(run: Run) -> tuple[str, str]:
    return str(run.settings.get("seed")), str(run.settings.get("data.fold"))


def _label_keys(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, str]:
    """The fewest settings that tell all rows apart, with short names.

    What the command lines named comes first, then names of networks and classes. A setting that follows from those
    before it (the arguments of a network from its name) is left out.
    """
    asked = {word for run in runs for word in run.asked}
    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: (key not in asked, not key.endswith((".name", "._target_")))):
        before = {tuple(str(run.settings.get(name)) for name in chosen) for run in runs}
        after = {tuple(str(run.settings.get(name)) for name in (*chosen, key)) for run in runs}
        if len(after) > len(before):
            chosen.append(key)
    short = {}
    for key in chosen:
        words = key.removesuffix(".name").removesuffix("._target_").split(".")
        alike = [other for other in chosen if other.split(".")[-1] == words[-1]]
        short[key] = words[-1] if len(alike) <= 1 else ".".join(words)
    return short


def _in_words(label: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in label.items())


def _are_told_apart_by_name(runs: Sequence[Run], names: dict[str, str]) -> bool:
    """Whether the runs' own names, as experiments give them, say in a word what the settings of `names` say in many."""
    by_label: dict[str, set[str]] = {}
    for run in runs:
        by_label.setdefault(_in_words(_label(run, names)), set()).add(str(run.settings["name"]))
    own = [name for found in by_label.values() for name in found]
    return len(own) == len(set(own)) == len(by_label) and max(map(len, by_label)) > LONG_LABEL


def _label(run: Run, names: dict[str, str]) -> dict[str, str]:
    label = {}
    for key, short in names.items():
        value = run.settings.get(key)
        text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
        label[short] = printable(text.rpartition(".")[2] if key.endswith("_target_") else text)
    return label


def _score(row: Row) -> float:
    """What rows are ordered by: models are chosen on val; only a report without one is judged by test."""
    value = row.mean("val accuracy")
    if value is None:
        value = row.mean("test accuracy")
    return -1.0 if value is None else value


def _repeated(rows: Sequence[Row], directory: Path) -> list[str]:
    """Which runs are not counted, in a sentence per row."""
    sentences = []
    for row in rows:
        if row.repeated:
            shown = ", ".join(os.path.relpath(run.directory, directory) for run in row.repeated)
            sentences.append(f"Left out of '{row.name}', as runs of a seed and fold that another one has: {shown}.")
    return sentences


def _compare_best(rows: Sequence[Row]) -> list[str]:
    """The two best rows on val and on test, in sentences."""
    best = [row for row in rows if row.finished][:2]
    if len(best) < 2:
        return []
    found = []
    for split in ("val", "test"):
        answers = [[Answers.join(parts) for parts in _parts(row, split)] for row in best]
        if all(answers):
            found.append(compare(split, best[0].name, answers[0], best[1].name, answers[1]).sentence)
    return found


def _parts(row: Row, split: str) -> list[list[Answers]]:
    """The answers to be put together: on val the folds of each seed, else every run for itself."""
    pooled = split == "val" and row.runs[0].settings.get("data.folds") is not None
    parts: dict[str, list[Answers]] = {}
    for run in row.runs:
        file = run.directory / rundir.PREDICTIONS
        if (run.report or {}).get(split) and file.is_file():
            key = str(run.settings.get("seed")) if pooled else str(run.directory)
            parts.setdefault(key, []).append(read_answers(file, split))
    return list(parts.values())


def _out_of_fold(rows: Sequence[Row], directory: Path) -> list[str]:
    """Writes the pooled report of each cross-validation: every image judged by the network that did not see it."""
    sentences, reports = [], []
    for row in rows:
        folds = row.runs[0].settings.get("data.folds")
        if folds is None or not row.finished:
            continue
        for number, parts in enumerate(_parts(row, "val")):
            import torch  # slow, so only where it is needed

            from fer.evaluation import plots
            from fer.evaluation.metrics import compute_metrics

            pooled, done = Answers.join(parts), len(parts)
            probabilities, targets = torch.from_numpy(pooled.probabilities), torch.from_numpy(pooled.targets)
            metrics = compute_metrics(probabilities, targets, pooled.classes)
            reports.append({"row": row.label, "folds": folds, "folds_finished": done, **metrics})
            low, high = metrics["interval95"]["accuracy"]
            sentence = (
                f"Out of fold, {row.name}: accuracy {metrics['accuracy']:.4f} [{low:.3f}, {high:.3f}], macro F1 "
                f"{metrics['f1']:.4f} over {metrics['images']:,} images"
            )
            sentences.append(f"{sentence}{'' if done == folds else f'; only {done} of {folds} folds are finished'}.")
            title = f"out of fold: {row.name}\naccuracy {metrics['accuracy']:.3f}, macro F1 {metrics['f1']:.3f}"
            figure = plots.confusion_matrix(metrics["confusion_matrix"], pooled.classes, title)
            name = re.sub(r"[^A-Za-z0-9.+-]+", "_", row.name)[:60]
            write_whole(directory / f"out_of_fold_{name}_{number}.png", as_png(figure))
    if reports:
        write_whole(directory / "out_of_fold.json", json.dumps(reports, indent=2).encode())
    return sentences


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The names of the labels, and the metrics that at least one row has."""
    labels = list(dict.fromkeys(name for row in rows for name in row.label))
    return labels, [metric for metric in METRICS if any(row.mean(metric) is not None for row in rows if row.finished)]


def _cells(row: Row, labels: Sequence[str], metrics: Sequence[str]) -> list[str]:
    cells = [row.label.get(name, "") for name in labels]
    cells.append(str(len(row.runs)) if row.finished else "")
    for metric in metrics:
        mean, deviation = row.mean(metric), row.deviation(metric)
        text = "" if mean is None else f"{mean:.4f}"
        cells.append(text if deviation is None else f"{text} ± {deviation:.4f}")
    return [*cells, row.runs[0].status]


def _csv(rows: Sequence[Row]) -> str:
    labels, metrics = _columns(rows)
    figures = [f"{metric.replace(' ', '_')}_{what}" for metric in metrics for what in ("mean", "std")]
    lines: list[list[Any]] = [[*map(cell, labels), "n", *figures, "status", "runs"]]
    for row in rows:
        numbers = [value for metric in metrics for value in (row.mean(metric), row.deviation(metric))]
        lines.append(
            [
                *(cell(row.label.get(name, "")) for name in labels),
                len(row.runs) if row.finished else 0,
                *("" if value is None else f"{value:.6f}" for value in numbers),
                cell(row.runs[0].status),
                cell(" ".join(str(run.directory) for run in row.runs)),
            ]
        )
    return as_csv(lines)


def _markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    labels, metrics = _columns(rows)
    lines = ["| " + " | ".join([*labels, "n", *metrics, "status"]) + " |"]
    lines.append("|" + "|".join(["---"] * len(labels) + ["---:"] * (1 + len(metrics)) + ["---"]) + "|")
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row, labels, metrics)) + " |")
    explanation = "Best validation accuracy first; mean ± standard deviation over n runs that differ in seed or fold."
    return "\n\n".join(["\n".join(lines), explanation, *notes]) + "\n"


def _print(rows: Sequence[Row], notes: Sequence[str], directory: Path) -> None:
    labels, metrics = _columns(rows)
    metrics = [metric for metric in metrics if metric in SHOWN]
    numbers = ["n", *metrics]
    header = [*labels, *numbers, *(["status"] if not all(row.finished for row in rows) else [])]
    lines = [_cells(row, labels, metrics)[: len(header)] for row in rows]
    table = Table(title=escape(f"{sum(len(row.runs) for row in rows)} runs in {directory.name}"), title_justify="left")
    for name in header:
        # In a narrow window labels are broken; numbers never are.
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers, overflow="fold")
    for row, cells in zip(rows, lines, strict=True):
        table.add_row(*map(escape, cells), style=None if row.finished else "dim")
    console = Console()
    # Where not all columns have room Rich leaves some out; lines that the window has to break have them all.
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    least = [width if name in numbers else min(width, _NARROWEST) for name, width in zip(header, widths, strict=True)]
    Console(width=max(console.width, sum(least) + 3 * len(least) + 1)).print(table)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    console.print(f"summary    {directory / 'summary.md'}", soft_wrap=True, highlight=False, markup=False)


def _picture(rows: Sequence[Row]) -> Figure:
    """Accuracy of every finished row, best on top; whiskers are intervals over images or deviations over runs."""
    shown = [row for row in rows if row.finished]
    names = [f"{row.name} (n={len(row.runs)})" if len(row.runs) > 1 else row.name for row in shown]
    names = [textwrap.fill(name, LONG_LABEL) for name in names]
    lines = sum(max(1.5, 0.9 * (name.count("\n") + 1)) for name in names)
    figure = Figure(figsize=(8, 0.33 * lines + 1.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    for split, colour, shift in (("val", "tab:orange", -0.12), ("test", "tab:blue", 0.12)):
        label: str | None = split
        for position, row in enumerate(shown):
            mean = row.mean(f"{split} accuracy")
            if mean is None:
                continue
            deviation = row.deviation(f"{split} accuracy")
            low, high = (
                row.runs[0].report[split]["interval95"]["accuracy"]  # type: ignore[index]
                if deviation is None
                else (mean - deviation, mean + deviation)
            )
            whiskers = [[max(mean - low, 0)], [max(high - mean, 0)]]
            axis.errorbar(mean, position + shift, xerr=whiskers, fmt="o", color=colour, capsize=3, label=label)
            label = None
            if deviation is not None:
                values = [value for run in row.runs if (value := run.value(f"{split} accuracy")) is not None]
                axis.plot(values, [position + shift] * len(values), "|", color=colour, markersize=7, alpha=0.6)
    axis.set_yticks(range(len(shown)), names, parse_math=False)
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_xlabel("accuracy; whiskers: ± standard deviation over runs, or 95 % interval over images of a single run")
    axis.xaxis.label.set_fontsize(8.5)
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
