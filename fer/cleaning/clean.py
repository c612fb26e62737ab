"""Which rows of a data set are doubtful, and why. Never changes the data.

Writes a list for `data.exclude` (see `fer.data.exclude`) and contact sheets to look through, and prints counts. Knows
nothing of networks: of their predictions it reads the files that evaluation has written.
"""

import csv
import datetime
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fer.cleaning.contact_sheet import Cell, draw_sheets
from fer.cleaning.label_errors import find_label_errors
from fer.data.download import download_votes
from fer.data.duplicates import connect, correlation, find_copies, pairs_at_once
from fer.data.exclude import DEFAULT_REASONS, REASONS, Finding, write_list
from fer.data.faces import SPLIT_NAMES, UNSPLIT, Faces
from fer.data.ferplus import NOT_A_FACE, UNKNOWN, read_votes, votes_of, winner
from fer.data.official import use_official
from fer.data.reader import read
from fer.errors import UserError
from fer.files import at_home, is_there, new_directory, write_whole
from fer.labels import ALL_EMOTIONS
from fer.settings.tables import CleanSettings
from fer.settings.train import VOTES_FILE

# A blank picture: one gray value fills half of it, or the gray values hardly differ. Chosen by looking: of FER2013's
# Training and PublicTest rows it finds 37, all of them black, gray, or a sign or a text in place of a picture.
BLANK_SHARE = 0.5
BLANK_DEVIATION = 5.0


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        findings: the lines of the list.
        groups: int64 (N,), for each face the number of its group of copies from 1 on, or 0.
        notes: sentences for the reader.
    """

    findings: list[Finding]
    groups: npt.NDArray[np.int64]
    notes: list[str]


def clean(settings: CleanSettings) -> Path:
    """Writes cleaning.csv and the contact sheets, prints the counts, and returns the path of the list.

    Raises:
        UserError: something that is read does not exist, is damaged, or belongs to other data.
        OSError: the output cannot be written.
    """
    console = Console()
    begin = time.perf_counter()
    data = settings.data
    faces, _ = use_official(read(data.path, size=data.size, layout=data.layout, names=data.names), data.path)
    votes = None
    if settings.data.ferplus_path is not None:
        votes_file = at_home(settings.data.ferplus_path)
        if votes_file.name != VOTES_FILE and not is_there(votes_file):
            raise UserError(f"{votes_file} does not exist; correct it (only a missing {VOTES_FILE} is downloaded)")
        votes = votes_of(faces, read_votes(download_votes(votes_file)), votes_file)
    predictions = [settings.predictions] if isinstance(settings.predictions, str) else settings.predictions or []
    report = inspect(faces, votes, [at_home(path) for path in predictions])
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    output = at_home(settings.output) if settings.output else new_directory(Path(f"outputs/{now}_cleaning"))
    if output is None:
        raise UserError(f"outputs/{now}_cleaning: there are ten thousand of these; clear outputs/, or give output=")
    sheets = _write_sheets(output / "sheets", report, faces)
    path = output / "cleaning.csv"
    write_list(path, report.findings, faces)
    console.print(_table(report.findings, faces, settings.data.path))
    for note in report.notes:
        console.print(note, highlight=False)
    console.print(f"list       {path}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"sheets     {sheets} in {output / 'sheets'}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"The source is unchanged. It took {time.perf_counter() - begin:.0f} s.", highlight=False)
    return path


def inspect(faces: Faces, votes: npt.NDArray[np.int64] | None = None, predictions: Sequence[Path] = ()) -> Report:
    """Everything that speaks against rows of `faces`.

    Args:
        faces: all rows of a source.
        votes: int64 (N, 10), each face's votes (`fer.data.ferplus.votes_of`), or None.
        predictions: predictions.csv files, or directories that hold some.

    Raises:
        UserError: the predictions cannot be read or are of other data.
    """
    blank = find_blank(faces)
    copies, groups, note = find_all_copies(faces, votes)
    findings, notes = [*blank, *copies], [note]
    if votes is not None:
        findings += find_by_votes(faces, votes)
    if predictions:
        rows, probabilities, classes = read_predictions(predictions, faces)
        code = np.array([ALL_EMOTIONS.index(name) for name in classes])
        labels = np.array([classes.index(ALL_EMOTIONS[label]) for label in faces.labels[rows].tolist()], np.int64)
        errors = find_label_errors(labels, probabilities)
        findings += [
            Finding(int(rows[row]), "label_error", float(score), int(code[suggested]))
            for row, suggested, score in zip(errors.rows, errors.suggested, errors.score, strict=True)
        ]
        accuracy = float((probabilities.argmax(axis=1) == labels).mean())
        notes.append(
            f"Label errors: {len(rows):,} rows have predictions, right on {accuracy:.1%}; confident learning estimates "
            f"{errors.estimated:,.0f} wrong labels among them and names {len(errors.rows):,}."
        )
    order = list(REASONS)
    findings.sort(key=lambda finding: (order.index(finding.reason), -finding.score, finding.position))
    return Report(findings, groups, notes)


def find_blank(faces: Faces) -> list[Finding]:
    """Pictures with next to nothing on them (`BLANK_SHARE`, `BLANK_DEVIATION`)."""
    flat = faces.images.reshape(len(faces), -1)
    deviation = np.array([image.std() for image in flat])
    share = np.array([np.bincount(image).max() / image.size for image in flat])
    found = np.flatnonzero((share >= BLANK_SHARE) | (deviation < BLANK_DEVIATION))
    return [Finding(int(row), "blank", float(share[row])) for row in found]


def find_all_copies(
    faces: Faces, votes: npt.NDArray[np.int64] | None
) -> tuple[list[Finding], npt.NDArray[np.int64], str]:
    """Rows that show the same picture as another (`fer.data.duplicates.find_copies`); `Report.groups`; a note.

    Of several copies in one split the first is not listed as a copy. Copies across splits, and copies in one split
    under different labels, are all listed. Where labels differ, the suggestion is what FER+ votes for, or without votes
    the label that more than half of a row and its copies in its split have: what is decided about training rows must
    not come from the labels of test rows.
    """
    copies = find_copies(faces.images, faces.images)
    root = connect(copies, len(faces))
    others = copies.first != copies.second
    first, second = copies.first[others], copies.second[others]
    exact, mirrored = copies.exact[others], copies.mirrored[others]
    same = exact & ~mirrored
    score = np.empty(len(first))
    pairs = pairs_at_once(faces.images)
    for start in range(0, len(first), pairs):
        part = slice(start, start + pairs)
        one = np.where(mirrored[part, None, None], faces.images[first[part], :, ::-1], faces.images[first[part]])
        score[part] = correlation(one, faces.images[second[part]])
    score[exact] = 1.0  # blank pictures correlate with nothing

    # Groups are numbered from 1 in the order of their first rows.
    members = np.bincount(root, minlength=len(faces))
    number = np.where(members[root] > 1, np.cumsum(members > 1)[root], 0)

    def best(chosen: npt.NDArray[np.bool_]) -> dict[int, float]:
        """For each row the score of its nearest copy among the chosen pairs."""
        scores: dict[int, float] = {}
        for row, value in zip(first[chosen].tolist(), score[chosen].tolist(), strict=True):
            scores[row] = max(value, scores.get(row, 0.0))
        return scores

    one_split = faces.splits[first] == faces.splits[second]
    repeats = one_split & (second < first)
    exactly = best(repeats & same)
    nearly = {row: value for row, value in best(repeats).items() if row not in exactly}
    across = best(~one_split)
    conflicting = best(one_split & (faces.labels[first] != faces.labels[second]))
    suggested = _suggest(conflicting, faces, first[one_split], second[one_split], votes)
    findings = [
        Finding(row, reason, value, suggested.get(row) if reason == "conflicting_labels" else None, int(number[row]))
        for reason, rows in (
            ("exact_copy", exactly),
            ("near_copy", nearly),
            ("cross_split_copy", across),
            ("conflicting_labels", conflicting),
        )
        for row, value in rows.items()
    ]
    redundant = len(set(first[same & (second < first)].tolist()))
    conflicts = np.unique(root[first[same & (faces.labels[first] != faces.labels[second])]])
    note = (
        f"Copies: {int((members > 1).sum()):,} groups of {int(members[members > 1].sum()):,} rows, the largest of "
        f"{int(members.max())}. Over all splits {redundant:,} rows repeat an earlier one to the pixel; in "
        f"{len(conflicts):,} groups such rows have different labels."
    )
    return findings, number, note


def _suggest(
    rows: Iterable[int],
    faces: Faces,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    votes: npt.NDArray[np.int64] | None,
) -> dict[int, int]:
    """The label to suggest for each of the rows, where there is one; `second` are the copies of `first`.

    Not by the whole group: copies of copies may have nothing to do with each other.
    """
    if votes is not None:
        labels = {row: int(winner(votes[[row]])[0]) for row in rows if votes[row].any()}
        return {row: label for row, label in labels.items() if label < len(ALL_EMOTIONS)}
    found = {}
    for row in rows:
        start, end = np.searchsorted(first, [row, row + 1])
        counts = np.bincount(faces.labels[[row, *second[start:end]]])
        if 2 * counts.max() > 1 + end - start:
            found[row] = int(counts.argmax())
    return found


def find_by_votes(faces: Faces, votes: npt.NDArray[np.int64]) -> list[Finding]:
    """Rows that FER+ calls no face or unknown, and rows with more than half of the votes for another emotion."""
    total = np.maximum(votes.sum(axis=1), 1)
    found = winner(votes)
    top = votes[np.arange(len(votes)), found]
    findings = [
        Finding(int(row), reason, float(top[row] / total[row]))
        for reason, code in (("not_a_face", NOT_A_FACE), ("unknown", UNKNOWN))
        for row in np.flatnonzero(found == code)
    ]
    own = votes[np.arange(len(votes)), faces.labels]
    other = (found < len(ALL_EMOTIONS)) & (found != faces.labels) & (2 * top > total)
    lead = (top - own) / total
    findings += [
        Finding(int(row), "ferplus_disagrees", float(lead[row]), int(found[row])) for row in np.flatnonzero(other)
    ]
    return findings


def read_predictions(
    paths: Sequence[Path], faces: Faces
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], tuple[str, ...]]:
    """What networks said about rows that they were not trained on.

    Evaluation reports on such rows only, so that every line of a predictions.csv counts. Where several runs predicted a
    row, probabilities are averaged.

    Returns:
        Positions of the rows in `faces` (R,), ascending; probabilities (R, C); names of the classes.

    Raises:
        UserError: there is no predictions.csv, one is damaged, or they are of other data or classes.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.rglob("predictions.csv")) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise UserError(
                f"predictions={path}: there is no predictions.csv; give a run that was evaluated, or a sweep"
            )
        files += found
    position_of = {name: position for position, name in enumerate(faces.ids.tolist())}
    sums: dict[int, npt.NDArray[np.float64]] = {}
    counts: dict[int, int] = {}
    classes: tuple[str, ...] = ()
    for file in files:
        try:
            with file.open(newline="", encoding="utf-8-sig") as stream:
                header, *lines = list(csv.reader(stream)) or [[]]
            own = tuple(header[4:])
            if header[:4] != ["split", "row", "target", "prediction"] or not own or not set(own) <= set(ALL_EMOTIONS):
                raise ValueError("its columns are not those of FER2013's own labels")
            if not lines:
                raise ValueError("it has no rows")
            if strange := {line[2] for line in lines if len(line) == len(header)} - set(own):
                raise ValueError(f"it has the target {min(strange)}, which is none of its columns")
            values = np.array([line[4:] for line in lines], np.float64).reshape(len(lines), len(own))
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(
                f"predictions={file} cannot be used ({error}); give the predictions.csv of a run"
            ) from error
        if classes and own != classes:
            raise UserError(f"predictions={file} has other classes than {files[0]}; leave one of them out")
        classes = own
        for line, probabilities in zip(lines, values, strict=True):
            position = position_of.get(line[1])
            if position is None or ALL_EMOTIONS[faces.labels[position]] != line[2]:
                raise UserError(
                    f"predictions={file} calls row {line[1]} {line[2]}, which the data do not; give predictions of "
                    "runs with this data.path and with data.labels=fer2013"
                )
            sums[position] = sums.get(position, np.zeros(len(classes))) + probabilities
            counts[position] = counts.get(position, 0) + 1
    rows = np.array(sorted(sums), np.int64)
    return rows, np.array([sums[row] / counts[row] for row in rows.tolist()]).reshape(len(rows), -1), classes


