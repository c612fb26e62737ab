"""Which data set a tree of pictures is, and each picture's emotion, split and person.

Labels come from a label file where there is one, from the pictures' names in KDEF, and else from folder names
(`fer.data.folder.place`). Emotions are mapped by name; numbers only by a layout that is known: because the user says
which (`data.layout`, `data.names`), because the files are called as only one data set calls them, or because the
classes have exactly the sizes that it has. Knows nothing of pixels.
"""

import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np

from fer.data.container import Container
from fer.data.faces import TEST, TRAIN, UNSPLIT
from fer.data.folder import Place, has_class_folders, is_image, listed, natural, place, refuse_outside, split_of
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS, emotion_from_spelling

# What each data set's numbers stand for; None: no emotion, left out. FER2013: Goodfellow et al., arXiv 1307.0414.
# RAF-DB: its readme, whdeng.cn/RAF/model1.html. AffectNet: Mollahosseini et al., arXiv 1708.03985, section 3.
CODES: dict[str, dict[int, str | None]] = {
    "fer2013": dict(enumerate(EMOTIONS)),
    "raf-db": dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), start=1)),
    "affectnet": dict(
        enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt", None, None, None))
    ),
}

# Rows per class that give a data set away though its classes are numbers: training rows, by ascending number.
FINGERPRINTS: dict[tuple[int, ...], str] = {
    (3995, 436, 4097, 7215, 4830, 3171, 4965): "fer2013",
    (4953, 547, 5121, 8989, 6077, 4002, 6198): "fer2013",  # in one part
    (1290, 281, 717, 4772, 1982, 705, 2524): "raf-db",
    (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750): "affectnet",
}

_NAMES = {"fer2013": "FER2013", "raf-db": "RAF-DB", "affectnet": "AffectNet", "fer+": "FER+", "kdef": "KDEF"}

# The order of FER+'s votes (microsoft/FERPlus, README.md); the last two are "unknown" and "not a face".
_FERPLUS = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", None, None)
_FERPLUS_FOLDER = re.compile("FER2013(?:Train|Valid|Test)")

# What stands in the place of a label that is missing; among numbers `datasets` writes -1.
_MISSING = ("", "nan", "null", "none")
_NO_LABEL = -1
_NUMBER = re.compile(r"(-?\d{1,18})(?:\.0*)?")

