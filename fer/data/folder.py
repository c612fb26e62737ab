"""Trees of pictures: a folder per emotion, usually inside `train/`, `test/` and `validation/`.

Decides from the names alone which image is what (`place`), and turns any picture into a gray face (`to_face`).
Knows nothing of where the files lie: a directory and an archive are the same `Container`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fer.data.faces import SIZE, SPLIT_NAMES, TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, emotion_from_spelling

_NUMBERS = re.compile("([0-9]+)")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")

# Folder names, in lower case and without "_", "-" and blanks.
_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training", "trainset", "fer2013train"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "valset", "publictest", "fer2013valid"), VAL),
    **dict.fromkeys(("test", "testing", "testset", "privatetest", "fer2013test"), TEST),
}


@dataclass(frozen=True)
class Place:
    """What an image's path says about it.

    Attributes:
        name: the path in its container.
        row: the path below the folder that holds the splits or classes, so that wrapping folders change no name.
        label: position in `fer.data.faces.Faces.emotions`.
        split: UNSPLIT, TRAIN, VAL or TEST.
        person: who is shown, "" where nothing says it.
    """

    name: str
    row: str
    label: int
    split: int
    person: str = ""


def is_image(name: str) -> bool:
    """Whether a file called `name` is taken for a picture."""
    return name.lower().endswith(_SUFFIXES)


def has_class_folders(names: Iterable[str], emotions: Sequence[str] = ALL_EMOTIONS) -> bool:
    """Whether any of the paths leads through a folder named after an emotion."""
    known = tuple(emotions)
    return any(_meaning(folder, known).emotion for folder in {name.rpartition("/")[0] for name in names})


def split_of(path: str) -> int:
    """The split that the innermost part of a path named after one says, a folder as a rule; UNSPLIT where none is."""
    for part in reversed(path.split("/")):
        known = _SPLIT_FOLDERS.get(re.sub("[-_ ]", "", part.lower()))
        if known is not None:
            return known
    return UNSPLIT


def place(names: Iterable[str], source: str, emotions: Sequence[str] = ALL_EMOTIONS) -> tuple[list[Place], list[str]]:
    """The label and split of every image, in the natural order of the paths, and what the user should be told.

    The class is the innermost folder named after an emotion, the split the innermost folder named after a split. Where
    a tree has no validation folder, files in its test folder called PublicTest* go to VAL, as many Kaggle copies keep
    both official test sets there. Without split folders every image is UNSPLIT.

    Args:
        names: the paths of files, and of folders with "/" at the end.
        source: what messages call the tree.
        emotions: what folders may be called: `fer.labels.ALL_EMOTIONS` and others.

    Raises:
        UserError: no class folder at all, an empty or probably misspelt one, or two data sets side by side.
    """
    known = tuple(emotions)
    files, folders = [], set()
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.add(folder)
        if file and is_image(file):
            files.append((folder, file))

    placed = [(folder, file) for folder, file in files if _meaning(folder, known).emotion]
    _refuse_empty(folders, placed, source, known)
    if not placed:
        raise UserError(
            f"{source} holds neither a FER2013 CSV nor class folders ({', '.join(known)}) with images; "
            f"it holds {listed(sorted({name.split('/')[0] for name in names if name}, key=natural)) or 'nothing'}: "
            "name the CSV, the archive or the folder above the classes in data.path"
        )
    root, notes = _choose_root(placed, source, known)
    placed = [(folder, file) for folder, file in placed if _meaning(folder, known).root == root]
    notes += _others(files, root, source, known)

    found = {_meaning(folder, known).split for folder, _ in placed}
    refuse_outside([(folder, _meaning(folder, known).split) for folder, _ in placed], source)

    places = []
    for folder, file in placed:
        meaning = _meaning(folder, known)
        assert meaning.emotion is not None
        split = meaning.split
        if split == TEST and VAL not in found and file.lower().startswith("publictest"):
            split = VAL
        path = f"{folder}/{file}"
        places.append(Place(path, path[len(root) :], known.index(meaning.emotion), split))
    return sorted(places, key=lambda place: natural(place.row)), notes


def refuse_outside(folders: Iterable[tuple[str, int]], source: str) -> None:
    """Refuse class folders, each with its split, of which some are in a split and others in none."""
    split_in = dict(folders)
    found = set(split_in.values())
    if UNSPLIT in found and len(found) > 1:
        inside = listed(SPLIT_NAMES[split] for split in sorted(found - {UNSPLIT}))
        outside = next(folder for folder, split in split_in.items() if split == UNSPLIT)
        raise UserError(
            f"{source} has class folders inside its {inside} folder and others outside, such as {outside}; "
            "move or delete one of the two"
        )


def to_face(image: Image.Image, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Any picture as uint8 (size, size) gray values.

    Turned upright by its EXIF tag, transparent parts laid over white, 16 bits reduced to 8, then scaled (bicubic over
    the area of each new pixel, without regard to the aspect ratio). A gray picture of that size stays as it is.

    Raises:
        ValueError: floating-point or 32-bit integer pixels, whose black and white nobody can know.
        Exception: whatever Pillow raises on damaged data.
    """
    image.draft("L", (4 * size, 4 * size))  # a large JPEG is decoded at a fraction of its size; no effect on others
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, not 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "L":
        image = image.convert("RGB").convert("L")  # by way of RGB: Pillow knows no direct way from CMYK and others
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def resized(faces: Faces, size: int) -> Faces:
    """The same faces with `size` pixels per side; as they are where they have it."""
    if faces.images.shape[1] == size:
        return faces
    return replace(faces, images=np.stack([to_face(Image.fromarray(face), size) for face in faces.images]))