def _write_sheets(directory: Path, report: Report, faces: Faces) -> int:
    """Contact sheets of each reason, the surest finds first; copies in one frame with all rows of their group."""
    for reason in REASONS:
        for old in directory.glob(f"{reason}_[0-9][0-9][0-9].png"):
            old.unlink()
    order = np.argsort(report.groups, kind="stable")
    ends = np.searchsorted(report.groups[order], np.arange(report.groups.max() + 2))
    count = 0
    for reason, meaning in REASONS.items():
        chosen = {finding.position: finding for finding in report.findings if finding.reason == reason}
        frames: list[list[Cell]] = []
        drawn: set[int] = set()
        for position, finding in chosen.items():
            if finding.group is None:
                frames.append([_cell(position, faces, finding)])
            elif finding.group not in drawn:
                drawn.add(finding.group)
                members = order[ends[finding.group] : ends[finding.group + 1]].tolist()
                frames.append([_cell(member, faces, chosen.get(member)) for member in members])
        sheets = draw_sheets(frames, f"{reason}, {len(chosen):,} rows: {meaning}") if frames else []
        for number, png in enumerate(sheets, start=1):
            write_whole(directory / f"{reason}_{number:03}.png", png)
        count += len(sheets)
    return count


def _cell(position: int, faces: Faces, finding: Finding | None = None) -> Cell:
    """A face with its label, its row and its split; red, with score and suggestion, if it is listed."""
    label, split = ALL_EMOTIONS[faces.labels[position]], _split_name(int(faces.splits[position]))
    name = Path(faces.ids[position]).stem
    if finding is None:
        return Cell(faces.images[position], [label, name, split])
    if finding.suggested not in (None, int(faces.labels[position])):
        label = f"{label} > {ALL_EMOTIONS[finding.suggested]}"
    return Cell(faces.images[position], [label, name, f"{split} {finding.score:.2f}"], marked=True)


def _split_name(split: int) -> str:
    return SPLIT_NAMES.get(split, "no split")


def _table(findings: Sequence[Finding], faces: Faces, source: str) -> Table:
    """Rows by reason and split; a row may have several reasons."""
    splits = [split for split in (UNSPLIT, *SPLIT_NAMES) if (faces.splits == split).any()]
    table = Table(title=escape(f"{source}: {len(faces):,} rows"), title_justify="left")
    for column in ("reason", *map(_split_name, splits), "all", "with a suggested label"):
        table.add_column(column, justify="left" if column == "reason" else "right")

    def add(name: str, chosen: Sequence[Finding]) -> None:
        rows = np.array(sorted({finding.position for finding in chosen}), np.int64)
        counts = [int((faces.splits[rows] == split).sum()) for split in splits]
        suggested = len({finding.position for finding in chosen if finding.suggested is not None})
        table.add_row(name, *(f"{count:,}" for count in (*counts, len(rows), suggested)))

    for reason in REASONS:
        chosen = [finding for finding in findings if finding.reason == reason]
        if chosen:
            add(reason, chosen)
    table.add_section()
    add("default exclude_reasons", [finding for finding in findings if finding.reason in DEFAULT_REASONS])
    add("any reason", findings)
    return table
