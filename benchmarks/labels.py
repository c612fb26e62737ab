"""What clean labels are worth: judges the runs of `python train.py sweep=labels -m` by two kinds of labels.

    python benchmarks/labels.py outputs/sweeps/... --data data/fer2013.csv --votes data/fer2013new.csv \\
        --list outputs/cleaning/cleaning.csv

Every run predicted the same PublicTest rows. From its predictions.csv this counts how many are right by FER2013's own
labels and by the label with most votes in FER+, on all rows and on those without a copy in another split. Writes the
table into docs/labels.md, between its two comments, and docs/labels.png. No network is run.
"""

import argparse
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import f1_score

from fer import rundir
from fer.data.datamodule import FER2013DataModule
from fer.data.exclude import read_list
from fer.data.faces import TRAIN, VAL
from fer.data.ferplus import read_votes, votes_of, winner
from fer.data.reader import read
from fer.evaluation.compare import Answers, compare, read_answers
from fer.evaluation.summary import Run, read_runs
from fer.files import write_whole
from fer.labels import ALL_EMOTIONS

VARIANTS = {
    "raw": "all rows, FER2013's labels",
    "deduplicated": "without copies, blank pictures, conflicts",
    "ferplus_filtered": "without rows that FER+ contradicts",
    "ferplus_soft": "FER+ vote distribution",
    "ferplus_auxiliary": "all rows, FER2013's labels; FER+ votes as a second task",
}
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- written by benchmarks/labels.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Judges:
    """The PublicTest rows by name: FER+'s label, where it is a class, and whether a copy stands in another split."""

    ferplus: dict[str, str]
    copied: set[str]

    def judge(self, answers: Answers, by_votes: bool, copies: bool) -> Answers:
        """The same predictions under other labels, and for fewer rows."""
        rows = answers.ids.tolist()
        kept = [
            place
            for place, row in enumerate(rows)
            if (not by_votes or self.ferplus.get(row) in answers.classes) and (copies or row not in self.copied)
        ]
        targets = answers.targets
        if by_votes:
            targets = np.array([_place(answers.classes, self.ferplus.get(row)) for row in rows])
        return replace(
            answers,
            ids=answers.ids[kept],
            targets=targets[kept],
            predicted=answers.predicted[kept],
            probabilities=answers.probabilities[kept],
        )


def _place(classes: Sequence[str], name: str | None) -> int:
    return classes.index(name) if name in classes else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--votes", required=True)
    parser.add_argument("--list", required=True, help="cleaning.csv of fer-clean")
    arguments = parser.parse_args()

    faces = read(arguments.data)
    label = winner(votes_of(faces, read_votes(arguments.votes), arguments.votes))
    copied = read_list(arguments.list, faces, ["cross_split_copy"]).listed
    val = np.flatnonzero(faces.splits == VAL)
    judges = Judges(
        {str(faces.ids[row]): ALL_EMOTIONS[label[row]] for row in val if label[row] < len(ALL_EMOTIONS)},
        set(faces.ids[val[copied[val]]].tolist()),
    )
    runs = [run for run in read_runs(arguments.runs) if run.report is not None]
    by_variant = {name: [run for run in runs if run.settings["name"] == name] for name in VARIANTS}
    by_variant = {name: found for name, found in by_variant.items() if found}
    text = _document(by_variant, judges)
    print(text)
    page = DOCS / "labels.md"
    before, _, rest = page.read_text().partition(BEGIN)
    write_whole(page, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}".encode())
    write_whole(DOCS / "labels.png", _picture(by_variant, judges))


def _answers(runs: Sequence[Run], judges: Judges, by_votes: bool, copies: bool) -> list[Answers]:
    return [
        judges.judge(read_answers(run.directory / "predictions.csv", "val"), by_votes, copies)
        for run in sorted(runs, key=lambda run: int(run.settings["seed"]))
    ]


def _document(by_variant: dict[str, list[Run]], judges: Judges) -> str:
    columns = [(votes, copies) for votes in (False, True) for copies in (True, False)]
    example = next(iter(by_variant.values()))
    heads = []
    for votes, copies in columns:
        count = len(_answers(example[:1], judges, votes, copies)[0].ids)
        heads.append(f"{'FER+' if votes else 'FER2013'}{'' if copies else ', no copies'} ({count:,} rows)")
    lines = [f"| training rows | number | {' | '.join(heads)} |", f"|{'---|' * (2 + len(heads))}"]
    for name, runs in by_variant.items():
        cells = [VARIANTS[name], f"{_training_rows(runs[0]):,}"]
        for votes, copies in columns:
            answers = _answers(runs, judges, votes, copies)
            accuracy = _spread([float(answer.right.mean()) for answer in answers])
            f1 = _spread([_macro_f1(answer) for answer in answers])
            cells.append(f"{accuracy}, F1 {f1}")
        lines.append(f"| {' | '.join(cells)} |")
    seeds = sorted({int(run.settings["seed"]) for runs in by_variant.values() for run in runs})
    lines += [
        "",
        f"PublicTest accuracy and macro F1 in %, mean ± standard deviation, seeds {', '.join(map(str, seeds))}. "
        "'No copies' leaves out the rows that stand in Training too.",
    ]
    if "raw" in by_variant:
        for name, runs in by_variant.items():
            for votes in (False, True):
                if name != "raw":
                    raw, other = (_answers(found, judges, votes, copies=False) for found in (by_variant["raw"], runs))
                    judge = f"judged by {'FER+' if votes else 'FER2013'}, no copies"
                    lines += ["", f"- {compare(judge, name, other, 'raw', raw).sentence}"]
    return "\n".join(lines)


def _training_rows(run: Run) -> int:
    datamodule = FER2013DataModule(rundir.load(run.directory).data)
    datamodule.setup()
    return len(datamodule.rows(TRAIN))


def _macro_f1(answers: Answers) -> float:
    return float(f1_score(answers.targets, answers.predicted, average="macro", zero_division=0))


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def _picture(by_variant: dict[str, list[Run]], judges: Judges) -> bytes:
    """A dot per seed, a line at their mean; judged by either kind of labels."""
    figure = Figure(figsize=(9.5, 0.6 * len(by_variant) + 1.6), dpi=110, layout="constrained")
    for axis, votes in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for row, runs in enumerate(by_variant.values()):
            for copies, height, colour in ((True, -0.13, "tab:gray"), (False, 0.13, "tab:blue")):
                values = [100 * float(a.right.mean()) for a in _answers(runs, judges, votes, copies)]
                label = None if row else ("all rows" if copies else "rows without a copy in Training")
                axis.plot(values, [row + height] * len(values), "o", color=colour, alpha=0.7, label=label)
                mean = statistics.fmean(values)
                axis.plot([mean, mean], [row + height - 0.12, row + height + 0.12], color=colour)
        axis.set_yticks(range(len(by_variant)), [VARIANTS[name] for name in by_variant])
        axis.set_ylim(len(by_variant) - 0.5, -0.5)
        axis.set_title(f"judged by {'FER+ majority' if votes else 'FER2013'} labels", fontsize=10)
        axis.set_xlabel("PublicTest accuracy, %")
        axis.grid(axis="x", alpha=0.3)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