@dataclass(frozen=True)
class _Meaning:
    """What a folder's path says: the emotion (None: none of ours), the split, and the path above both, with "/"."""

    emotion: str | None
    split: int
    root: str


@cache
def _meaning(folder: str, emotions: tuple[str, ...]) -> _Meaning:
    parts = folder.split("/")
    emotion, split, top = None, UNSPLIT, len(parts)
    for index in reversed(range(len(parts))):
        found = emotion_from_spelling(parts[index], emotions)
        known = split_of(parts[index])
        if emotion is None and found:
            emotion, top = found, index
        elif split == UNSPLIT and known != UNSPLIT:
            split, top = known, index
    return _Meaning(emotion, split, "".join(f"{part}/" for part in parts[:top]))


def _refuse_empty(folders: set[str], placed: list[tuple[str, str]], source: str, emotions: tuple[str, ...]) -> None:
    """Refuse class folders without images."""
    full = {folder for folder, _ in placed}
    empty = [
        folder
        for folder in sorted(folders, key=natural)
        if emotion_from_spelling(folder.rpartition("/")[2], emotions)
        and not any(other == folder or other.startswith(f"{folder}/") for other in full)
    ]
    if empty:
        raise UserError(
            f"{source}: no images ({', '.join(_SUFFIXES)}) in the class folder{'s' if len(empty) > 1 else ''} "
            f"{listed(empty)}; fill or delete the folder, or download the data again"
        )


def _choose_root(placed: list[tuple[str, str]], source: str, emotions: tuple[str, ...]) -> tuple[str, list[str]]:
    """The path above the splits or classes. Some Kaggle copies hold their whole tree twice, once inside the other."""
    rows_of = defaultdict(set)
    for folder, file in placed:
        root = _meaning(folder, emotions).root
        rows_of[root].add(f"{folder}/{file}"[len(root) :])
    roots = sorted(rows_of, key=len)
    first, *others = roots
    for other in others:
        if not other.startswith(first) or rows_of[other] != rows_of[first]:
            where = listed(root or "its top" for root in roots)
            raise UserError(f"{source} holds more than one data set, in {where}; name one of them in data.path")
    notes = [f"{source}: {other} repeats what is above it and is left out" for other in others]
    return first, notes


def _others(files: list[tuple[str, str]], root: str, source: str, emotions: tuple[str, ...]) -> list[str]:
    """A note on images outside the class folders. A folder that is probably a misspelt class is refused."""
    counts = Counter(folder for folder, _ in files if not _meaning(folder, emotions).emotion)
    for folder in counts:
        near = get_close_matches(folder.rpartition("/")[2].lower(), emotions, n=1, cutoff=0.8)
        if near:
            raise UserError(f"{source}: is the folder {folder} meant to be {near[0]}? Then rename it, else delete it")
    if not counts:
        return []
    shown = listed(f"{folder or root or 'its top'} ({count:,})" for folder, count in sorted(counts.items()))
    return [f"{source}: left out {counts.total():,} images that are in no class's folder: {shown}"]


def listed(names: Iterable[str]) -> str:
    """The first eight of the names, separated by commas."""
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def natural(text: str) -> list[str | int]:
    """Sorts numbers inside a name by their value."""
    return [int(part) if part.isascii() and part.isdecimal() else part for part in _NUMBERS.split(text)]
