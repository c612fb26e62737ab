"""How a network that was trained on one data set does on the others: a table, and the same as a picture.

    python benchmarks/cross_dataset.py data/fer2013.csv data/RAF-DB data/CK+48
    python benchmarks/cross_dataset.py A B --out outputs/cross trainer.max_epochs=20 model=net data.size=96

Each data set trains one network of all emotions that it shows, by `train.py` with the settings behind the paths, and is
the test set of all of them. A column counts the faces of its test split (of the validation split where there is none)
whose emotion both data sets have; faces that were among the row's training faces, by their pixels or nearly, are left
out. Runs that are there already are not made again.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from fer.data.join import short_names
from fer.data.reader import read

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="paths as data.path takes them, and KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("outputs/cross_dataset"))
    given = parser.parse_intermixed_args()
    settings = [word for word in given.sources if not Path(word).exists() and "=" in word]
    paths = [Path(word) for word in given.sources if word not in settings]
    names = short_names(paths)
    console = Console()

    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for name, path in zip(names, paths, strict=True):
        run = given.out / _plain(name)
        _run(run, [f"data.path={path}", f"data.classes=[{','.join(_classes(path))}]", *settings])
        for other, tested in zip(names, paths, strict=True):
            report = run
            if other != name:
                report = given.out / f"{_plain(name)}_on_{_plain(other)}"
                ckpt = run / "checkpoints" / "best.ckpt"
                _run(report, ["mode=test", f"ckpt={ckpt}", f"data.path={tested}"])
            cells[name, other] = _cell(json.loads((report / "metrics.json").read_text()))
            console.print(f"{name} on {other}: {_text(cells[name, other])}", highlight=False)

    table = Table(
        "trained on", *names, title="accuracy, and on how many faces of how many classes", title_justify="left"
    )
    for name in names:
        table.add_row(name, *(_text(cells[name, other]) for other in names))
    console.print(table)
    (given.out / "cross_dataset.json").write_text(
        json.dumps(
            [{"trained_on": name, "tested_on": other, **cell} for (name, other), cell in cells.items()], indent=2
        )
    )
    draw(names, cells).savefig(given.out / "cross_dataset.png", dpi=150)
    console.print(f"{given.out / 'cross_dataset.png'}", highlight=False)


def _classes(path: Path) -> list[str]:
    """The emotions that a source shows, in their usual order."""
    faces = read(path)
    return [faces.emotions[code] for code in np.unique(faces.labels).tolist()]


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name)


def _run(directory: Path, words: list[str]) -> None:
    """`train.py` into a directory of its own, unless it has been there."""
    if not (directory / "metrics.json").is_file():
        command = [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={directory}"]
        subprocess.run(command, check=True)


def _cell(report: dict[str, Any]) -> dict[str, Any]:
    """Accuracy with its interval, faces and classes of a report; without copies of training faces where there are."""
    split = report["reported_split"]
    found = report[split]
    if "accuracy" in found["without_copies"]:
        found = found["without_copies"]
    return {
        "split": split,
        "accuracy": found["accuracy"],
        "interval95": found["interval95"]["accuracy"],
        "f1": found["f1"],
        "images": found["images"],
        "copies": report[split]["without_copies"]["removed"],
        "classes": report["classes"],
    }


def _text(cell: dict[str, Any]) -> str:
    low, high = cell["interval95"]
    return f"{cell['accuracy']:.1%} ({low:.1%} to {high:.1%}), {cell['images']:,} of {len(cell['classes'])}"


def draw(names: list[str], cells: dict[tuple[str, str], dict[str, Any]]) -> Figure:
    """Rows trained on, columns tested on; the darker, the more faces were right."""
    accuracies = np.array([[cells[name, other]["accuracy"] for other in names] for name in names])
    figure = Figure(figsize=(2.4 + 1.7 * len(names), 1.8 + 1.1 * len(names)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(accuracies, cmap="Blues", vmin=0, vmax=1)
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            cell = cells[name, other]
            low, high = cell["interval95"]
            size = f"{cell['images']:,} faces, {len(cell['classes'])} classes"
            text = f"{cell['accuracy']:.1%}\n{low:.1%} to {high:.1%}\n{size}"
            colour = "white" if cell["accuracy"] > 0.6 else "black"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("tested on")
    axis.set_ylabel("trained on")
    axis.set_title("Accuracy across data sets, 95 % intervals", fontsize=11)
    return figure


if __name__ == "__main__":
    main()
