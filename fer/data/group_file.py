"""Which group the person on each picture belongs to, as people have labelled it: for reports by group.

Groups are read and never guessed: there is no classifier of people in this project. Knows nothing of networks.
"""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.files import at_home

Groups = npt.NDArray[np.str_]

# RAF-DB's Annotation/manual/*_manu_attri.txt end with three numbers, each a position in one of these.
_RAF_DB = {
    "gender": ("male", "female", "unsure"),
    "race": ("Caucasian", "African-American", "Asian"),
    "age": ("0 to 3", "4 to 19", "20 to 39", "40 to 69", "70 and more"),
}
_RAF_DB_FILE = "_manu_attri.txt"


def read_groups(path: str | Path, rows: Groups) -> dict[str, Groups]:
    """The group of every row, by the name of the grouping.

    Args:
        path: a CSV with the columns id and group, where an id is a row's name in its source; or RAF-DB's folder
            Annotation/manual.
        rows: (N,), the names of all rows of the source (see `fer.data.faces.Faces`).

    Returns:
        {"group": (N,)} for a CSV; {"gender": ..., "race": ..., "age": ...} for RAF-DB. Rows of which nothing is said
        have "".

    Raises:
        UserError: the file is missing or none, names a row that is not in the data or one twice, or leaves a group
            empty; a folder that holds no attributes of these rows.
    """
    source = at_home(path)
    if source.is_dir():
        return _read_raf_db(source, rows)
    position_of = {name: position for position, name in enumerate(rows.tolist())}
    found = [""] * len(rows)
    for number, (name, group) in enumerate(_read_csv(source), start=2):
        at = f"data.groups={source}, line {number:,},"
        if not group:
            raise UserError(f"{at} leaves the group of {name} empty; name it, or leave the line out")
        position = position_of.get(name)
        if position is None:
            example = f", such as {rows[0]}" if len(rows) else ""
            raise UserError(f"{at} names {name}, which is no row of the data; ids are rows of the source{example}")
        if found[position]:
            raise UserError(f"{at} names {name} for the second time; leave one of the lines out")
        found[position] = group
    return {"group": np.array(found)}


def _read_csv(source: Path) -> list[tuple[str, str]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            lines = [((line.get("id") or "").strip(), (line.get("group") or "").strip()) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"data.groups={source} cannot be read ({error}); give a CSV with the columns id,group"
        ) from error
    missing = [column for column in ("id", "group") if column not in header]
    if missing or not lines:
        what = f"no column {missing[0]}" if missing else "no lines"
        raise UserError(f"data.groups={source} has {what}; it takes a CSV with the columns id,group")
    return lines


def _read_raf_db(folder: Path, rows: Groups) -> dict[str, Groups]:
    found = {name: [""] * len(rows) for name in _RAF_DB}
    for position, row in enumerate(rows.tolist()):
        file = folder / f"{Path(row).stem.removesuffix('_aligned')}{_RAF_DB_FILE}"
        try:
            words = file.read_text(encoding="ascii").split()
            codes = [int(word) for word in words[-len(_RAF_DB) :]]
            for (name, meanings), code in zip(_RAF_DB.items(), codes, strict=True):
                if code < 0:
                    raise IndexError
                found[name][position] = meanings[code]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"data.groups: {file} does not end with RAF-DB's numbers of gender, race and age; unpack it again"
            ) from error
    if not any(found["gender"]):
        raise UserError(
            f"data.groups={folder} holds no attributes of these pictures; give RAF-DB's folder Annotation/manual with "
            "RAF-DB's aligned pictures in data.path, or a CSV with the columns id,group"
        )
    return {name: np.array(groups) for name, groups in found.items()}
