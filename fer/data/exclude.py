"""The list of doubtful rows (`cleaning.csv`): what is in it, writing it, and reading it for another run.

`fer.cleaning.clean` fills the list; `FER2013DataModule` trains without its rows.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.data.faces import Faces
from fer.errors import UserError
from fer.files import as_csv, at_home, write_whole

# Why a row is listed, and what its score says; a higher score is a surer find.
REASONS: dict[str, str] = {
    "blank": "one gray value fills half of the picture, or there is hardly any contrast; score: share of that value",
    "exact_copy": "the same pixels stand earlier in this split; score: 1",
    "near_copy": "the same picture, changed slightly or mirrored, stands earlier in this split; score: correlation",
    "cross_split_copy": "the same picture, exactly or nearly, stands in another split too; score: correlation",
    "conflicting_labels": "the same picture, exactly or nearly, has another label in this split; score: correlation",
    "not_a_face": "FER+: most votes are for 'not a face'; score: share of the votes",
    "unknown": "FER+: most votes are for 'unknown'; score: share of the votes",
    "ferplus_disagrees": "FER+: more than half of the votes are for one other emotion; score: its lead over the label",
    "label_error": "confident learning on out-of-fold predictions; score: lead of the suggestion's probability",
}

# What `data.exclude_reasons: null` stands for: facts about pictures. The other reasons are opinions about labels; a
# split cleaned by them is an easier one, and a network that helped to find label errors would judge itself.
DEFAULT_REASONS = ("blank", "exact_copy", "near_copy", "cross_split_copy", "conflicting_labels", "not_a_face")

COLUMNS = ("row", "reason", "score", "suggested_label", "group", "picture")


@dataclass(frozen=True)
class Finding:
    """One line of the list.

    Attributes:
        position: of the face among all faces of the source.
        reason: a key of `REASONS`.
        score: as `REASONS` says.
        suggested: position in `Faces.emotions`, or None.
        group: number that all copies of one picture share, or None.
    """

    position: int
    reason: str
    score: float
    suggested: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class Exclusion:
    """What a list says about each face.

    Attributes:
        listed: bool (N,), on the list for one of the chosen reasons.
        suggested: int64 (N,), position in `Faces.emotions` of the one label that all of a row's lines suggest,
            else -1.
    """

    listed: npt.NDArray[np.bool_]
    suggested: npt.NDArray[np.int64]


def check_reasons(reasons: Sequence[str] | None) -> tuple[str, ...]:
    """The reasons that `data.exclude_reasons` names; None stands for `DEFAULT_REASONS`.

    Raises:
        UserError: an unknown reason, or none.
    """
    if reasons is None:
        return DEFAULT_REASONS
    for reason in reasons:
        if reason not in REASONS:
            near = get_close_matches(str(reason), REASONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(REASONS)}"
            raise UserError(f"data.exclude_reasons: {reason} is no reason; {hint}")
    if not reasons:
        raise UserError("data.exclude_reasons is empty; name a reason, or leave data.exclude out")
    return tuple(reasons)


def write_list(path: Path, findings: Sequence[Finding], faces: Faces) -> None:
    """Writes `cleaning.csv`: row, reason, score, suggested label, group, and a digest of the row's picture.

    Raises:
        OSError: as the file system says.
    """
    lines = (
        [
            faces.ids[finding.position],
            finding.reason,
            f"{finding.score:.4f}",
            "" if finding.suggested is None else faces.emotions[finding.suggested],
            "" if finding.group is None else finding.group,
            picture_digest(faces.images[finding.position]),
        ]
        for finding in findings
    )
    write_whole(path, as_csv([COLUMNS, *lines]).encode())


def read_list(path: str | Path, faces: Faces, reasons: Sequence[str] | None = None) -> Exclusion:
    """What the list at `path` says about `faces`, all rows of the source in its order.

    Rows are found by name: the row number in a CSV, the path in a folder. The digests of their pictures show whether
    the list was made for this data set.

    Raises:
        UserError: the list is missing, is none, or was made for another data set; a reason is unknown.
    """
    chosen = check_reasons(reasons)
    source = at_home(path)
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            lines = list(reader)
    except FileNotFoundError as error:
        raise UserError(f"data.exclude={source} does not exist; make it with fer-clean data.path=...") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data.exclude={source} cannot be read ({error}); make it again") from error
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise UserError(
            f"data.exclude={source} has no column {missing[0]}: it takes the cleaning.csv that fer-clean writes"
        )
    position_of = {name: position for position, name in enumerate(faces.ids.tolist())}
    suggestions: dict[int, set[str]] = {}
    for number, line in enumerate(lines, start=2):
        at = f"data.exclude={source}, line {number:,},"
        if line["reason"] not in REASONS:
            raise UserError(f"{at} has the reason {line['reason']!r}, which is none of {', '.join(REASONS)}")
        if line["suggested_label"] not in ("", *faces.emotions):
            raise UserError(f"{at} suggests {line['suggested_label']!r}, which is none of {', '.join(faces.emotions)}")
        position = position_of.get(line["row"] or "")
        if position is None or picture_digest(faces.images[position]) != line["picture"]:
            what = "is not in the data" if position is None else "shows another picture in the data"
            raise UserError(
                f"{at} names row {line['row']}, which {what}: the list was made for another data "
                "set, or at another data.size; make one for this data.path with fer-clean, or leave data.exclude out"
            )
        if line["reason"] in chosen:
            suggestions.setdefault(position, set()).add(line["suggested_label"])
    listed = np.zeros(len(faces), np.bool_)
    suggested = np.full(len(faces), -1, np.int64)
    for position, labels in suggestions.items():
        listed[position] = True
        if len(labels) == 1 and "" not in labels:
            suggested[position] = faces.emotions.index(labels.pop())
    return Exclusion(listed, suggested)


def picture_digest(image: npt.NDArray[np.uint8]) -> str:
    """64 bits of the pixels' BLAKE2b, in hexadecimal."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).hexdigest()
