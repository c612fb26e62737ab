"""FER+: ten people's votes on every face of FER2013 (Barsoum et al., arXiv 1608.01041), and labels made of them.

Reads Microsoft's `fer2013new.csv` and finds each face's votes. Knows nothing of splits in training or of
torch. The data are Microsoft's, under the MIT licence: https://github.com/microsoft/FERPlus.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.data.csv_file import USAGES
from fer.data.faces import SPLIT_NAMES, UNSPLIT, Faces
from fer.data.official import row_in_name
from fer.errors import UserError
from fer.files import at_home
from fer.labels import ALL_EMOTIONS, EMOTIONS, VOTED_ON

FILE = "fer2013new.csv"
URL = f"https://raw.githubusercontent.com/microsoft/FERPlus/master/{FILE}"
_WAY_OUT = f"get {FILE} from {URL}"
ROWS = 35887  # of fer2013.csv

UNKNOWN, NOT_A_FACE = VOTED_ON.index("unknown"), VOTED_ON.index("not a face")

# A label counts as voted for from this share of the ten votes on (Microsoft's own training code, mode multi_target).
VOTED = 0.3

# FER+ and FER2013 agree on 63 % of the rows. A file in another order agrees about as often as chance has it, 20 %.
_AGREEMENT = 0.4

# The columns of votes in the file's order, by what they are for.
_COLUMN_OF = {
    "neutral": "neutral",
    "happy": "happiness",
    "surprise": "surprise",
    "sad": "sadness",
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "contempt": "contempt",
    "unknown": "unknown",
    "not a face": "NF",
}
_CODES = {usage.decode(): code for usage, code in USAGES.items()}


@dataclass(frozen=True)
class Votes:
    """The votes, row by row in the order of `fer2013.csv`.

    Attributes:
        counts: int64 (N, 10): votes for each of `fer.labels.VOTED_ON`.
        splits: int8 (N,), codes of `fer.data.faces`.
    """

    counts: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.counts)


def read_votes(path: str | Path) -> Votes:
    """The votes of a `fer2013new.csv`.

    Rows without an image name, which FER+ leaves out of its own training, are read like all others.

    Raises:
        UserError: the file is missing, is no FER+ file, or has a row that is not as described; names line and fault.
    """
    source = at_home(path)
    try:
        text = source.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist; {_WAY_OUT}, or correct ferplus_path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{source} cannot be read as text ({error}); {_WAY_OUT}") from error
    try:
        return _parse(text, str(source))
    except csv.Error as error:
        raise UserError(f"{source} cannot be read as a CSV ({error}); {_WAY_OUT}") from error


def votes_of(faces: Faces, votes: Votes, path: str | Path) -> npt.NDArray[np.int64]:
    """Each face's votes, int64 (N, 10) as in `Votes.counts`; zeros for a face of which `Faces.official` knows no row.

    A face of a CSV is found by its row number; one whose place in FER2013 its picture tells by `Faces.official`; else a
    file of a folder or archive by the number in its name where all are called Training_<row>, PublicTest_<row> or
    PrivateTest_<row>. That the votes are those of these faces is checked by the split of every row and by the share of
    labels on which FER2013 and FER+ agree.

    Args:
        faces: all rows of the source, before any is left out.
        votes: of the same FER2013.
        path: of the votes, for messages.

    Raises:
        UserError: the files do not belong together.
    """
    wrong = "the votes must be those of this data set, in the order of fer2013.csv"
    numbered = False
    if faces.official is None:
        names = faces.ids.tolist()
        row, splits = np.array([row_in_name(name) for name in names], np.int64), faces.splits
        if (row < 0).any():
            raise UserError(
                f"{path}: the votes are by row of fer2013.csv, and {names[np.argmin(row)]} does not say its row; give "
                "fer2013.csv as data.path, or leave data.labels=ferplus out"
            )
        numbered = all(name.isdecimal() for name in names)
    else:
        row, splits = faces.official.rows.astype(np.int64), faces.official.splits
    known = row >= 0
    if row.max() >= len(votes):
        raise UserError(f"{path} has {len(votes):,} rows, but the data have a row {row.max():,}; {wrong}")
    if numbered and len(faces) < len(votes) and votes.splits[len(faces)] == votes.splits[len(faces) - 1]:
        # The first splits alone are fine: the challenge's train.csv, or a file without the rows for the last test.
        raise UserError(f"{path} has {len(votes):,} rows, the data {len(faces):,}; {wrong}")
    other = known & (splits != UNSPLIT) & (splits != votes.splits[row])
    if other.any():
        first = int(np.argmax(other))
        raise UserError(
            f"{path}: row {row[first]:,} is of the {SPLIT_NAMES[int(votes.splits[row[first]])]} split, in the data "
            f"{faces.ids[first]} is of {SPLIT_NAMES[int(splits[first])]}; {wrong}"
        )
    found: npt.NDArray[np.int64] = np.where(known[:, None], votes.counts[row], 0)
    label = winner(found)
    seven = known & (label < len(EMOTIONS))
    agreement = float((label == faces.labels)[seven].mean()) if seven.any() else 1.0
    if agreement < _AGREEMENT:
        raise UserError(
            f"{path} agrees with the data's labels on {agreement:.0%} of the rows, where FER+ agrees with FER2013 on "
            f"about 63 %; {wrong}"
        )
    return found


def winner(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What got most votes, int64 (N,): a position in `ALL_EMOTIONS`, `UNKNOWN` or `NOT_A_FACE`.

    Ties go to what comes first in the file's own order, as an argmax over its columns has it.
    """
    in_file = np.array([VOTED_ON.index(name) for name in _COLUMN_OF])
    found: npt.NDArray[np.int64] = in_file[counts[:, in_file].argmax(axis=1)]
    return found