_RAFDB_LIST = "list_patition_label.txt"  # spelt so by its authors
_RAFDB_PICTURE = re.compile(r"(train|test)_\d+_aligned\.\w+$")
_LABEL_TABLE = re.compile(r"(?:(train|val|valid|validation|test)_)?labels?\.csv$", re.IGNORECASE)
_PICTURE_COLUMNS = ("image", "pth", "path", "file", "filename", "image_path")
_LABEL_COLUMNS = ("label", "emotion", "expression")
_AFFECTNET_LABEL = re.compile(r"^(.*)annotations/(\d+)_exp\.npy$")
_KDEF_PICTURE = re.compile(r"^[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(?:S|HL|HR|FL|FR)\.\w+$", re.IGNORECASE)
_KDEF = {"AF": "fear", "AN": "angry", "DI": "disgust", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise"}
_CK_PICTURE = re.compile(r"^(S\d{3})_\d{3}_\d{8}\.\w+$", re.IGNORECASE)


def is_label_table(name: str) -> bool:
    """Whether a CSV's name says that it holds the labels of pictures beside it."""
    file = name.rpartition("/")[2]
    return file == "fer2013new.csv" or bool(_LABEL_TABLE.match(file))


def is_label_file(name: str) -> bool:
    """Whether a file's name says that it holds labels of pictures."""
    file = name.rpartition("/")[2]
    return is_label_table(name) or file == _RAFDB_LIST or bool(_AFFECTNET_LABEL.match(name))


@dataclass(frozen=True)
class Tree:
    """What a tree of pictures was taken for.

    Attributes:
        form: in words.
        places: its pictures, in the natural order of their paths.
        notes: what the user should be told.
    """

    form: str
    places: list[Place]
    notes: list[str]


def find(
    container: Container,
    source: str,
    layout: str | None = None,
    names: Sequence[str] | None = None,
    emotions: Sequence[str] = ALL_EMOTIONS,
) -> Tree:
    """What lies in a directory or archive of pictures.

    Args:
        container: the tree; other folders may be wrapped around it.
        source: what messages call it.
        layout: as `fer.settings.train.SourceSettings` has it, or None to find out.
        names: the emotions of the numbers, one each from the smallest to the largest; None where the layout knows them.
        emotions: those that names may say: `fer.labels.ALL_EMOTIONS` and others.

    Raises:
        UserError: nothing that is known; numbers that nobody explains; label files and pictures that do not belong
            together; whatever `fer.data.folder.place` refuses.
    """
    pictures = [name for name in container.names if is_image(name)]
    finders: tuple[tuple[str, Callable[[], Tree | None]], ...] = (
        ("raf-db", lambda: _rafdb(container, pictures, source)),
        ("affectnet", lambda: _affectnet(container, pictures, source)),
        ("fer+", lambda: _ferplus(container, pictures, source)),
        ("kdef", lambda: _kdef(pictures, source)),
    )
    if layout not in ("folders", "fer2013") and (names is None or layout in ("kdef", "fer+")):  # which name theirs
        for name, finder in finders:
            if layout in (None, name) and (tree := finder()) is not None:
                return tree
    if layout in ("kdef", "fer+"):
        raise UserError(f"{source} holds no pictures as {_NAMES[layout]} has them; leave data.layout={layout} out")
    if layout != "folders":
        tree = _label_table(container, pictures, source, layout, names, emotions)
        if tree is not None:
            return tree
    numbered = layout not in (None, "folders") or not has_class_folders(container.names, emotions)
    if numbered and (tree := _number_folders(pictures, source, layout, names, emotions)) is not None:
        return tree
    places, notes = place(container.names, source, emotions)  # or says what is missing
    return _with_persons("class folders", places, notes, source)


def emotions_of_labels(
    labels: Sequence[object],
    splits: Sequence[int],
    what: str,
    layout: str | None,
    names: Sequence[str] | None,
    emotions: Sequence[str],
) -> tuple[list[int | None], str | None]:
    """What labels stand for: for each a position in `emotions` or None, and what explains the numbers, if they are any.

    Args:
        labels: names, or numbers, also as 3.0 or as text. Where one is missing (None, nan, "") it stands for none.
        splits, what, layout, names, emotions: as `emotions_of_codes` has them.

    Raises:
        UserError: as `emotions_of_codes`.
    """
    numbers = {label: _number(label) for label in set(labels)}
    codes = [code for label in labels if (code := numbers[label]) is not None]
    if len(codes) == len(labels):
        return emotions_of_codes(codes, splits, what, layout, names, emotions)
    spelt = {label: _position(emotion_from_spelling(str(label), emotions), emotions) for label in numbers}
    return [spelt[label] for label in labels], None


def _number(label: object) -> int | None:
    text = str(label).strip().lower()
    found = _NUMBER.fullmatch(text)
    return _NO_LABEL if text in _MISSING else int(found[1]) if found else None


def emotions_of_codes(
    codes: Sequence[int],
    splits: Sequence[int],
    what: str,
    layout: str | None,
    names: Sequence[str] | None,
    emotions: Sequence[str],
) -> tuple[list[int | None], str]:
    """What numbers stand for: for each row a position in `emotions` or None, and the layout's name.

    Args:
        codes: each row's number; -1 stands for none.
        splits: each row's split.
        what: where the numbers stand, for messages: "data: the folders".
        layout, names, emotions: as `find` has them.

    Raises:
        UserError: nothing says what they stand for, or there are others than the layout has.
    """
    rows = Counter(code for code in codes if code != _NO_LABEL)
    if not rows:
        return [None] * len(codes), "no labels"
    found = ", ".join(map(str, sorted(rows)))
    table: dict[int, str | None] = {}
    if names is not None:
        low, high = min(rows), max(rows)
        for code, given in enumerate(names, start=low):
            table[code] = emotion_from_spelling(str(given), emotions)
            if table[code] is None:
                raise UserError(f"data.names: {given!r} is no emotion; they are {', '.join(emotions)}")
        # Where 0 is there, it is the first; else 1 to 6 for seven names may lack the 0 or the 7.
        if high not in table or (low > 0 and len(table) > high - low + 1):
            raise UserError(
                f"{what} are called {found}, and data.names has {len(names)} names; give one for each number from "
                f"{low} to {high}, also for those between that have no picture"
            )
        form = "data.names"
    else:
        train = Counter(code for code, split in zip(codes, splits, strict=True) if split == TRAIN and code in rows)
        shift = 0
        for count in (train, rows):
            sized = FINGERPRINTS.get(tuple(count[code] for code in sorted(count)))
            if sized is not None and layout in (None, sized):
                layout, shift = sized, min(count) - min(CODES[sized])  # copies of RAF-DB count from 0
                break
        if layout is None:
            ways = [
                f"data.layout={name} ({', '.join(f'{code} {emotion}' for code, emotion in codes.items() if emotion)})"
                for name, codes in CODES.items()
                if set(rows) <= set(codes)
            ]
            example = "data.names=[surprise,fear,...] (their emotions, from the smallest number to the largest)"
            choice = " or ".join([*ways, example])
            raise UserError(f"{what} are called {found}, and nothing says which emotion is which; set {choice}")
        table, form = {code + shift: emotion for code, emotion in CODES[layout].items()}, _NAMES[layout]
    unknown = sorted(set(rows) - set(table))
    if unknown:
        known = ", ".join(f"{code} {emotion or 'no emotion'}" for code, emotion in table.items())
        raise UserError(
            f"{what} hold the number {unknown[0]}, which is none of {form}'s: {known}; correct it, or say with "
            "data.names=[surprise,fear,...] what the numbers stand for, from the smallest to the largest"
        )
    return [_position(table.get(code), emotions) for code in codes], form


# Label files


def _rafdb(container: Container, pictures: list[str], source: str) -> Tree | None:
    """RAF-DB's `EmoLabel/list_patition_label.txt` with `Image/aligned/` or `Image/original/` beside it."""
    lists = [name for name in container.names if name.rpartition("/")[2] == _RAFDB_LIST]
    if not lists:
        return None
    if len(lists) > 1:
        raise UserError(f"{source} holds {_RAFDB_LIST} more than once ({listed(lists)}); name one folder in data.path")
    ((_, content),) = container.read(lists)
    lines = content.decode("utf-8-sig", errors="replace").splitlines()
    root = lists[0].removesuffix(_RAFDB_LIST).removesuffix("EmoLabel/")
    below = set(pictures)
    known = {str(code): code for code in CODES["raf-db"]}
    labels = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        code = known.get(words[1]) if len(words) == 2 else None
        if code is None:
            _refuse(lists[0], source, number, f"{line.strip()!r} is no picture and number from 1 to 7")
        stem, _, suffix = words[0].rpartition(".")
        ways = (f"{root}Image/aligned/{stem}_aligned.{suffix}", f"{root}Image/original/{words[0]}")
        path = next((way for way in ways if way in below), ways[0])
        split = TRAIN if words[0].startswith("train") else TEST
        labels.append((path, _position(CODES["raf-db"][code]), split))
    of_data = [name for name in pictures if name.startswith(f"{root}Image/{_folder_of(labels)}/")]
    return _labelled("RAF-DB (its label list)", labels, of_data, root, lists[0], source)


def _folder_of(labels: list[tuple[str, int | None, int]]) -> str:
    """aligned or original: where most of RAF-DB's pictures lie."""
    return Counter(path.split("/")[-2] for path, _, _ in labels).most_common(1)[0][0] if labels else "aligned"


def _affectnet(container: Container, pictures: list[str], source: str) -> Tree | None:
    """AffectNet's `{train_set,val_set}/images/N.jpg` with `annotations/N_exp.npy`, one label in each."""
    found = {name: match for name in container.names if (match := _AFFECTNET_LABEL.match(name))}
    if not found:
        return None
    picture_of = {name.rpartition(".")[0]: name for name in pictures}
    labels = []
    for name, content in container.read(list(found)):
        try:
            given = np.load(io.BytesIO(content), allow_pickle=False)
            code = int(given)
            if code != float(given):
                raise ValueError(f"{given} is no whole number")
        except (ValueError, TypeError, OverflowError, EOFError, OSError) as error:
            raise UserError(
                f"{source}: {name} is no .npy of one number ({error}); files that hold Python objects are not opened, "
                "as they may run code: copy the data again"
            ) from error
        if code not in CODES["affectnet"]:
            raise UserError(f"{source}: {name} holds the number {code}, which is none of AffectNet's 0 to 10")
        parent, number = found[name].groups()
        path = picture_of.get(f"{parent}images/{number}", f"{parent}images/{number}.jpg")
        labels.append((path, _position(CODES["affectnet"][code]), split_of(path)))
    parents = {match[1] for match in found.values()}
    of_data = [name for name in pictures if name.rpartition("images/")[0] in parents]
    return _labelled("AffectNet (.npy labels)", labels, of_data, "", "annotations", source)


def _ferplus(container: Container, pictures: list[str], source: str) -> Tree | None:
    """FER+'s `FER2013{Train,Valid,Test}/fer0000000.png` with `label.csv`, or beside `fer2013new.csv`."""
    of_data = [name for name in pictures if _FERPLUS_FOLDER.fullmatch(name.rpartition("/")[0].rpartition("/")[2])]
    if not of_data:
        return None
    tables = [name for name in container.names if name.rpartition("/")[2] in ("label.csv", "fer2013new.csv")]
    beside = [name for name in tables if name.endswith("label.csv")] or tables
    if not beside:
        folders = listed(sorted({name.split("/")[-2] for name in of_data}))
        raise UserError(
            f"{source} holds FER+'s folders ({folders}) without their labels; put fer2013new.csv beside them "
            "(https://github.com/microsoft/FERPlus)"
        )
    by_name = defaultdict(list)
    for name in of_data:
        by_name[name.rpartition("/")[2]].append(name)
    labels = []
    for table in beside:
        folder = table.rpartition("/")[0]
        for number, row in _rows(container, table, source):
            name = row[1] if table.endswith("fer2013new.csv") and len(row) == 12 else row[0]
            if not is_image(name):  # a header, or a row that FER+ gives no picture
                continue
            votes = row[-len(_FERPLUS) :]
            if len(row) < 11 or not all(re.fullmatch("[0-9]{1,9}", vote.strip()) for vote in votes):
                _refuse(table, source, number, "has no ten vote counts")
            counts = [int(vote) for vote in votes]
            path = f"{folder}/{name}" if table.endswith("label.csv") else _one(by_name[name], name, source)
            split = split_of(path)
            labels.append((path, _position(_FERPLUS[counts.index(max(counts))]), split))
    return _labelled("FER+ (label with most votes)", labels, of_data, "", beside[0].rpartition("/")[2], source)


def _label_table(
    container: Container,
    pictures: list[str],
    source: str,
    layout: str | None,
    names: Sequence[str] | None,
    known: Sequence[str],
) -> Tree | None:
    """`labels.csv`, or one for each split (`train_labels.csv`), with a picture and a label in each row."""
    tables = {}
    for name in container.names:
        match = _LABEL_TABLE.match(name.rpartition("/")[2])
        if match:
            rows = _rows(container, name, source)
            header = [column.strip().lower() for column in rows[0][1]] if rows else []
            picture = next((header.index(column) for column in _PICTURE_COLUMNS if column in header), None)
            label = next((header.index(column) for column in _LABEL_COLUMNS if column in header), None)
            if picture is not None and label is not None:
                tables[name] = (match[1] or "", picture, label, rows[1:])
    if not tables or not pictures:
        return None
    by_name = defaultdict(list)
    for name in pictures:
        by_name[_composed(name.rpartition("/")[2])].append(name)
    listing: list[tuple[str, str, int]] = []  # picture, label, split
    stated: dict[str, int] = {}
    # Those of one split first: what they say of a picture's split holds for a table of all, too.
    for table, (part, picture, label, rows) in sorted(tables.items(), key=lambda item: not item[1][0]):
        beside = table[: table.rfind("/") + 1]
        for number, row in rows:
            if len(row) <= max(picture, label):
                _refuse(table, source, number, "has too few columns")
            tail = _composed(row[picture].strip().replace("\\", "/").removeprefix("./"))
            ways = [name for name in by_name[tail.rpartition("/")[2]] if f"/{_composed(name)}".endswith(f"/{tail}")]
            ways = [name for name in ways if name.startswith(beside)] or ways
            if len(ways) > 1 and part:
                ways = [name for name in ways if split_of(name) == split_of(part)]
            path = _one(ways, tail, source)
            split = split_of(part) if part else stated.get(path, split_of(path))
            if part:
                stated[path] = split
            listing.append((path, row[label].strip(), split))
    listing = list(dict.fromkeys(listing))  # in two tables, but counted once
    shown = listed(sorted(tables))
    guess = "raf-db" if all(_RAFDB_PICTURE.search(path) for path, _, _ in listing) else None
    emotions, form = emotions_of_labels(
        [label for _, label, _ in listing],
        [split for _, _, split in listing],
        f"{source}: the labels in {shown}",
        layout or guess,
        names,
        known,
    )
    form = form or _NAMES.get(layout or "", "label table")
    labels = [(path, emotion, split) for (path, _, split), emotion in zip(listing, emotions, strict=True)]
    return _labelled(f"{form} ({shown})", labels, pictures, "", shown, source)


def _labelled(
    form: str, labels: list[tuple[str, int | None, int]], pictures: list[str], root: str, table: str, source: str
) -> Tree:
    """The tree that a label file describes: (picture, position in the emotions or None, split) each.

    Raises:
        UserError: a picture is missing, or is named twice with different labels or splits.
    """
    have = set(pictures)
    missing = [path for path, _, _ in labels if path not in have]
    if missing:
        raise UserError(
            f"{source}: {table} names {len(missing):,} pictures that are not there ({listed(missing)}); copy the data "
            "again, or delete these lines"
        )
    places: dict[str, Place] = {}
    seen: dict[str, tuple[int | None, int]] = {}
    for path, emotion, split in labels:
        before = seen.setdefault(path, (emotion, split))
        if before != (emotion, split):
            what = "labels" if before[0] != emotion else "splits"
            raise UserError(f"{source}: {table} names {path} twice, with different {what}; delete one of the lines")
        if emotion is not None:
            places[path] = Place(path, path.removeprefix(root), emotion, split)
    notes = []
    if none := sum(emotion is None for _, emotion, _ in labels):
        notes.append(f"{source}: left out {none:,} pictures that {table} gives no emotion")
    if unlabelled := [name for name in pictures if name not in seen]:
        shown = listed(unlabelled)
        notes.append(f"{source}: left out {len(unlabelled):,} pictures without a label in {table}: {shown}")
    if not places:
        raise UserError(f"{source}: {table} gives no picture an emotion; name another folder in data.path")
    return _with_persons(form, sorted(places.values(), key=lambda place: natural(place.row)), notes, source)


# Names of files and folders


def _kdef(pictures: list[str], source: str) -> Tree | None:
    """KDEF's names: session, sex, number, emotion, angle, as AF01ANS.JPG; the person is sex and number."""
    found = {name: match for name in pictures if (match := _KDEF_PICTURE.match(name.rpartition("/")[2]))}
    if 2 * len(found) <= len(pictures):
        return None
    places = [
        Place(name, name, ALL_EMOTIONS.index(_KDEF[match[2].upper()]), split_of(name), match[1].upper())
        for name, match in found.items()
    ]
    others = [name for name in pictures if name not in found]
    notes = []
    if others:
        notes.append(_left_out(source, others, "KDEF"))
    return Tree("KDEF", sorted(places, key=lambda place: natural(place.row)), notes)


def _number_folders(
    pictures: list[str], source: str, layout: str | None, names: Sequence[str] | None, emotions: Sequence[str]
) -> Tree | None:
    """Class folders that are called by numbers, `train/5/`."""
    found = []
    for name in pictures:
        parts = name.split("/")
        inner_first = list(reversed(range(len(parts) - 1)))
        index = next((i for i in inner_first if parts[i].isdecimal()), None)
        if index is not None:
            top = next((i for i in inner_first if split_of(parts[i]) != UNSPLIT), index)
            found.append((name, int(parts[index]), split_of("/".join(parts[:-1])), parts[: min(index, top)]))
    if not found:
        return None
    if layout is None and all(_RAFDB_PICTURE.search(name) for name, *_ in found):
        layout = "raf-db"
    _, codes, splits, _ = zip(*found, strict=True)
    labels, form = emotions_of_codes(codes, splits, f"{source}: the class folders", layout, names, emotions)
    roots = {"/".join(parts) for *_, parts in found}
    if len(roots) > 1:
        raise UserError(f"{source} holds more than one data set, in {listed(sorted(roots))}; name one in data.path")
    refuse_outside([(name.rpartition("/")[0], split) for name, _, split, _ in found], source)
    root = f"{root}/" if (root := roots.pop()) else ""
    places = [
        Place(name, name.removeprefix(root), label, split)
        for (name, _, split, _), label in zip(found, labels, strict=True)
        if label is not None
    ]
    notes = []
    if len(places) < len(found):
        notes.append(f"{source}: left out {len(found) - len(places):,} pictures in folders that are no emotion's")
    if len(found) < len(pictures):
        notes.append(f"{source}: left out {len(pictures) - len(found):,} pictures outside the class folders")
    places.sort(key=lambda place: natural(place.row))
    return _with_persons(f"{form} (number folders)", places, notes, source)


def _with_persons(form: str, places: list[Place], notes: list[str], source: str) -> Tree:
    """Persons by the names of files, where most are called as CK+ (S010_004_00000017.png) or KDEF calls them."""
    for data_set, pattern in (("CK+", _CK_PICTURE), ("KDEF", _KDEF_PICTURE)):
        found = [(place, pattern.match(place.name.rpartition("/")[2])) for place in places]
        named = [replace(place, person=match[1].upper()) for place, match in found if match]
        if 2 * len(named) > len(places):
            if others := [place.name for place, match in found if not match]:
                notes = [*notes, _left_out(source, others, data_set)]
            return Tree(f"{data_set} ({form})", named, notes)
    return Tree(form, places, notes)


def _left_out(source: str, pictures: list[str], data_set: str) -> str:
    return f"{source}: left out {len(pictures):,} pictures that are not called as {data_set}'s: {listed(pictures)}"


def _rows(container: Container, name: str, source: str) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not blank, each with its line."""
    ((_, content),) = container.read([name])
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig", errors="replace")))
    try:
        return [(lines.line_num, row) for row in lines if any(field.strip() for field in row)]
    except csv.Error as error:
        _refuse(name, source, lines.line_num, f"cannot be read ({error})")


def _composed(name: str) -> str:
    """As most systems write letters with accents; macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def _position(emotion: str | None, emotions: Sequence[str] = ALL_EMOTIONS) -> int | None:
    return None if emotion is None else emotions.index(emotion)


def _one(ways: list[str], name: str, source: str) -> str:
    """The only picture that is meant, or the name itself, which then counts as missing."""
    if len(ways) > 1:
        raise UserError(f"{source} holds several pictures called {name} ({listed(ways)}); name one folder in data.path")
    return ways[0] if ways else name


def _refuse(table: str, source: str, line: int, fault: str) -> NoReturn:
    raise UserError(f"{source}: {table}, line {line:,}, {fault}; mend or delete the line, or copy the file again")