def distribution(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """The votes for `classes` as shares of these votes, float32 (N, C); rows without any are zero."""
    chosen = counts[:, [ALL_EMOTIONS.index(name) for name in classes]].astype(np.float32)
    total: npt.NDArray[np.float32] = chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    return total


def voted(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """As `distribution`, over those classes only that at least `VOTED` of all votes are for, or the most.

    Source: Barsoum et al., section 4.2, "multi-label learning".
    """
    chosen = counts[:, [ALL_EMOTIONS.index(name) for name in classes]]
    enough = np.minimum(VOTED * counts.sum(axis=1), chosen.max(axis=1))
    return distribution(np.where(counts >= enough[:, None], counts, 0), classes)


def _parse(text: str, name: str) -> Votes:
    lines = csv.reader(io.StringIO(text))
    header = [column.strip() for column in next(lines, [])]
    missing = [column for column in ("Usage", "Image name", *_COLUMN_OF.values()) if column not in header]
    if missing:
        raise UserError(f"{name} has no column {missing[0]}; {_WAY_OUT}")
    usage = header.index("Usage")
    places = [header.index(_COLUMN_OF[name]) for name in VOTED_ON]
    counts: list[list[int]] = []
    splits: list[int] = []
    for line in lines:
        if not line:
            continue
        at = f"{name}, line {lines.line_num:,} (row {len(counts):,}),"
        if len(line) != len(header):
            raise UserError(f"{at} has {len(line)} columns where the header has {len(header)}; {_WAY_OUT}")
        if line[usage].strip() not in _CODES:
            raise UserError(f"{at} has the Usage {line[usage]!r}, which is none of {', '.join(_CODES)}")
        votes = [line[place].strip() for place in places]
        if not all(re.fullmatch("[0-9]{1,9}", vote) for vote in votes):
            raise UserError(f"{at} has a vote count that is no whole number of one to nine digits; {_WAY_OUT}")
        row = [int(vote) for vote in votes]
        if sum(row) == 0:
            raise UserError(f"{at} has no vote at all; {_WAY_OUT}")
        counts.append(row)
        splits.append(_CODES[line[usage].strip()])
    if not counts:
        raise UserError(f"{name} has a header but no rows; {_WAY_OUT}")
    return Votes(np.array(counts, np.int64), np.array(splits, np.int8))
